"""Best-of-N against all K^N draws, its KL against the bound, and its place under the frontier."""

from __future__ import annotations

from itertools import product
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likelier.theory.best_of_n import best_of_n, best_of_n_kl, kl_bound
from likelier.theory.optimum import place, reward_at
from likelier.theory.statement import largest_gap
from likelier.theory.world import World
from tests.theory.worlds import worlds


def by_drawing(log_reference: torch.Tensor, reward: torch.Tensor, n: int) -> torch.Tensor:
    """Every sequence of N draws, weighted; the first of the best is kept."""
    found = torch.zeros_like(reward)
    for row in range(len(reward)):
        probability, rewards = log_reference[row].exp().tolist(), reward[row].tolist()
        for draws in product(range(len(rewards)), repeat=n):
            kept = max(draws, key=lambda index: rewards[index])  # `max` keeps the first
            found[row, kept] += prod(probability[index] for index in draws)
    return found


@given(world=worlds(full_support=False), n=st.integers(1, 4))
def test_every_draw_counted(world: World, n: int) -> None:
    found = best_of_n(world.log_reference, world.reward, n)
    assert largest_gap(found.exp(), by_drawing(world.log_reference, world.reward, n)) < 1e-12
    assert torch.equal(found == -torch.inf, ~world.support)


@given(world=worlds(full_support=False), n=st.one_of(st.integers(1, 20), st.sampled_from([1000, 10**6])))
def test_its_kl_stays_within_the_bound(world: World, n: int) -> None:
    found = best_of_n_kl(world.log_reference, world.reward, n)
    rounding = 1e-12 + n * 1e-15  # a power N of a chance multiplies the rounding of its logarithm by N
    assert (found <= kl_bound(n) + rounding).all()
    assert (found >= -rounding).all()


def test_the_bound_is_reached_where_no_completion_weighs_much() -> None:
    reward = torch.arange(4000).double()[None]
    reference = torch.zeros(1, 4000).double().log_softmax(-1)
    for n in (2, 4, 16):
        assert best_of_n_kl(reference, reward, n).item() == pytest.approx(kl_bound(n), abs=1e-3)


@given(world=worlds(full_support=False))
def test_one_draw_is_the_reference(world: World) -> None:
    assert largest_gap(best_of_n(world.log_reference, world.reward, 1), world.log_reference) < 1e-12


def test_a_tie_keeps_the_references_proportions() -> None:
    reference = torch.tensor([[0.1, 0.3, 0.6]]).double().log()
    found = best_of_n(reference, torch.tensor([[1.0, 1.0, 0.0]]).double(), 2).exp()[0]
    assert found.tolist() == pytest.approx([0.64 / 4, 0.64 * 3 / 4, 0.36])


def test_what_is_rare_is_not_lost_in_rounding() -> None:
    """P(≤)^N − P(<)^N is N times the probability of a rare best completion."""
    reference = torch.tensor([[-600.0, 0.0]]).double()
    found = best_of_n(reference, torch.tensor([[1.0, 0.0]]).double(), 8)
    assert found[0, 0].item() == pytest.approx(-600.0 + torch.tensor(8.0).log().item())


@settings(max_examples=30)
@given(world=worlds(full_support=False), n=st.integers(1, 50))
def test_it_lies_under_the_frontier(world: World, n: int) -> None:
    stands = place(world, best_of_n(world.log_reference, world.reward, n))
    assert stands.reward <= reward_at(world, stands.kl) + 1e-6


def test_n_is_at_least_1() -> None:
    with pytest.raises(ValueError, match="N ≥ 1"):
        best_of_n(torch.zeros(1, 1).double(), torch.zeros(1, 1).double(), 0)
