"""A sequence world as a model folder: what the real stages make of it against what is known exactly."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid

import likelier
from likelier.engines.rewards import resolve_reward, reward_of
from likelier.scoring.equality import choose_way
from likelier.theory.export import ModelWorld, model_world
from likelier.theory.letter_models import letter_tokenizer, prompt_texts, random_model
from likelier.theory.optimum import mean, objective, optimal_policy, optimum_value, total_variation
from likelier.theory.sequences import Sequences
from likelier.theory.world import WorldError

BETA = 0.5


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelWorld, Path]:
    world = model_world(0)
    folder = tmp_path_factory.mktemp("world")
    world.write(folder)
    return world, folder


def train(folder: Path, *, steps: int, loss: Any = "sigmoid", beta: float = BETA) -> Any:
    """The very trainer on the population: one step reads every pair."""
    run = likelier.dpo(
        *(folder / "model", folder / "preferences.jsonl"),
        loss=loss,
        beta=beta,
        precision="float64",
        batch_size=1000,
        epochs=steps,
        learning_rate=2e-2,
        schedule="cosine",
        warmup_steps=20,
    )
    return run.model


def apart(world: ModelWorld, policy: torch.Tensor, beta: float = BETA) -> float:
    """Total variation to π*, the mean over prompts."""
    best = optimal_policy(world.world.log_reference, world.world.reward, beta)
    return float(mean(world.world, total_variation(policy, best)))


def share_of_gain(world: ModelWorld, policy: torch.Tensor) -> float:
    """(J(π) − J(π_ref)) / (J(π*) − J(π_ref))."""
    start = objective(world.world, world.world.log_reference, BETA)
    return float((objective(world.world, policy, BETA) - start) / (optimum_value(world.world, BETA) - start))


def test_dpo_reaches_the_known_optimum(exported: tuple[ModelWorld, Path]) -> None:
    """math.md (5), (7): 15 answers to two prompts, all 420 labelled pairs with their probabilities.

    It ends 2e-5 from π*. The bound, 1e-3, is what a β of 0.6 % too much would make.
    """
    world, folder = exported
    start = world.world.log_reference
    nearly = optimal_policy(start, world.world.reward, 1.006 * BETA)
    assert apart(world, nearly) > 1e-3
    assert apart(world, start) > 0.3
    policy = world.policy_of(train(folder, steps=300))
    assert apart(world, policy) < 1e-3
    assert share_of_gain(world, policy) > 0.9999


def reversed_labels(
    policy: torch.Tensor, reference: torch.Tensor, lengths: torch.Tensor, beta: float
) -> torch.Tensor:
    ratio = policy - reference
    return -logsigmoid(beta * (ratio[:, 1] - ratio[:, 0]))


@pytest.fixture(scope="module")
def smaller(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelWorld, Path]:
    world = model_world(1, length=2)
    folder = tmp_path_factory.mktemp("smaller")
    world.write(folder)
    return world, folder


@pytest.mark.parametrize(
    ("loss", "beta", "reached"),
    [
        ("sigmoid", BETA, True),
        (reversed_labels, BETA, False),
        ("sigmoid", 1.1 * BETA, False),
        ("ipo_sum", BETA, False),
    ],
)
def test_another_loss_does_not(
    smaller: tuple[ModelWorld, Path], loss: Any, beta: float, reached: bool
) -> None:
    """Labels the wrong way round, a β ten percent too large, another loss's optimum: each is seen."""
    world, folder = smaller
    policy = world.policy_of(train(folder, steps=150, loss=loss, beta=beta))
    distance = apart(world, policy)
    assert distance < 1e-3 if reached else distance > 5e-3


