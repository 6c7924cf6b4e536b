"""Policy gradients against arithmetic by hand, brute-force sums, and what calculus says of them."""

from __future__ import annotations

import math
from statistics import fmean, pstdev, stdev
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likelier.objectives.moments import Moments
from likelier.objectives.policy_gradient import (
    adapted_beta,
    approximate_kl,
    clipped_policy_loss,
    clipped_value_loss,
    explained_variance,
    generalized_advantages,
    group_normalized,
    leave_one_out,
    outside_range,
    token_rewards,
    whitened,
)

NUMBERS = st.floats(-5, 5, allow_nan=False, width=32)


def of(*values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def mask_of(*lengths: int) -> torch.Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def test_each_token_pays_and_the_last_is_rewarded() -> None:
    """β = 0.1; log-ratios 1, −2 and 0.5 of an answer of three, 4 of an answer of one; rewards 2 and −1."""
    log_ratios = of([1.0, -2.0, 0.5], [4.0, 7.0, 7.0])
    found = token_rewards(log_ratios, of(2.0, -1.0), mask_of(3, 1), beta=0.1)
    expected = of([-0.1, 0.2, 2.0 - 0.05], [-1.0 - 0.4, 0.0, 0.0])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_total_of_an_answer_is_that_of_math_4() -> None:
    log_ratios = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask, rewards = mask_of(5, 2, 3), of(0.3, -0.7, 1.1)
    totals = token_rewards(log_ratios, rewards, mask, beta=0.4).sum(1)
    torch.testing.assert_close(totals, rewards - 0.4 * (log_ratios * mask).sum(1))


def test_advantages_by_hand() -> None:
    """γ = 0.9, λ = 0.5; rewards 1, 0, 2; values 0.5, 1, −1.

    δ3 = 2 − (−1) = 3; δ2 = 0 + 0.9·(−1) − 1 = −1.9; δ1 = 1 + 0.9·1 − 0.5 = 1.4.
    A3 = 3; A2 = −1.9 + 0.45·3 = −0.55; A1 = 1.4 + 0.45·(−0.55) = 1.1525.
    """
    found = generalized_advantages(
        of([1.0, 0.0, 2.0]), of([0.5, 1.0, -1.0]), mask_of(3), discount=0.9, gae_lambda=0.5
    )
    torch.testing.assert_close(found, of([1.1525, -0.55, 3.0]), rtol=1e-12, atol=1e-12)


@given(
    st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=5), min_size=1, max_size=4),
    st.floats(0.1, 1.0),
    st.floats(0.0, 1.0),
)
@settings(max_examples=60, deadline=None)
def test_advantages_are_the_sum_of_their_definition(
    answers: list[list[tuple[float, float]]], discount: float, gae_lambda: float
) -> None:
    """`Σ_l (γλ)^l (r + γ V' − V)`, answer by answer; what stands past an answer's end is not read."""
    longest = max(map(len, answers))
    rewards, values = torch.full((2, len(answers), longest), 1e3, dtype=torch.float64)
    for row, answer in enumerate(answers):
        for place, (reward, value) in enumerate(answer):
            rewards[row, place], values[row, place] = reward, value
    mask = mask_of(*map(len, answers))
    found = generalized_advantages(rewards, values, mask, discount=discount, gae_lambda=gae_lambda)
    for row, answer in enumerate(answers):
        after = [value for _, value in answer[1:]] + [0.0]
        errors = [r + discount * v1 - v for (r, v), v1 in zip(answer, after, strict=True)]
        for place in range(longest):
            expected = sum((discount * gae_lambda) ** far * error for far, error in enumerate(errors[place:]))
            assert float(found[row, place]) == pytest.approx(expected, abs=1e-9)


def test_with_lambda_1_advantages_are_the_rewards_to_come_less_the_value() -> None:
    rewards, values = of([1.0, 2.0, 4.0]), of([5.0, 6.0, 7.0])
    found = generalized_advantages(rewards, values, mask_of(3), discount=1.0, gae_lambda=1.0)
    assert found.tolist() == [[7.0 - 5.0, 6.0 - 6.0, 4.0 - 7.0]]


def test_leaving_one_out_by_hand() -> None:
    assert leave_one_out(of([1.0, 2.0, 6.0])).tolist() == [[1 - 4, 2 - 3.5, 6 - 1.5]]
    assert leave_one_out(of([3.0, 3.0], [0.0, 1.0])).tolist() == [[0.0, 0.0], [-1.0, 1.0]]


@given(st.lists(NUMBERS, min_size=2, max_size=6))
def test_leaving_one_out_is_its_definition(rewards: list[float]) -> None:
    found = leave_one_out(of(rewards))[0].tolist()
    for index, reward in enumerate(rewards):
        others = fmean(rewards[:index] + rewards[index + 1 :])
        assert found[index] == pytest.approx(reward - others, abs=1e-9)


def test_a_group_in_its_own_deviations() -> None:
    group = [1.0, 4.0, 4.0, 7.0]
    found = group_normalized(of(group))[0].tolist()
    assert found == pytest.approx([(r - 4.0) / (stdev(group) + 1e-4) for r in group], rel=1e-12)
    assert group_normalized(of([2.0, 2.0, 2.0])).tolist() == [[0.0, 0.0, 0.0]]


