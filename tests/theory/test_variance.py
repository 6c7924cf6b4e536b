"""Noise of gradient estimates against brute force: every group of answers drawn, every score by differentiation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likelier.theory.dial import dial
from likelier.theory.optimum import expectation, kl, log_partition, optimal_policy
from likelier.theory.variance import (
    Moments,
    another_sample,
    answers_needed,
    best_constant,
    dpo_pair,
    gradient,
    leave_one_out,
    no_baseline,
    noise,
    own_value,
    payoff,
    soft_value,
    with_baseline,
)
from likelier.theory.variance_path import (
    DPO,
    POLICY_GRADIENT,
    exact_gradient,
    statements,
    variance_curves,
)
from likelier.theory.world import World
from tests.theory.worlds import betas, worlds

BETA = 0.7


def scores(log_policy: torch.Tensor, prompt: int) -> list[torch.Tensor]:
    """∇_θ log π(y|x) over the whole table, by differentiation, for each y."""
    found = []
    for y in range(log_policy.shape[1]):
        table = log_policy.clone().requires_grad_()
        table.log_softmax(-1)[prompt, y].backward()  # type: ignore[no-untyped-call]
        assert table.grad is not None
        found.append(table.grad)
    return found


def brute_force(
    world: World,
    log_policy: torch.Tensor,
    answers: int,
    estimate: Callable[[list[float], list[torch.Tensor]], torch.Tensor],
) -> tuple[torch.Tensor, float]:
    """Mean and trace of the covariance over prompts and over all groups of `answers` answers."""
    mean, square = torch.zeros_like(log_policy), 0.0
    for prompt, weight in enumerate(world.prompt_weights.tolist()):
        own = scores(log_policy, prompt)
        gains = [
            float(world.reward[prompt, y])
            - BETA * float(log_policy[prompt, y] - world.log_reference[prompt, y])
            for y in range(log_policy.shape[1])
        ]
        for group in itertools.product(range(log_policy.shape[1]), repeat=answers):
            probability = weight * math.exp(sum(float(log_policy[prompt, y]) for y in group))
            made = estimate([gains[y] for y in group], [own[y] for y in group])
            mean += probability * made
            square += probability * float(made.square().sum())
    return mean, square - float(mean.square().sum())


def leave_out(gains: list[float], own: list[torch.Tensor]) -> torch.Tensor:
    total = torch.zeros_like(own[0])
    for at, score in enumerate(own):
        others = [gain for index, gain in enumerate(gains) if index != at]
        total += (gains[at] - sum(others) / len(others)) * score
    return total / len(own)


@pytest.fixture(scope="module")
def world() -> World:
    return World.random(5, prompts=2, completions=4)


@pytest.fixture(scope="module")
def policy(world: World) -> torch.Tensor:
    return World.random(6, prompts=2, completions=4).log_reference


@pytest.mark.parametrize("answers", [2, 3, 4])
def test_leave_one_out_is_that_of_all_groups(world: World, policy: torch.Tensor, answers: int) -> None:
    mean, trace = brute_force(world, policy, answers, leave_out)
    found = leave_one_out(world, policy, BETA, answers=answers)
    assert (gradient(world, found) - mean).abs().max() < 1e-12
    assert math.isclose(float(noise(world, found)), trace, rel_tol=1e-10)


def test_another_sample_is_that_of_all_pairs(world: World, policy: torch.Tensor) -> None:
    mean, trace = brute_force(world, policy, 2, lambda gains, own: (gains[0] - gains[1]) * own[0])
    found = another_sample(world, policy, BETA)
    assert (gradient(world, found) - mean).abs().max() < 1e-12
    assert math.isclose(float(noise(world, found)), trace, rel_tol=1e-10)


def test_no_baseline_is_that_of_all_answers(world: World, policy: torch.Tensor) -> None:
    mean, trace = brute_force(world, policy, 1, lambda gains, own: gains[0] * own[0])
    found = no_baseline(world, policy, BETA)
    assert (gradient(world, found) - mean).abs().max() < 1e-12
    assert math.isclose(float(noise(world, found)), trace, rel_tol=1e-10)


def test_a_baseline_that_depends_on_the_prompt(world: World, policy: torch.Tensor) -> None:
    """One prompt at a time, so that the brute force knows which baseline is whose."""
    for prompt in range(2):
        one = World.of(world.log_reference[prompt : prompt + 1], world.reward[prompt : prompt + 1])
        value = BETA * math.log(
            sum(math.exp(float(one.log_reference[0, y]) + float(one.reward[0, y]) / BETA) for y in range(4))
        )
        own = policy[prompt : prompt + 1]
        _, trace = brute_force(one, own, 1, lambda gains, s, v=value: (gains[0] - v) * s[0])  # type: ignore[misc]
        assert math.isclose(float(noise(one, soft_value(one, own, BETA))), trace, rel_tol=1e-10)


def test_dpos_is_that_of_all_labelled_pairs(world: World, policy: torch.Tensor) -> None:
    """(9) by differentiating the loss of each pair, both labels, both orders."""
    mean, square = torch.zeros_like(policy), 0.0
    for prompt, weight in enumerate(world.prompt_weights.tolist()):
        for first, second in itertools.product(range(4), repeat=2):
            drawn = weight * math.exp(
                float(world.log_reference[prompt, first] + world.log_reference[prompt, second])
            )
            gap = float(world.reward[prompt, first] - world.reward[prompt, second])
            for chosen, rejected, label in (
                (first, second, 1 / (1 + math.exp(-gap))),
                (second, first, 1 / (1 + math.exp(gap))),
            ):
                table = policy.clone().requires_grad_()
                ratios = (table.log_softmax(-1) - world.log_reference)[prompt]
                loss = -torch.nn.functional.logsigmoid(BETA * (ratios[chosen] - ratios[rejected]))
                (made,) = torch.autograd.grad(loss, table)
                mean += drawn * label * made
                square += drawn * label * float(made.square().sum())
    found = dpo_pair(world, policy, BETA)
    assert (gradient(world, found) - mean).abs().max() < 1e-12
    assert math.isclose(float(noise(world, found)), square - float(mean.square().sum()), rel_tol=1e-10)


def test_the_best_constant_is_the_lowest_of_all(world: World, policy: torch.Tensor) -> None:
    payoffs = payoff(world, policy, BETA)
    least = float(noise(world, best_constant(world, policy, BETA)))
    for shift in torch.linspace(-3, 3, 61, dtype=torch.float64):
        for direction in ([1.0, 0.0], [0.0, 1.0], [1.0, -1.0]):
            baseline = expectation(policy, payoffs) + shift * torch.tensor(direction).double()
            assert float(noise(world, with_baseline(policy, payoffs, baseline))) >= least - 1e-12


@given(st.integers(0, 2**31), st.integers(1, 5), st.floats(-4, 4), st.floats(0.0, 2.0), st.booleans())
@settings(max_examples=60, deadline=None)
def test_no_baseline_moves_the_mean(
    seed: int, completions: int, exponent: float, strength: float, hole: bool
) -> None:
    """Against automatic differentiation, in random and degenerate worlds, relative to max(1, |r|/β) in nats."""
    world = World.random(seed, prompts=2, completions=completions)
    if hole and completions > 1:
        logits = world.log_reference.clone()
        logits[0, 0] = -torch.inf
        world = World.of(logits, world.reward)
    beta = 10.0**exponent
    best = optimal_policy(world.log_reference, world.reward, beta)
    policy = dial(world.log_reference, best, strength)
    exact = exact_gradient(world, policy, beta)
    scale = max(1.0, float(world.reward.abs().max()) / beta) * beta
    for make in POLICY_GRADIENT.values():
        made = make(world, policy, beta)
        assert (gradient(world, made) - exact).abs().max() / scale < 1e-10
        assert float(noise(world, made)) / scale**2 > -1e-12


@given(worlds(full_support=False), betas)
@settings(max_examples=40, deadline=None)
def test_the_statements_hold_in_degenerate_worlds(world: World, beta: float) -> None:
    """One completion, equal rewards, probabilities of 0 and 1e-300, prompts that never come."""
    assert [one for one in statements(world, beta) if not one.holds] == []


def test_minimising_the_kl_is_maximising_the_objective() -> None:
    """(13), with everything written out by hand for one policy of two answers."""
    world = World.of(
        torch.tensor([[0.6, 0.4]], dtype=torch.float64).log(), torch.tensor([[1.0, -0.5]]).double()
    )
    policy = torch.tensor([[0.3, 0.7]], dtype=torch.float64).log()
    best = [0.6 * math.exp(1 / BETA), 0.4 * math.exp(-0.5 / BETA)]
    total = sum(best)
    distance = 0.3 * math.log(0.3 * total / best[0]) + 0.7 * math.log(0.7 * total / best[1])
    middle = BETA * math.log(total)
    gain = 0.3 * (1 - middle - BETA * math.log(0.3 / 0.6)) + 0.7 * (
        -0.5 - middle - BETA * math.log(0.7 / 0.4)
    )
    assert math.isclose(gain, -BETA * distance, rel_tol=1e-12)
    value = BETA * log_partition(world.log_reference, world.reward, BETA)
    found = expectation(policy, payoff(world, policy, BETA)) - value
    assert math.isclose(float(found), gain, rel_tol=1e-12)
    assert math.isclose(
        float(kl(policy, optimal_policy(world.log_reference, world.reward, BETA))), distance, rel_tol=1e-12
    )


def test_without_the_ratio_the_identity_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The note's formula lacks the log: E[r − β log Z − β π/π_ref] is another function, and the statement says so."""
    from likelier.theory import variance_path

    def slipped(world: World, log_policy: torch.Tensor, beta: float) -> torch.Tensor:
        return world.reward - beta * (log_policy - world.log_reference).exp()

    monkeypatch.setattr(variance_path, "payoff", slipped)
    found = statements(World.random(0), 0.5)
    assert not found[0].holds
    assert all(statement.holds for statement in found[1:])


