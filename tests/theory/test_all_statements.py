"""Every statement holds in every kind of world, and each can fail: a formula is spoilt, and its statement says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings

from likelier.theory import best_of_n, choice, classes, gradients, optimality
from likelier.theory.all_statements import CLOSED_FORMS, statements, trials, worst
from likelier.theory.statement import Statement, scale
from likelier.theory.world import World
from tests.theory.worlds import betas, worlds

ALONE = World.of(torch.zeros(1, 1).double(), torch.zeros(1, 1).double())
EQUAL = World.of(torch.zeros(2, 4).double(), torch.full((2, 4), 3.0).double())


def failing(found: list[Statement]) -> list[str]:
    return [f"{one.name}: {one.error}" for one in found if not one.holds]


@settings(max_examples=3)
@given(world=worlds(full_support=False), beta=betas)
@example(world=ALONE, beta=1e-4)
@example(world=EQUAL, beta=1e6)
@example(world=World.random(5, scale=50.0), beta=1e-4)
@example(world=World.random(5, scale=50.0), beta=1e6)
def test_sums_hold_everywhere(world: World, beta: float) -> None:
    assert failing([one for part in CLOSED_FORMS for one in part(world, beta)]) == []


@pytest.mark.parametrize(
    ("world", "beta"),
    [*trials(), (ALONE, 1e-4), (EQUAL, 1e6), (World.random(5, prompts=1, completions=4, scale=50.0), 1e-4)],
    ids=("random", "wide", "corners", "alone", "equal", "far apart"),
)
def test_all_hold(world: World, beta: float) -> None:
    found = statements(world, beta=beta)
    assert failing(found) == []
    assert len({(one.name, one.equation) for one in found}) == len(found)


SPOILT: list[tuple[Any, str, Callable[..., Any], str]] = [
    (optimality, "optimal_policy", lambda ref, r, beta: (ref + r * beta).log_softmax(-1), "π* = π_ref"),
    (optimality, "optimum_value", lambda world, beta: torch.tensor(0.0).double(), "J(π*) = β E[log Z]"),
    (optimality, "kl", lambda policy, other: 0.0 * policy[:, 0], "J(π) = β E[log Z]"),
    (optimality, "reward_at", lambda world, kl: -1.0, "no policy has more reward"),
    (choice, "bradley_terry", lambda a, b: torch.special.ndtr(a - b), "Plackett–Luce for K = 2"),
    (
        choice,
        "fit_bradley_terry",
        lambda wins, **names: torch.zeros(len(wins)).double(),
        "the likeliest rewards",
    ),
    (choice, "fit_plackett_luce", lambda found, **more: torch.zeros(2).double(), "labels that are always"),
    (classes, "project", lambda world, beta: world.reward, "Z(x) = 1"),
    (classes, "project", lambda world, beta: world.reward, "the projection is refused"),
    (classes, "log_partition", lambda ref, r, beta: (ref + r).logsumexp(-1), "r = β log(π*/π_ref)"),
    (
        classes,
        "implicit_reward",
        lambda world, policy, beta: policy,
        "the optimal policy gives r's class back",
    ),
    (classes, "equivalent", lambda one, other: True, "the converse fails at another β"),
    (
        gradients,
        "margins",
        lambda policy, ref, pairs, beta: policy[pairs.prompt, pairs.winner],
        "at π* the margin",
    ),
    (gradients, "pair_weights", lambda policy, ref, pairs, beta: pairs.weight, "the gradient in closed form"),
    (
        gradients,
        "pair_weights",
        lambda policy, ref, pairs, beta: pairs.weight,
        "the gradient is the slope of the loss",
    ),
    (
        gradients,
        "pair_weights",
        lambda policy, ref, pairs, beta: pairs.weight,
        "the gradient over all comparisons",
    ),
    (best_of_n, "best_of_n", lambda ref, r, n: ref, "best-of-N: P(r ≤ r_y)^N"),
    (best_of_n, "kl_bound", lambda n: 0.0, "KL(best-of-N‖π_ref)"),
    (best_of_n, "reward_at", lambda world, kl: -9.0, "best-of-N lies on or under"),
]


@pytest.mark.parametrize(
    ("module", "name", "wrong", "statement"),
    SPOILT,
    ids=lambda value: getattr(value, "__name__", str(value))[:40],
)
def test_a_spoilt_formula_is_noticed(
    module: Any, name: str, wrong: Callable[..., Any], statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, wrong)
    found = failing(module.statements(World.random(0), 0.5))
    assert any(line.startswith(statement) for line in found), found


def test_what_an_error_is_relative_to() -> None:
    world = World.of(torch.zeros(1, 2).double(), torch.tensor([[-3.0, 2.0]]).double())
    assert scale(world, 0.5) == 6.0
    assert scale(world, 100.0) == 1.0


def test_completions_without_probability_are_left_out_and_it_is_said() -> None:
    world = World.of(
        torch.tensor([[0.0, 0.0, -torch.inf]]).double(), torch.tensor([[1.0, 0.0, 5.0]]).double()
    )
    found = [one for one in statements(world) if one.equation == "Lemma 2"]
    assert found[0].note == "without 1 completion of reference probability 0"


def test_the_worst_of_several_worlds() -> None:
    one = Statement(name="a", equation="(1)", error=1e-3, bound=1e-2, note="first")
    other = Statement(name="a", equation="(1)", error=5e-3, bound=1e-2, note="second")
    apart = Statement(name="b", equation="(1)", error=0.0, bound=0.0)
    found = worst([[one], [other, apart], [one]])
    assert [(found[0].error, found[0].note), (found[1].name, found[1].error)] == [(5e-3, "first"), ("b", 0.0)]