def test_the_first_loss_is_the_populations(exported: tuple[ModelWorld, Path], tmp_path: Path) -> None:
    """Policy and reference differ, so that the loss is no constant; by hand from both tables."""
    world, folder = exported
    other = random_model(world.sequences, 7)
    log_ratio = world.world.log_reference - world.policy_of(other)
    total, weights = 0.0, 0.0
    for row in world.preferences():
        prompt = world.world.prompts.index(row["prompt"])
        chosen, rejected = (world.sequences.completions.index(row[side]) for side in ("chosen", "rejected"))
        margin = BETA * float(log_ratio[prompt, chosen] - log_ratio[prompt, rejected])
        total += row["weight"] * math.log1p(math.exp(-margin))
        weights += row["weight"]
    other.save_pretrained(tmp_path / "other")
    world.tokenizer.save_pretrained(tmp_path / "other")
    run = likelier.dpo(
        *(folder / "model", folder / "preferences.jsonl"),
        reference=tmp_path / "other",
        beta=BETA,
        precision="float64",
        batch_size=1000,
    )
    assert math.isclose(run.metrics[0]["loss"], total / weights, rel_tol=1e-10)


def test_weights_are_the_probabilities_of_labelled_pairs(exported: tuple[ModelWorld, Path]) -> None:
    """Both ways round they add up to the pair's probability, and all of them to that of drawing two that differ."""
    world, _ = exported
    rows = {(row["prompt"], row["chosen"], row["rejected"]): row["weight"] for row in world.preferences()}
    assert len(rows) == 2 * 15 * 14
    probability = world.world.log_reference.exp().tolist()
    names = world.sequences.completions
    same = sum(0.5 * p * p for row in probability for p in row)
    assert math.isclose(sum(rows.values()), 1.0 - same, rel_tol=1e-12)
    one, two = rows["b", names[3], names[9]], rows["b", names[9], names[3]]
    gap = float(world.world.reward[1, 3] - world.world.reward[1, 9])
    assert math.isclose(one + two, 0.5 * 2 * probability[1][3] * probability[1][9], rel_tol=1e-12)
    assert math.isclose(one / two, math.exp(gap), rel_tol=1e-12)


def test_scores_are_the_worlds_table(exported: tuple[ModelWorld, Path]) -> None:
    """`likelier score` reads trees of packed tokens; the table is made by plain forward passes."""
    world, folder = exported
    lines = likelier.score(folder / "model", folder / "preferences.jsonl", precision="float64")
    rows = world.preferences()
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        prompt = world.world.prompts.index(row["prompt"])
        for side, found in zip(("chosen", "rejected"), line["logps"], strict=True):
            wanted = float(world.world.log_reference[prompt, world.sequences.completions.index(row[side])])
            assert abs(found - wanted) < 1e-12
        lengths = [len(row[side]) for side in ("chosen", "rejected")]
        assert line["lengths"] == lengths


def test_cut_answers_get_no_end(exported: tuple[ModelWorld, Path]) -> None:
    """Promise 8: with an end of turn after a cut answer the lengths would be 4 and the sum no probability."""
    world, _ = exported
    row = next(
        row for row in world.preferences() if row["finish"] == {"chosen": "length", "rejected": "stop"}
    )
    uncut = {name: value for name, value in row.items() if name != "finish"}
    lengths = [
        likelier.score(world.model, [rows], tokenizer=world.tokenizer, precision="float64")[0]["lengths"]
        for rows in (row, uncut)
    ]
    assert lengths[0][0] == 3
    assert lengths[1][0] == 4


def test_samples_are_answers_of_the_world(exported: tuple[ModelWorld, Path]) -> None:
    """What PPO and `evaluate` will draw: texts that the reward knows, log-probs of the table."""
    world, folder = exported
    drawn = likelier.sample(
        *(folder / "model", folder / "prompts.jsonl"),
        n=40,
        max_new_tokens=world.sequences.length,
        precision="float32",
    )
    finishes = set()
    for line in drawn:
        prompt = world.world.prompts.index(line["prompt"])
        for answer in line["completions"]:
            name = world.sequences.completion_of(answer["text"])
            assert answer["tokens"] == world.sequences.tokens(name)
            assert world.sequences.is_cut(name) == (answer["finish"] == "length")
            column = world.sequences.completions.index(name)
            assert abs(answer["logp"] - float(world.world.log_reference[prompt, column])) < 1e-4
            assert math.isfinite(world.reward(line["prompt"], answer["text"]))
            finishes.add(answer["finish"])
    assert finishes == {"stop", "length"}