def test_a_baseline_that_looks_at_the_answer_moves_the_mean(world: World, policy: torch.Tensor) -> None:
    payoffs = payoff(world, policy, BETA)
    biased = with_baseline(policy, payoffs - 0.5 * world.reward, torch.zeros(2).double())
    assert (gradient(world, biased) - exact_gradient(world, policy, BETA)).abs().max() > 1e-3


def test_a_shifted_reward_makes_the_plain_estimate_as_noisy_as_one_likes() -> None:
    world = World.random(2, prompts=1)
    policy = dial(world.log_reference, optimal_policy(world.log_reference, world.reward, BETA), 0.5)
    plain, soft = (
        [
            float(noise(place, make(place, policy, BETA)))
            for place in (world, world.with_reward(world.reward + 100))
        ]
        for make in (no_baseline, soft_value)
    )
    assert plain[1] > 1000 * plain[0]
    assert math.isclose(soft[0], soft[1], rel_tol=1e-9)


def test_at_the_optimum_baselines_leave_nothing_and_labels_do() -> None:
    world = World.random(3)
    best = optimal_policy(world.log_reference, world.reward, BETA)
    for make in (soft_value, own_value, leave_one_out, another_sample, best_constant):
        assert abs(float(noise(world, make(world, best, BETA)))) < 1e-20
    assert float(noise(world, no_baseline(world, best, BETA))) > 1e-3
    assert float(noise(world, dpo_pair(world, best, BETA))) > 1e-3
    assert gradient(world, dpo_pair(world, best, BETA)).abs().max() < 1e-15


