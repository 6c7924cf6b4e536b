"""math.md (4) and (5) on every kind of world, against sums of probabilities written out and a general optimiser."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from likelier.theory.optimum import (
    expectation,
    frontier,
    kl,
    log_partition,
    mean,
    objective,
    optimal_policy,
    optimum_value,
    place,
    reward_at,
    total_variation,
)
from likelier.theory.statement import IDENTITY, largest_gap, scale
from likelier.theory.world import World
from tests.theory.worlds import betas, policies, worlds

ANY = worlds(full_support=False)


def by_sums(world: World, beta: float) -> tuple[list[list[float]], list[float]]:
    """π* and log Z by Python's exact sums of logarithms: a second implementation."""
    policy, partitions = [], []
    for log_reference, reward in zip(world.log_reference.tolist(), world.reward.tolist(), strict=True):
        terms = [p + r / beta for p, r in zip(log_reference, reward, strict=True)]
        top = max(terms)
        total = math.fsum(math.exp(term - top) for term in terms)
        partitions.append(top + math.log(total))
        policy.append([math.exp(term - top) / total for term in terms])
    return policy, partitions


@given(world=ANY, beta=betas)
def test_the_optimal_policy_and_its_partition_function(world: World, beta: float) -> None:
    policy, partitions = by_sums(world, beta)
    near = {"atol": IDENTITY * scale(world, beta), "rtol": 0.0}
    best = optimal_policy(world.log_reference, world.reward, beta)
    torch.testing.assert_close(best.exp(), torch.tensor(policy, dtype=torch.float64), **near)
    found = log_partition(world.log_reference, world.reward, beta)
    torch.testing.assert_close(found, torch.tensor(partitions, dtype=torch.float64), **near)
    assert largest_gap(best.exp().sum(dim=-1), torch.ones(len(best)).double()) < 1e-12


@given(data=st.data(), world=ANY, beta=betas)
def test_the_objective_is_the_optimum_less_a_kl(data: st.DataObject, world: World, beta: float) -> None:
    """(5): J(π) = −β E KL(π‖π*) + β E log Z, for any policy; so J(π*) is the optimum and no policy has more."""
    policy = data.draw(policies(world))
    best = optimal_policy(world.log_reference, world.reward, beta)
    value = optimum_value(world, beta)
    unit = beta * scale(world, beta)
    expected = value - beta * mean(world, kl(policy, best))
    assert abs(objective(world, policy, beta) - expected) < IDENTITY * unit
    assert abs(objective(world, best, beta) - value) < IDENTITY * unit
    assert objective(world, policy, beta) <= value + IDENTITY * unit


def test_a_general_optimiser_finds_the_same_policy() -> None:
    """It knows (4) alone."""
    world, beta = World.random(3, prompts=2, completions=4), 0.7

    def loss(logits: list[float]) -> float:
        return -float(
            objective(world, torch.tensor(logits, dtype=torch.float64).reshape(2, 4).log_softmax(-1), beta)
        )

    found = minimize(loss, [0.0] * 8, method="BFGS", tol=1e-12)
    policy = torch.tensor(found.x).reshape(2, 4).log_softmax(-1)
    best = optimal_policy(world.log_reference, world.reward, beta)
    assert total_variation(policy, best).max() < 1e-5
    assert -found.fun == pytest.approx(float(optimum_value(world, beta)), abs=1e-9)


@given(data=st.data(), world=ANY)
def test_kl_is_a_divergence(data: st.DataObject, world: World) -> None:
    first, second = data.draw(policies(world)), data.draw(policies(world))
    assert (kl(first, second) >= -1e-13).all()
    assert (kl(first, first) == 0.0).all()
    # Pinsker's inequality: ½ (2 TV)² ≤ KL.
    assert (2 * total_variation(first, second) ** 2 <= kl(first, second) + 1e-12).all()


def test_kl_by_hand() -> None:
    first, second = (
        torch.tensor([[0.5, 0.5, 0.0]]).double().log(),
        torch.tensor([[0.25, 0.25, 0.5]]).double().log(),
    )
    assert kl(first, second).item() == pytest.approx(math.log(2))
    assert kl(second, first).item() == math.inf


@settings(max_examples=30)
@given(data=st.data(), world=ANY)
def test_no_policy_lies_above_the_frontier(data: st.DataObject, world: World) -> None:
    stands = place(world, data.draw(policies(world)))
    span = float(world.reward.abs().max())
    assert stands.reward <= reward_at(world, stands.kl) + 1e-7 * max(1.0, span)


@given(world=ANY)
def test_the_frontier_rises_with_kl_and_its_slope_is_beta(world: World) -> None:
    """d reward / d KL = β along (5)'s optima: reward − β KL is stationary there."""
    betas = [2.0, 1.0, 0.5, 0.25]
    points = frontier(world, betas)
    for (before, after), beta in zip(pairwise(points), betas[1:], strict=True):
        gain, cost = after.reward - before.reward, after.kl - before.kl
        assert cost >= -1e-12
        # Concave: the chord's slope lies between those of its ends, β and 2β.
        assert beta * cost - 1e-10 <= gain <= 2 * beta * cost + 1e-10


def test_the_frontiers_ends() -> None:
    """As β grows nothing moves; as it falls the best completions share what the reference gave them."""
    world = World.of(torch.zeros(1, 3).double(), torch.tensor([[2.0, 2.0, 0.0]]).double())
    last, first = frontier(world, [1e-4, 1e6])
    assert first.kl == pytest.approx(0.0, abs=1e-10)
    assert first.reward == pytest.approx(4 / 3, abs=1e-5)
    assert last.kl == pytest.approx(math.log(3 / 2))
    assert last.reward == pytest.approx(2.0)
    assert reward_at(world, 100.0) == pytest.approx(2.0)
    assert reward_at(world, 0.0) == pytest.approx(4 / 3, abs=1e-6)


def test_a_prompt_of_weight_0_counts_nothing() -> None:
    world = World.of(
        torch.zeros(2, 2).double(), torch.zeros(2, 2).double(), torch.tensor([1.0, 0.0]).double()
    )
    assert mean(world, torch.tensor([3.0, math.inf]).double()) == 3.0


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan])
def test_beta_is_positive(beta: float) -> None:
    world = World.random(0)
    for function in (log_partition, optimal_policy):
        with pytest.raises(ValueError, match="β must be positive"):
            function(world.log_reference, world.reward, beta)
    with pytest.raises(ValueError, match="β must be positive"):
        objective(world, world.log_reference, beta)


def test_a_kl_budget_is_not_negative() -> None:
    with pytest.raises(ValueError, match="KL"):
        reward_at(World.random(0), -0.1)


def test_what_has_no_probability_counts_nothing() -> None:
    log_policy = torch.tensor([[0.0, -torch.inf]]).double()
    assert expectation(log_policy, torch.tensor([[2.0, torch.nan]]).double()).item() == 2.0
