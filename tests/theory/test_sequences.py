"""Tables of next tokens against tables of answers: by brute force, by hand, and there and back."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likelier.theory.optimum import optimal_policy, total_variation
from likelier.theory.sequences import (
    Sequences,
    next_token_policy,
    random_sequence_world,
    sequence_policy,
    sequence_world,
)
from likelier.theory.world import WorldError

ALPHABETS = st.sampled_from(["a", "ab", "xyz"])
LENGTHS = st.integers(1, 4)


def brute_force(sequences: Sequences, log_next: torch.Tensor, prompt: int) -> dict[str, float]:
    """log π of every answer, token by token through a dictionary: nothing of `sequence_policy`'s levels."""
    row = {prefix: log_next[prompt, index] for index, prefix in enumerate(sequences.prefixes)}
    found = {}
    for size in range(sequences.length + 1):
        for letters in itertools.product(sequences.letters, repeat=size):
            text = "".join(letters)
            logp = sum(float(row[text[:t]][sequences.letters.index(text[t])]) for t in range(size))
            if size == sequences.length:
                found[text] = logp
            else:
                found[f"{text}."] = logp + float(row[text][-1])
    return found


@given(ALPHABETS, LENGTHS, st.integers(0, 2**31), st.floats(0.1, 50.0))
@settings(max_examples=40, deadline=None)
def test_an_answers_log_prob_is_the_sum_over_its_tokens(
    letters: str, length: int, seed: int, spread: float
) -> None:
    sequences = Sequences(letters=letters, length=length)
    generator = torch.Generator().manual_seed(seed)
    shape = (2, len(sequences.prefixes), len(letters) + 1)
    log_next = (spread * torch.randn(shape, generator=generator).double()).log_softmax(-1)
    table = sequence_policy(sequences, log_next)
    for prompt in (0, 1):
        wanted = brute_force(sequences, log_next, prompt)
        assert set(wanted) == set(sequences.completions)
        own = dict(zip(sequences.completions, table[prompt].tolist(), strict=True))
        assert all(math.isclose(own[y], wanted[y], rel_tol=1e-12, abs_tol=1e-12) for y in wanted)


@given(ALPHABETS, LENGTHS, st.integers(0, 2**31), st.floats(-4, 4))
@settings(max_examples=60, deadline=None)
def test_any_table_of_answers_is_that_of_its_next_tokens(
    letters: str, length: int, seed: int, exponent: float
) -> None:
    """π* for β from 1e-4 to 1e4, so that probabilities reach e^-30000."""
    sequences = Sequences(letters=letters, length=length)
    world = random_sequence_world(sequences, seed)
    beta = 10.0**exponent
    policy = optimal_policy(world.log_reference, world.reward, beta)
    log_next = next_token_policy(sequences, policy)
    assert (log_next.exp().sum(-1) - 1.0).abs().max() < 1e-12
    again = sequence_policy(sequences, log_next)
    scale = max(1.0, float(world.reward.abs().max()) / beta)
    assert (again - policy).abs().max() / scale < 1e-12


def test_next_tokens_by_hand() -> None:
    """After a: of 0.5 in all, 0.1 ends, 0.2 goes on with a, 0.2 with b."""
    sequences = Sequences(letters="ab", length=2)
    table = torch.tensor([[0.3, 0.1, 0.05, 0.2, 0.2, 0.1, 0.05]], dtype=torch.float64)
    found = next_token_policy(sequences, table.log()).exp()[0]
    wanted = [[0.5, 0.2, 0.3], [0.4, 0.4, 0.2], [0.5, 0.25, 0.25]]
    assert torch.allclose(found, torch.tensor(wanted, dtype=torch.float64), atol=1e-15)


def test_what_no_answer_begins_with_is_followed_by_anything() -> None:
    sequences = Sequences(letters="a", length=2)
    table = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64).log()
    found = next_token_policy(sequences, table)
    assert found.exp().tolist() == [[[0.0, 1.0], [0.5, 0.5]]]
    assert torch.equal(sequence_policy(sequences, found), table)


def test_cut_answers_are_outcomes() -> None:
    """Without them the probabilities of a model that never ends would add up to 0."""
    sequences = Sequences(letters="ab", length=3)
    never = torch.zeros(1, 7, 3, dtype=torch.float64)
    never[..., -1] = -torch.inf
    world = sequence_world(sequences, never.log_softmax(-1), torch.zeros(1, 15, dtype=torch.float64))
    ended = [not sequences.is_cut(y) for y in sequences.completions]
    assert float(world.log_reference.exp()[0, ended].sum()) == 0.0
    assert abs(float(world.log_reference.exp().sum()) - 1.0) < 1e-12


def test_sampling_from_next_tokens_gives_the_answers_table() -> None:
    """A walk through the conditionals, many times: frequencies within five standard errors of the table."""
    sequences = Sequences(letters="ab", length=2)
    world = random_sequence_world(sequences, 3, prompts=1)
    log_next = next_token_policy(sequences, world.log_reference)
    torch.manual_seed(0)
    draws = 20_000
    counts = dict.fromkeys(sequences.completions, 0)
    tokens = torch.multinomial(log_next[0].exp(), draws, replacement=True)
    for draw in range(draws):
        text = ""
        while len(text) < 2 and not text.endswith("."):
            text += sequences.vocabulary[int(tokens[sequences.prefixes.index(text), draw])]
        counts[text] += 1
    for y, logp in zip(sequences.completions, world.log_reference[0].tolist(), strict=True):
        p = math.exp(logp)
        assert abs(counts[y] / draws - p) < 5 * math.sqrt(p * (1 - p) / draws)


def test_the_smallest_world() -> None:
    """One letter, one token: it ends, or it is cut."""
    sequences = Sequences(letters="a", length=1)
    assert sequences.completions == (".", "a")
    world = random_sequence_world(sequences, 0)
    best = optimal_policy(world.log_reference, world.reward, 1.0)
    again = sequence_policy(sequences, next_token_policy(sequences, best))
    assert float(total_variation(again, best).max()) < 1e-15


@pytest.mark.parametrize(
    ("letters", "length", "message"),
    [
        ("", 2, "give different characters"),
        ("aa", 2, "give different characters"),
        ("a.", 2, "none of them `.`"),
        ("ab", 0, "an answer has one at least"),
        ("abcdefgh", 6, "fewer letters or a shorter length"),
    ],
)
def test_alphabets_that_cannot_be(letters: str, length: int, message: str) -> None:
    with pytest.raises(WorldError, match=message):
        Sequences(letters=letters, length=length)


def test_tables_of_another_shape_are_refused() -> None:
    sequences = Sequences(letters="ab", length=2)
    with pytest.raises(WorldError, match="are those of the alphabet and length"):
        sequence_world(sequences, torch.zeros(1, 2, 3).double().log_softmax(-1), torch.zeros(1, 7).double())
