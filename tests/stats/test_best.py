"""Drops from the best option: where it is clear the paired t interval, elsewhere against simulation of the maximum."""

import numpy as np
import pytest
from scipy import stats

from likelier.stats import paired_interval
from likelier.stats.best import drops_from_best


def test_a_clear_best_gives_the_paired_t_interval():
    draw = np.random.default_rng(0)
    table = draw.normal(size=(60, 1)) + draw.normal(size=(60, 3)) + np.array([5.0, 0.0, -1.0])
    best, second, third = drops_from_best(table)
    for option, found in ((1, second), (2, third)):
        truth = paired_interval(table[:, option], table[:, 0])
        assert (found.value, *found.interval) == pytest.approx((truth.value, *truth.interval))
    assert (best.value, best.low, best.high) == (0.0, 0.0, 0.0)
    assert (best.n, best.clusters) == (60, 60)


def test_rows_of_one_prompt_are_one_cluster():
    draw = np.random.default_rng(1)
    prompts = draw.normal(size=(30, 2)) + np.array([3.0, 0.0])
    once = drops_from_best(prompts)[1]
    labels = np.repeat(np.arange(30), 4).tolist()
    repeated = drops_from_best(np.repeat(prompts, 4, axis=0), clusters=labels)[1]
    assert repeated.interval == pytest.approx(once.interval)
    assert (repeated.n, repeated.clusters) == (120, 30)


def test_several_contenders_widen_the_lower_end_by_the_quantile_of_their_largest_ratio():
    """Two equal options against a third, all independent: the ratios' correlation is a half."""
    count = 100
    noise = np.random.default_rng(2).normal(size=(count, 3))
    noise = np.linalg.qr(noise - noise.mean(axis=0))[0] * np.sqrt(count)  # exactly uncorrelated, of mean 0
    table = noise + np.array([3.0, 3.0, 0.0])
    found = drops_from_best(table)[2]
    error = np.sqrt(2 / (count - 1))
    shared, own = np.random.default_rng(3).normal(size=(2, 400_000, 1)) / np.sqrt(2)
    other = np.random.default_rng(4).normal(size=(400_000, 1)) / np.sqrt(2)
    critical = np.quantile(np.maximum(own - shared, other - shared), 0.975)
    assert found.low == pytest.approx(3.0 - critical * error, abs=0.15 * error)
    assert critical > 2.1
    assert found.high == pytest.approx(3.0 + stats.t.ppf(0.975, count - 1) * error)


def test_the_best_of_the_sample_may_fall_short_of_another():
    table = [[1.0, 0.9], [0.0, 0.2], [1.0, 0.7], [0.0, 0.1]]
    best, other = drops_from_best(table)
    assert best.value == best.low == 0.0
    assert best.high > 0.0
    assert other.low == 0.0
    assert other.value == pytest.approx(0.025)


def test_options_that_are_the_same_have_no_drop():
    (one, two) = drops_from_best([[1.0, 1.0], [0.0, 0.0], [0.5, 0.5]])
    assert one.interval == two.interval == (0.0, 0.0)


def test_one_row_gives_no_interval_and_no_table_is_refused():
    assert [found.interval for found in drops_from_best([[1.0, 0.0]])] == [None, None]
    for bad in ([], [1.0], [[float("nan"), 1.0]], np.ones((2, 0))):
        with pytest.raises(ValueError, match="drops need a table"):
            drops_from_best(bad)
    with pytest.raises(ValueError, match="cluster ids"):
        drops_from_best([[1.0, 2.0]], clusters=["a", "b"])
