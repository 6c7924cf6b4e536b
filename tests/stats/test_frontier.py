"""Envelopes against linear programmes over all mixtures, areas against fine sums, intervals against a bootstrap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from likelier.stats import mean_interval
from likelier.stats.frontier import area_shares, compute_frontier, kl_frontier

POINTS = st.lists(st.tuples(st.integers(0, 20), st.integers(-10, 10)), min_size=1, max_size=7)


def best_mixture(costs, rewards, at):
    """The highest mean reward of a mixture whose mean cost is at most `at`, by a linear programme."""
    found = optimize.linprog(
        -np.array(rewards), A_ub=[costs], b_ub=[at], A_eq=[np.ones(len(costs))], b_eq=[1.0]
    )
    return -found.fun


def rows(values):
    """Two prompts around each mean."""
    return np.array(values, float)[:, None] + np.array([-0.5, 0.5])


def known(values):
    """The same for both prompts."""
    return np.repeat(np.array(values, float)[:, None], 2, axis=1)


@settings(max_examples=25, deadline=None)
@given(POINTS)
def test_the_concave_envelope_is_the_best_of_all_mixtures(points):
    costs = [0.0, *(float(cost) for cost, _ in points)]
    rewards = [0.0, *(float(reward) for _, reward in points)]
    to = 15.0
    found = kl_frontier(rows(rewards), known(costs), start=0, to=to)
    for cost, reward, below in zip(costs, rewards, found.below, strict=True):
        assert below == pytest.approx(best_mixture(costs, rewards, cost) - reward, abs=1e-7)
    grid = np.unique([*np.linspace(0.0, to, 16), *(cost for cost in costs if cost <= to)])
    heights = [best_mixture(costs, rewards, at) for at in grid]
    origin = max(reward for cost, reward in zip(costs, rewards, strict=True) if cost == 0.0)
    assert found.area.value == pytest.approx(np.trapezoid(heights, grid), abs=1e-6)
    assert heights[0] == origin


@settings(max_examples=60, deadline=None)
@given(POINTS)
def test_the_staircase_is_the_best_so_far_and_domination_is_as_said(points):
    costs = [0.0, *(float(cost) for cost, _ in points)]
    rewards = [0.0, *(float(reward) for _, reward in points)]
    found = compute_frontier(rows(rewards), costs, start=0, to=25.0)
    height = lambda at: max(r for c, r in zip(costs, rewards, strict=True) if c <= at)  # noqa: E731
    assert found.area.value == pytest.approx(sum(height(at) for at in range(25)))
    for one, (cost, reward) in enumerate(zip(costs, rewards, strict=True)):
        assert found.below[one] == pytest.approx(height(cost) - reward)
        better = [
            other
            for other, (c, r) in enumerate(zip(costs, rewards, strict=True))
            if c <= cost and r >= reward and (c, r) != (cost, reward)
        ]
        if not better:
            assert found.dominated_by[one] is None
        else:
            assert found.dominated_by[one] in better
            assert rewards[found.dominated_by[one]] == max(rewards[other] for other in better)


def test_by_hand():
    """Corners (0, 0), (1, 2), (4, 3); (2, 1) lies below the second line, at 2 1/3, and below (1, 2)."""
    rewards, costs = rows([0, 2, 1, 3]), known([0, 1, 2, 4])
    found = kl_frontier(rewards, costs, start=0, to=5.0)
    assert found.corners == (0, 1, 3)
    assert found.below == pytest.approx((0.0, 0.0, 4.0 / 3.0, 0.0))
    assert found.dominated_by == (None, None, 1, None)
    assert found.area.value == pytest.approx(1.0 + 7.5 + 3.0)
    assert kl_frontier(rewards, costs, start=0, to=2.5).area.value == pytest.approx(
        1.0 + 1.5 * (2.0 + 2.5) / 2
    )
    assert compute_frontier(rewards, [0, 1, 2, 4], start=0, to=5.0).area.value == pytest.approx(2.0 * 3 + 3.0)


def test_nothing_rests_on_a_cost_that_is_rough():
    """The third point would be the envelope and dominate the second; without it the figures are those of the others."""
    rewards, costs = rows([0.0, 1.0, 3.0, 2.0]), known([0.0, 1.0, 0.5, 4.0])
    found = kl_frontier(rewards, costs, start=0, to=5.0, rough=[2])
    others = kl_frontier(rewards[[0, 1, 3]], costs[[0, 1, 3]], start=0, to=5.0)
    assert (found.area, found.corners) == (others.area, (0, 1, 3))
    assert found.dominated_by == (None, None, None, None)
    assert found.below == (0.0, 0.0, 0.5 - 3.0, 0.0)
    assert kl_frontier(rewards, costs, start=0, to=5.0).dominated_by == (None, 2, None, 2)
    with pytest.raises(ValueError, match="starts at a point whose KL is known"):
        kl_frontier(rewards, costs, start=2, to=5.0, rough=[2])


def test_a_rough_cost_that_is_worse_is_dominated():
    found = kl_frontier(rows([0.0, 2.0, 1.0]), known([0.0, 1.0, 3.0]), start=0, to=5.0, rough=[2])
    assert (found.dominated_by, found.below) == ((None, None, 1), (0.0, 0.0, 1.0))


def test_an_area_is_above_the_start_wherever_that_lies():
    rewards, costs = rows([5, 7]), known([0, 2])
    assert kl_frontier(rewards, costs, start=0, to=2.0).area.value == pytest.approx(2.0)
    assert kl_frontier(rewards - 5.0, costs, start=0, to=2.0).area.value == pytest.approx(2.0)


def measured(prompts=400, seed=0):
    draw = np.random.default_rng(seed)
    level = draw.normal(size=prompts)
    rewards = np.array([0.0, 2.0, 1.0, 3.0, 3.1])[:, None] + level + draw.normal(size=(5, prompts))
    costs = np.array([0.0, 1.0, 2.0, 4.0, 9.0])[:, None] * draw.gamma(3.0, 1 / 3, size=(5, prompts))
    return rewards, costs


def test_the_interval_of_an_area_is_about_that_of_the_bootstrap():
    rewards, costs = measured()
    found = kl_frontier(rewards, costs, start=0, to=8.0)
    draw = np.random.default_rng(1)
    areas = []
    for _ in range(400):
        chosen = draw.integers(0, 400, 400)
        areas.append(kl_frontier(rewards[:, chosen], costs[:, chosen], start=0, to=8.0).area.value)
    assert found.area.high - found.area.value == pytest.approx(1.96 * np.std(areas), rel=0.15)
    assert (found.area.n, found.area.clusters) == (400, 400)


def test_domination_is_sure_only_where_both_differences_are():
    rewards, costs = measured()
    found = kl_frontier(rewards, costs, start=0, to=8.0)
    assert found.dominated_by[2] == 1
    assert found.surely == (False, False, True, False, False)
    few = kl_frontier(rewards[:, :3], costs[:, :3], start=0, to=8.0)
    assert not any(few.surely)


def test_a_dominating_reward_at_a_kl_that_may_be_higher_is_not_sure():
    draw = np.random.default_rng(2)
    rewards = np.array([0.0, 1.0, 2.0])[:, None] + 0.1 * draw.normal(size=(3, 50))
    costs = np.array([0.0, 1.0, 0.99])[:, None] * draw.gamma(2.0, 0.5, size=(3, 50))
    costs[2] *= 0.99 * costs[1].mean() / costs[2].mean()
    found = kl_frontier(rewards, costs, start=0, to=3.0)
    assert found.dominated_by[1] == 2
    assert not found.surely[1]
    assert compute_frontier(rewards, [0.0, 1.0, 0.99], start=0, to=3.0).surely[1]


def test_an_area_knows_the_noise_of_kl_alone():
    """Rewards 0 and 1 for sure, the second at k: up to 9 the area is 9 - k/2."""
    spread = np.random.default_rng(4).gamma(4.0, 0.5, size=200)
    rewards, costs = np.repeat([[0.0], [1.0]], 200, axis=1), np.stack([np.zeros(200), spread])
    found, truth = kl_frontier(rewards, costs, start=0, to=9.0).area, mean_interval(9.0 - spread / 2.0)
    assert found.value == pytest.approx(truth.value, abs=1e-3)
    assert found.high - found.low == pytest.approx(truth.high - truth.low, rel=0.02)


def test_what_is_no_table_is_refused():
    good = np.zeros((2, 3))
    for rewards, costs, to in (
        (good, np.zeros((3, 3)), 1.0),
        (np.zeros(3), np.zeros(3), 1.0),
        (good * np.nan, good, 1.0),
        (good, good, 0.0),
    ):
        with pytest.raises(ValueError, match=r"rewards|area"):
            kl_frontier(rewards, costs, start=0, to=to)


def test_one_prompt_gives_no_interval():
    assert kl_frontier([[0.0], [1.0]], [[0.0], [2.0]], start=0, to=3.0).area.interval is None


def test_shares_of_an_area_average_to_it_and_their_differences_to_that_of_two():
    draws = np.random.default_rng(3)
    rewards, costs = draws.normal(size=(5, 40)).cumsum(axis=0), draws.gamma(2.0, size=(5, 40)).cumsum(axis=0)
    rewards[0] = costs[0] = 0.0
    shares = area_shares(rewards, costs, to=8.0)
    found = kl_frontier(rewards, costs, start=0, to=8.0).area
    assert shares.mean() == pytest.approx(found.value)
    assert mean_interval(shares).low == pytest.approx(found.low)
    other = area_shares(rewards[:3], costs[:3], to=8.0)
    less = kl_frontier(rewards[:3], costs[:3], start=0, to=8.0).area.value
    assert (shares - other).mean() == pytest.approx(found.value - less)
