"""Lemmas 1 and 2, the converse and where it fails, Theorem 1 and (12), on every kind of world."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from likelier.theory.choice import ranking_log_probabilities
from likelier.theory.classes import (
    SupportError,
    class_distance,
    equivalent,
    implicit_reward,
    project,
    require_support,
)
from likelier.theory.optimum import log_partition, optimal_policy, total_variation
from likelier.theory.statement import IDENTITY, largest_gap, scale
from likelier.theory.world import World
from tests.theory.worlds import betas, policies, tables, worlds


def shifted(world: World, shift: torch.Tensor) -> torch.Tensor:
    """Another member of the class: `r + f(x)`."""
    return world.reward + shift.reshape(-1, 1)[: len(world.prompts)]


SHIFTS = tables(3, 1, st.floats(-5.0, 5.0))


@given(world=worlds(), shift=SHIFTS)
def test_a_shift_of_each_prompt_stays_in_the_class(world: World, shift: torch.Tensor) -> None:
    assert equivalent(world.reward, shifted(world, shift))
    assert equivalent(shifted(world, shift), world.reward)


@given(world=worlds(least=2), shift=SHIFTS, size=st.sampled_from([1e-6, 0.1, 3.0]))
def test_any_other_change_leaves_it(world: World, shift: torch.Tensor, size: float) -> None:
    other = shifted(world, shift)
    other[-1, 0] += size
    assert not equivalent(world.reward, other)
    assert class_distance(world.reward, other)[-1].item() == pytest.approx(size, abs=1e-12)


def test_what_does_not_exist_is_not_compared() -> None:
    one, other = torch.tensor([[1.0, 2.0, 0.0]]).double(), torch.tensor([[3.0, 4.0, 99.0]]).double()
    assert not equivalent(one, other)
    assert equivalent(one, other, exists=torch.tensor([[True, True, False]]))


def test_rewards_that_are_no_numbers_are_in_no_class() -> None:
    one = torch.tensor([[1.0, torch.nan]]).double()
    assert not equivalent(one, one)


@given(world=worlds(), shift=SHIFTS)
def test_lemma_1(world: World, shift: torch.Tensor) -> None:
    found = ranking_log_probabilities(shifted(world, shift))
    assert largest_gap(found.exp(), ranking_log_probabilities(world.reward).exp()) < IDENTITY


@given(world=worlds(full_support=False), shift=SHIFTS, beta=betas)
def test_lemma_2(world: World, shift: torch.Tensor, beta: float) -> None:
    same = optimal_policy(world.log_reference, world.reward, beta)
    found = optimal_policy(world.log_reference, shifted(world, shift), beta)
    assert total_variation(found, same).max() < IDENTITY * (scale(world, beta) + 5.0 / beta)


@given(world=worlds(), beta=betas)
def test_the_converse_of_lemma_2(world: World, beta: float) -> None:
    """The optimal policy gives the class back, by (6)."""
    best = optimal_policy(world.log_reference, world.reward, beta)
    if bool((best > -torch.inf).all()):
        found = implicit_reward(world, best, beta)
        assert class_distance(found, world.reward).max() < IDENTITY * beta * scale(world, beta)


def test_the_converse_fails_where_the_reference_gives_nothing() -> None:
    world = World.of(
        torch.tensor([[0.0, 0.0, -torch.inf]]).double(), torch.tensor([[1.0, 0.0, 0.0]]).double()
    )
    other = world.with_reward(torch.tensor([[1.0, 0.0, 7.0]]).double())
    policies = [optimal_policy(one.log_reference, one.reward, 0.5) for one in (world, other)]
    assert total_variation(*policies).item() == 0.0
    assert not equivalent(world.reward, other.reward)


def test_the_converse_fails_at_another_beta() -> None:
    world = World.random(0)
    first = optimal_policy(world.log_reference, world.reward, 0.5)
    second = optimal_policy(world.log_reference, 2 * world.reward, 1.0)
    assert total_variation(first, second).max() < 1e-15
    assert not equivalent(world.reward, 2 * world.reward)


@given(world=worlds(), shift=SHIFTS, beta=betas)
def test_theorem_1(world: World, shift: torch.Tensor, beta: float) -> None:
    """f(r) is in r's class, its Z is 1 (12), it is β log(π/π_ref) of a policy, and all of the class have the same."""
    found = project(world, beta)
    near = IDENTITY * (scale(world, beta) + 5.0 / beta)
    assert class_distance(found, world.reward).max() < near * beta
    assert log_partition(world.log_reference, found, beta).abs().max() < near
    policy = world.log_reference + found / beta
    assert largest_gap(policy.exp().sum(-1), torch.ones(len(policy)).double()) < near
    other = project(world.with_reward(shifted(world, shift)), beta)
    assert largest_gap(other / beta, found / beta) < near


@given(data=st.data(), world=worlds(), beta=betas)
def test_a_policys_own_reward_is_its_classs_member(data: st.DataObject, world: World, beta: float) -> None:
    """Uniqueness from the other side: β log(π/π_ref) of any policy projects to itself and has π for its optimum."""
    policy = data.draw(policies(world))
    reward = implicit_reward(world, policy, beta)
    assert largest_gap(project(world.with_reward(reward), beta) / beta, reward / beta) < 1e-9
    assert largest_gap(optimal_policy(world.log_reference, reward, beta), policy) < 1e-9


def ragged() -> World:
    return World(
        log_reference=torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.5, 0.0]]).double().log(),
        reward=torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 0.0]]).double(),
        prompt_weights=torch.tensor([0.5, 0.5]).double(),
        prompts=("tea?", "rain?"),
        completions=(("yes", "no", "later"), ("yes", "no")),
    )


def test_rows_of_different_length_have_their_member_too() -> None:
    world = ragged()
    found = project(world, 0.5)
    assert found[1, 2] == 0.0
    assert log_partition(world.log_reference, found, 0.5).abs().max() < 1e-14
    assert equivalent(found, world.reward, exists=world.exists)
    best = optimal_policy(world.log_reference, world.reward, 0.5)
    assert largest_gap(implicit_reward(world, best, 0.5), found) < 1e-14


def test_a_completion_without_probability_is_named() -> None:
    world = World(
        log_reference=torch.tensor([[0.5, 0.5], [0.0, 1.0]]).double().log(),
        reward=torch.zeros(2, 2).double(),
        prompt_weights=torch.tensor([0.5, 0.5]).double(),
        prompts=("tea?", "rain?"),
        completions=(("yes", "no"), ("yes", "no")),
    )
    for call in (lambda: project(world, 0.5), lambda: require_support(world)):
        with pytest.raises(SupportError, match=r"prompt `rain\?`: the reference has probability 0 for `yes`"):
            call()
    require_support(world.on_support())


def test_a_policy_that_forbids_or_invents_completions_is_named() -> None:
    world = ragged()
    forbids = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]).double().log()
    with pytest.raises(SupportError, match=r"prompt `tea\?`: the policy has probability 0 for `no`"):
        implicit_reward(world, forbids, 0.5)
    invents = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]).double().log()
    with pytest.raises(
        SupportError, match=r"prompt `rain\?`: the policy has a probability for completion 3.*has 2"
    ):
        implicit_reward(world, invents, 0.5)
