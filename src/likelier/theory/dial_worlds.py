"""Sequence worlds that show what the per-token dial does: where it is exact, and where it costs reward."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from likelier.theory.sequences import Sequences, random_sequence_world, sequence_world
from likelier.theory.shapes import Cells, NextTokens
from likelier.theory.world import World

SMALL = Sequences(letters="ab", length=4)


@dataclass(frozen=True, kw_only=True)
class NamedWorld:
    """A sequence world and what it is called in pictures."""

    name: str
    sequences: Sequences
    world: World


def first_token_world(sequences: Sequences = SMALL, *, seed: int = 0) -> World:
    """A reward that the first token decides: what follows is the reference's, so mixing next tokens is exact.

    >>> world = first_token_world(Sequences(letters="ab", length=2))
    >>> rewards = dict(zip(world.completions[0], world.reward[0].tolist()))
    >>> rewards["a."] == rewards["aa"] == rewards["ab"] != rewards["ba"] == rewards["bb"]
    True
    """
    world = random_sequence_world(sequences, seed, prompts=1)
    first = {text[0]: index for index, text in reversed([*enumerate(sequences.completions)])}
    return world.with_reward(torch.stack([world.reward[:, first[y[0]]] for y in sequences.completions], -1))


def independent_world(sequences: Sequences = SMALL, *, seed: int = 0) -> World:
    """Tokens that do not depend on what precedes them, none of them the end; a sum of their rewards. Exact too.

    >>> world = independent_world(Sequences(letters="ab", length=2))
    >>> [completion for completion, p in zip(world.completions[0], world.log_reference[0].exp().tolist()) if p]
    ['aa', 'ab', 'ba', 'bb']
    """
    letters = len(sequences.letters)
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(2, sequences.length, letters, generator=generator, dtype=torch.float64)
    sizes = torch.tensor([len(prefix) for prefix in sequences.prefixes])
    logits = torch.full((1, len(sizes), letters + 1), -torch.inf, dtype=torch.float64)
    logits[0, :, :letters] = draw[0][sizes]
    rewards = [
        sum(
            float(draw[1][place, token]) for place, token in enumerate(sequences.tokens(y)) if token < letters
        )
        for y in sequences.completions
    ]
    return sequence_world(sequences, logits.log_softmax(dim=-1), _row(rewards))


def rare_world(sequences: Sequences = SMALL, *, rarity: float = 0.02, prize: float = 4.0) -> World:
    """After the last letter as first token answers are bad, but for one that is rare and very good.

    >>> world = rare_world(Sequences(letters="ab", length=2))
    >>> dict(zip(world.completions[0], world.reward[0].tolist()))
    {'.': 0.0, 'a.': 0.0, 'b.': -1.0, 'aa': 0.0, 'ab': 0.0, 'ba': -1.0, 'bb': 4.0}
    """
    last = sequences.letters[-1]
    best = last * sequences.length
    rewards = [prize if y == best else -1.0 if y[0] == last else 0.0 for y in sequences.completions]
    log_next = _uniform(sequences)
    before = sequences.prefixes.index(best[:-1])
    log_next[0, before] = math.log((1.0 - rarity) / len(sequences.letters))
    log_next[0, before, len(sequences.letters) - 1] = math.log(rarity)
    return sequence_world(sequences, log_next, _row(rewards))


def length_world(sequences: Sequences = SMALL) -> World:
    """The reward is the number of letters; the reference is uniform over next tokens.

    >>> length_world(Sequences(letters="a", length=2)).reward.tolist()
    [[0.0, 1.0, 2.0]]
    """
    rewards = [float(len(y.removesuffix("."))) for y in sequences.completions]
    return sequence_world(sequences, _uniform(sequences), _row(rewards))


def random_world(sequences: Sequences = SMALL, *, seed: int = 0) -> World:
    """Normal rewards for whole answers, one prompt."""
    return random_sequence_world(sequences, seed, prompts=1, scale=1.5)


def dial_worlds() -> list[NamedWorld]:
    """The worlds of the picture, the exact one first."""
    one = Sequences(letters="abc", length=1)
    return [
        NamedWorld(name="one token", sequences=one, world=random_world(one)),
        NamedWorld(name="first token decides", sequences=SMALL, world=first_token_world()),
        NamedWorld(name="length", sequences=SMALL, world=length_world()),
        NamedWorld(name="random rewards", sequences=SMALL, world=random_world()),
        NamedWorld(name="rare prize", sequences=SMALL, world=rare_world()),
    ]


def _uniform(sequences: Sequences) -> NextTokens:
    shape = (1, len(sequences.prefixes), len(sequences.vocabulary))
    return torch.zeros(shape, dtype=torch.float64).log_softmax(dim=-1)


def _row(rewards: list[float]) -> Cells:
    return torch.tensor([rewards], dtype=torch.float64)