def test_whitening_reads_what_the_mask_shows() -> None:
    values, mask = of([1.0, 2.0], [6.0, 50.0]), mask_of(2, 1)
    kept = [1.0, 2.0, 6.0]
    found = whitened(values, mask)
    assert found[mask].tolist() == pytest.approx([(v - 3.0) / pstdev(kept) for v in kept], rel=1e-12)
    assert found[~mask].tolist() == [0.0]
    assert whitened(of(7.0, 7.0), torch.tensor([True, True])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.1, 2.0, -2.2, -2.2),  # inside the range
        (1.5, 2.0, -2.4, 0.0),  # good, and already 20 % likelier: nothing more to gain
        (0.5, 2.0, -1.0, -1.0),  # good, and less likely: still to be made likelier
        (1.5, -2.0, 3.0, 3.0),  # bad, and likelier
        (0.5, -2.0, 1.6, 0.0),  # bad, and already less likely
    ],
)
def test_the_clipped_loss_by_hand(ratio: float, advantage: float, loss: float, slope: float) -> None:
    """`d(−ρA)/d log π = −ρA`, or 0 where it is clipped."""
    logps = of(math.log(ratio)).requires_grad_()
    found = clipped_policy_loss(logps, of(0.0), of(advantage), clip_range=0.2)
    assert found.item() == pytest.approx(loss, rel=1e-12)
    (gradient,) = torch.autograd.grad(found.sum(), logps)
    assert gradient.item() == pytest.approx(slope, rel=1e-12)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=6), st.floats(0.05, 0.9))
def test_at_ratio_1_its_gradient_is_the_policy_gradient(
    tokens: list[tuple[float, float]], clip_range: float
) -> None:
    old, advantages = (of(*column) for column in zip(*tokens, strict=True))
    logps = old.clone().requires_grad_()
    loss = clipped_policy_loss(logps, old, advantages, clip_range=clip_range).sum()
    (gradient,) = torch.autograd.grad(loss, logps)
    assert gradient.tolist() == (-advantages).tolist()


def test_without_clipping_the_loss_is_the_importance_weighted_one() -> None:
    found = clipped_policy_loss(of(math.log(5.0)), of(0.0), of(2.0), clip_range=0.0)
    assert found.item() == pytest.approx(-10.0, rel=1e-12)


@pytest.mark.parametrize(
    ("value", "old", "target", "loss"),
    [
        (1.0, 0.0, 1.0, 0.5 * 0.8**2),  # went too far: held where 0.2 would have brought it
        (0.1, 0.0, 1.0, 0.5 * 0.9**2),
        (-1.0, 0.0, 1.0, 0.5 * 2.0**2),  # went the wrong way: the worse of the two counts
    ],
)
def test_the_value_loss_by_hand(value: float, old: float, target: float, loss: float) -> None:
    found = clipped_value_loss(of(value), of(old), of(target), clip_range=0.2)
    assert found.item() == pytest.approx(loss, rel=1e-12)
    plain = clipped_value_loss(of(value), of(old), of(target), clip_range=0.0)
    assert plain.item() == pytest.approx(0.5 * (value - target) ** 2, rel=1e-12)


def test_the_mean_of_approximate_kl_is_the_kl() -> None:
    """Over all tokens of a known pair of distributions, weighted by the one that drew them."""
    old, new = of(0.5, 0.3, 0.2), of(0.2, 0.3, 0.5)
    expected = float((old * (old / new).log()).sum())
    assert float((old * approximate_kl(new.log(), old.log())).sum()) == pytest.approx(expected, rel=1e-12)
    assert bool((approximate_kl(new.log(), old.log()) >= 0).all())


def test_what_lies_outside_the_range() -> None:
    logps = of(1.0, 1.19, 1.21, 0.81, 0.79).log()
    assert outside_range(logps, torch.zeros_like(logps), clip_range=0.2).tolist() == [0, 0, 1, 0, 1]
    assert outside_range(logps, torch.zeros_like(logps), clip_range=0.0).tolist() == [0] * 5


def test_explained_variance_by_hand() -> None:
    """Returns 1, 3, 5 (variance 8/3); errors 0, 1, −1 (variance 2/3)."""
    assert explained_variance(of(1.0, 2.0, 6.0), of(1.0, 3.0, 5.0)) == pytest.approx(0.75, rel=1e-12)
    assert explained_variance(of(4.0, 4.0), of(1.0, 2.0)) == pytest.approx(0.0, abs=1e-12)
    assert explained_variance(of(-1.0, -2.0), of(1.0, 2.0)) == pytest.approx(-3.0, rel=1e-12)
    assert math.isnan(explained_variance(of(1.0, 2.0), of(3.0, 3.0)))


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(6.0, 1.0), (6.6, 1.01), (5.4, 0.99), (60.0, 1.02), (0.0, 0.98)],
)
def test_the_controller_of_ziegler_et_al(kl: float, factor: float) -> None:
    """Target 6, K = 0.1: a tenth too far moves β by 1 %, and no error by more than 2 %."""
    assert adapted_beta(0.5, kl=kl, target=6.0, gain=0.1) == pytest.approx(0.5 * factor, rel=1e-12)


def test_the_controller_reaches_its_target() -> None:
    """Where KL = 3 / β, as for a policy that is soon at its optimum, β settles where KL is the target."""
    beta = 5.0
    for _ in range(400):
        beta = adapted_beta(beta, kl=3.0 / beta, target=6.0, gain=0.1)
    assert 3.0 / beta == pytest.approx(6.0, rel=1e-3)


@given(st.lists(st.lists(NUMBERS, max_size=5), max_size=5))
def test_moments_are_those_of_all_values(batches: list[list[float]]) -> None:
    found = Moments()
    for batch in batches:
        found = found.including(batch)
    values = [value for batch in batches for value in batch]
    assert found.count == len(values)
    if values:
        assert found.mean == pytest.approx(fmean(values), abs=1e-9)
        assert found.deviation == pytest.approx(pstdev(values), abs=1e-6)


def test_equal_rewards_normalise_to_nothing() -> None:
    assert Moments().including([2.0, 2.0]).normalized(2.0) == 0.0