def test_noise_against_signal_knows_no_scale(world: World, policy: torch.Tensor) -> None:
    """Rewards and β in other units: the gradient is as many times longer, the ratio the same; and where it ends."""
    tenfold = world.with_reward(10 * world.reward)
    one = answers_needed(world, own_value(world, policy, BETA))
    assert math.isclose(one, answers_needed(tenfold, own_value(tenfold, policy, 10 * BETA)), rel_tol=1e-10)
    lone = World.random(0, prompts=1, completions=1)
    assert math.isnan(answers_needed(lone, no_baseline(lone, lone.log_reference, BETA)))


def test_more_answers_make_a_better_baseline() -> None:
    curves = variance_curves(World.random(0, prompts=1), 1.0)
    for pair, eight in zip(
        curves.per_answer["leave one out, K = 2"], curves.per_answer["leave one out, K = 8"], strict=True
    ):
        assert eight < pair
    assert set(curves.needed) == {*POLICY_GRADIENT, DPO}


def test_one_answer_has_no_other(world: World, policy: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="needs two answers to a prompt, not 1"):
        leave_one_out(world, policy, BETA, answers=1)


def test_an_error_that_is_no_number_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """One estimate among several is NaN: the largest error is not that of the others."""
    from likelier.theory import variance_path

    def broken(world: World, log_policy: torch.Tensor, beta: float) -> Moments:
        return with_baseline(log_policy, payoff(world, log_policy, beta), torch.full((3,), math.nan).double())

    monkeypatch.setattr(variance_path, "POLICY_GRADIENT", {**POLICY_GRADIENT, "broken": broken})
    assert [one.holds for one in statements(World.random(0), 0.5)] == [True, False, True, False]