@pytest.fixture
def in_folder(exported: tuple[ModelWorld, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(exported[1])
    yield
    sys.modules.pop("world_reward", None)


@pytest.mark.usefixtures("in_folder")
def test_the_reward_is_the_table_by_name_and_by_call(exported: tuple[ModelWorld, Path]) -> None:
    world, _ = exported
    by_name, by_call = resolve_reward("world_reward:reward"), reward_of("own", world.reward)
    for prompt, row in zip(world.world.prompts, world.world.reward.tolist(), strict=True):
        written = [y.removesuffix(".") for y in world.sequences.completions]
        for texts in (list(world.sequences.completions), written):
            assert by_name([prompt] * len(row), texts) == row
            assert by_call([prompt] * len(row), texts) == row


def test_what_the_world_does_not_know_has_no_reward(exported: tuple[ModelWorld, Path]) -> None:
    for prompt, text in (("c", "a"), ("a", "abba"), ("a", "x")):
        with pytest.raises(WorldError, match="the world has no answer"):
            exported[0].reward(prompt, text)


def test_trees_reach_the_model(exported: tuple[ModelWorld, Path]) -> None:
    """The world is there to try trees and packing on; as ordinary rows it would show nothing of them."""
    assert choose_way(exported[0].model).way == "tree"


def test_the_folder_is_the_world(exported: tuple[ModelWorld, Path]) -> None:
    world, folder = exported
    assert torch.equal(world.policy_of(folder / "model"), world.world.log_reference)
    again = model_world(0)
    assert torch.equal(again.world.log_reference, world.world.log_reference)
    assert torch.equal(again.world.reward, world.world.reward)
    assert not torch.equal(model_world(1).world.log_reference, world.world.log_reference)


def test_making_a_world_draws_no_random_numbers_of_the_process() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    model_world(0, length=1)
    assert torch.equal(torch.rand(1), wanted)


def test_the_smallest_world_is_a_model_too(tmp_path: Path) -> None:
    """One letter, one token: two answers, one of them cut, one pair both ways round."""
    world = model_world(2, letters="a", length=1, prompts=1)
    world.write(tmp_path)
    assert [row["chosen"] for row in world.preferences()] == [".", "a"]
    lines = likelier.score(tmp_path / "model", tmp_path / "preferences.jsonl", precision="float64")
    assert [line["logps"][0] for line in lines] == pytest.approx(
        world.world.log_reference[0].tolist(), abs=1e-12
    )


def test_prompts_of_one_length() -> None:
    assert prompt_texts("abc", 4) == ("aa", "ab", "ac", "ba")
    for letters, count in (("a", 2), ("ab", 0)):
        with pytest.raises(WorldError, match="prompts of one length"):
            prompt_texts(letters, count)


def test_a_model_over_other_tokens_is_refused(exported: tuple[ModelWorld, Path]) -> None:
    other = random_model(Sequences(letters="abc", length=3), 0)
    with pytest.raises(WorldError, match="a model over 4 tokens for a world of 3"):
        exported[0].policy_of(other)


def test_a_given_reward_is_taken() -> None:
    sequences = Sequences(letters="ab", length=2)
    reward: Callable[[str], float] = len
    table = torch.tensor([[reward(y.removesuffix(".")) for y in sequences.completions]]).double()
    world = model_world(0, length=2, prompts=1, reward=table)
    assert world.reward("a", "ba") == 2.0
    assert letter_tokenizer(sequences).decode(sequences.tokens("ba.")) == "ba."
