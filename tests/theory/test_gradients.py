"""math.md (9) against autograd, finite differences and hand arithmetic, and when the chosen completion falls."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from likelier.theory.comparisons import Comparisons, population
from likelier.theory.displacement import rise_of_chosen
from likelier.theory.gradients import (
    dpo_loss,
    log_probability_gradients,
    policy_gradient,
    table_gradient,
)
from likelier.theory.optimum import optimal_policy
from likelier.theory.policies import Family, log_linear, softmax_table
from likelier.theory.statement import IDENTITY, largest_gap, scale
from likelier.theory.world import World
from tests.theory.worlds import policies, tables, worlds


def one_pair(completions: int, *, winner: int = 0, loser: int = 1) -> Comparisons:
    wins = torch.zeros(1, completions, completions).double()
    wins[0, winner, loser] = 1.0
    return Comparisons.of(wins)


def everything(world: World, wins: torch.Tensor) -> Comparisons:
    """All comparisons of the support, some more often than others."""
    both = world.support.unsqueeze(-1) & world.support.unsqueeze(-2)
    both = both & ~torch.eye(both.shape[-1], dtype=torch.bool)
    return Comparisons.of(wins.masked_fill(~both, 0.0))


def test_two_by_hand() -> None:
    """At the reference u = 0, so the weight is ½: the chosen logit gets −β/2, the rejected β/2."""
    reference = torch.zeros(1, 2).double().log_softmax(-1)
    assert table_gradient(reference, reference, one_pair(2), 0.3).tolist() == [[-0.15, 0.15]]
    assert dpo_loss(reference, reference, one_pair(2), 0.3).item() == pytest.approx(math.log(2))
    moved = torch.tensor([[0.8, 0.2]]).double().log()  # u = β log 4
    weight = 0.3 / (1 + 4**0.3)
    assert table_gradient(moved, reference, one_pair(2), 0.3)[0].tolist() == pytest.approx([-weight, weight])


@given(data=st.data(), world=worlds(least=2), beta=st.floats(0.01, 10.0))
def test_a_tables_gradient_is_autograds(data: st.DataObject, world: World, beta: float) -> None:
    policy, size = data.draw(policies(world)), world.reward.shape[1]
    row = tables(size, size, st.sampled_from([0.5, 1.0, 3.0]))
    drawn = torch.stack([data.draw(row) for _ in world.prompts])
    for comparisons in (population(world), everything(world, drawn)):
        logits = policy.clone().requires_grad_()
        loss = dpo_loss(logits.log_softmax(-1), world.log_reference, comparisons, beta)
        (expected,) = torch.autograd.grad(loss, logits)
        found = table_gradient(policy, world.log_reference, comparisons, beta)
        assert largest_gap(found, expected) < IDENTITY


@given(world=worlds(least=2), theta=st.floats(-2.0, 2.0), features=tables(3, 5, st.floats(-2.0, 2.0)))
def test_any_policys_gradient_is_autograds_and_that_of_finite_differences(
    world: World, theta: float, features: torch.Tensor
) -> None:
    rows, columns = world.reward.shape
    family = log_linear(world.log_reference, features[:rows, :columns, None])
    comparisons, beta = population(world), 0.5

    def loss(parameters: torch.Tensor) -> torch.Tensor:
        return dpo_loss(family.log_policy(parameters), world.log_reference, comparisons, beta)

    at = torch.tensor([theta], dtype=torch.float64)
    found = policy_gradient(family.log_policy, at, world.log_reference, comparisons, beta)
    start = at.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(start), start)
    assert largest_gap(found, expected) < IDENTITY
    step = 1e-5
    difference = (loss(at + step) - loss(at - step)) / (2 * step)
    assert abs(float(found) - float(difference)) < 1e-7


@given(world=worlds(least=2), beta=st.floats(-4.0, 2.0).map(lambda power: 10.0**power))
def test_the_gradient_vanishes_at_the_optimal_policy(world: World, beta: float) -> None:
    """At π* the margin is the difference of rewards, so what a pair weighs in each direction is the same.

    Up to β = 100: u is β times a difference of logarithms, and so is its rounding.
    """
    best = optimal_policy(world.log_reference, world.reward, beta)
    found = table_gradient(best, world.log_reference, population(world), beta)
    assert found.abs().max() < IDENTITY * beta * scale(world, beta)


@given(logits=tables(1, 4, st.floats(-5.0, 5.0)))
def test_in_a_table_the_chosen_always_gains(logits: torch.Tensor) -> None:
    table = softmax_table(torch.zeros(1, 4).double().log_softmax(-1))
    found = rise_of_chosen(table, logits.flatten(), 1, 2)
    probability = logits.softmax(-1)[0]
    assert found == pytest.approx(float(1 - probability[1] + probability[2]))
    assert found > 0


def shared() -> Family:
    """φ = (1, 2, 0, 0) and one parameter."""
    features = torch.tensor([[[1.0], [2.0], [0.0], [0.0]]]).double()
    return log_linear(torch.zeros(1, 4).double().log_softmax(-1), features)


def test_displacement_by_hand_and_in_a_step() -> None:
    """A step on (y_1 ≻ y_2) lowers the loss, and the chosen probability with it; those never compared gain."""
    policy, start = shared().log_policy, shared().start
    # Mean feature ¾: g_w = ¼, g_l = 5/4, so |g_w|² − g_w g_l = 1/16 − 5/16.
    assert log_probability_gradients(policy, start)[0, :2, 0].tolist() == [0.25, 1.25]
    rise = rise_of_chosen(shared(), start, 0, 1)
    assert rise == -0.25
    pair = one_pair(4)
    rate = 1e-3
    after = start - rate * policy_gradient(policy, start, policy(start), pair, 0.1)
    assert dpo_loss(policy(after), policy(start), pair, 0.1) < math.log(2)
    change = (policy(after) - policy(start))[0]
    assert change[0] < 0
    assert change[2] > 0
    # β σ(−u) = 0.05 times the rate times the displacement, to first order.
    assert change[:2].tolist() == pytest.approx([0.05 * rate * rise, 0.05 * rate * (rise - 1.0)], rel=1e-3)


def test_what_nobody_compared_is_left_out() -> None:
    """A completion outside the support reaches neither loss nor gradient."""
    reference = torch.tensor([[0.5, 0.5, 0.0]]).double().log()
    assert dpo_loss(reference, reference, one_pair(3), 0.3).item() == pytest.approx(math.log(2))
    assert table_gradient(reference, reference, one_pair(3), 0.3).tolist() == [[-0.15, 0.15, 0.0]]
