"""Evaluation of rewards on preferences: by hand, against scikit-like arithmetic in plain Python, and under chance."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from likelier.stats import accuracy_interval, mean_interval
from likelier.stats.preferences import calibration_error, evaluate_preferences


def drawn(count, *, scale=1.0, seed=0):
    """Margins whose labels are drawn from them: calibrated where `scale` is 1, overconfident where it is more."""
    draw = np.random.default_rng(seed)
    true = draw.normal(size=count) * 1.5
    right = draw.random(count) < 1 / (1 + np.exp(-np.abs(true)))
    margins = np.abs(true) * np.where(right, 1, -1)
    return margins * scale, draw.integers(-30, 31, count)


def test_by_hand():
    margins, lengths = [2.0, 1.0, -0.5, 0.0], [5, -3, 4, 0]
    found = evaluate_preferences(margins, length_differences=lengths, prompts="aabc")
    assert (found.pairs, found.prompts) == (4, 3)
    assert found.accuracy == accuracy_interval(margins, clusters="aabc")
    assert found.accuracy.value == 0.625
    losses = [math.log1p(math.exp(-u)) for u in margins]
    assert found.log_loss.value == pytest.approx(sum(losses) / 4)
    assert found.log_loss == mean_interval(losses, clusters="aabc")
    assert found.longer_chosen.value == 0.625
    # Confidences .881 and .731 (right), .622 (wrong), .5 (a tie): bins 7, 4, 2, 0.
    sigma = [1 / (1 + math.exp(-u)) for u in (2.0, 1.0, 0.5)]
    expected = (1 - sigma[0] + 1 - sigma[1] + sigma[2] + 0) / 4
    assert found.calibration_error == pytest.approx(expected)
    counts = [0 if group.accuracy is None else group.accuracy.n for group in found.reliability]
    assert counts == [1, 0, 1, 0, 1, 0, 0, 1, 0, 0]
    assert found.reliability[7].accuracy.value == 1.0
    assert found.reliability[7].mean == pytest.approx(sigma[0])
    assert found.reliability[2].accuracy.value == 0.0


def test_calibrated_rewards_are_not_told_from_chance_and_overconfident_ones_are():
    margins, lengths = drawn(3000)
    fair = evaluate_preferences(margins, length_differences=lengths, prompts=range(3000))
    assert fair.calibration_error < fair.calibration_error_if_calibrated
    boasting = evaluate_preferences(margins * 4, length_differences=lengths, prompts=range(3000))
    assert boasting.calibration_error > 3 * boasting.calibration_error_if_calibrated
    assert boasting.accuracy == fair.accuracy
    for group in fair.reliability:
        assert group.low <= group.mean <= group.high
        assert group.accuracy.low - 0.03 < group.mean < group.accuracy.high + 0.03


def test_length_groups_hold_every_pair_once_and_show_a_reward_that_counts_tokens():
    _, lengths = drawn(500)
    found = evaluate_preferences(lengths * 0.1, length_differences=lengths, prompts=range(500))
    assert sum(group.accuracy.n for group in found.by_length) == 500
    assert [group.low for group in found.by_length] == sorted(group.low for group in found.by_length)
    assert found.by_length[0].accuracy.value == 0.0
    assert found.by_length[-1].accuracy.value == 1.0
    assert found.accuracy.value == found.longer_chosen.value


def test_equal_lengths_are_one_group():
    found = evaluate_preferences([1.0, -1.0, 2.0], length_differences=[0, 0, 0], prompts="abc")
    (group,) = found.by_length
    assert (group.low, group.high, group.accuracy.n) == (0.0, 0.0, 3)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-50, 50), st.integers(-5, 5), st.integers(0, 3)), min_size=1, max_size=30)
)
def test_whatever_the_pairs_the_groups_add_up(rows):
    margins, lengths, prompts = zip(*rows, strict=True)
    found = evaluate_preferences(margins, length_differences=lengths, prompts=prompts)
    for groups in (found.reliability, found.by_length):
        known = [group.accuracy for group in groups if group.accuracy is not None]
        assert sum(one.n for one in known) == len(rows)
        mean = sum(one.value * one.n for one in known) / len(rows)
        assert mean == pytest.approx(found.accuracy.value, abs=1e-9)
    assert 0 <= found.calibration_error <= 1


def test_a_perfect_confidence_and_a_margin_that_is_no_number():
    assert calibration_error([1.0, 1.0], [1, 1], bins=10) == 0.0
    assert calibration_error([0.5, 0.5], [1, 0], bins=10) == 0.0
    with pytest.raises(ValueError, match="not finite"):
        evaluate_preferences([float("nan")], length_differences=[0], prompts="a")
    with pytest.raises(ValueError, match="at least one value"):
        evaluate_preferences([], length_differences=[], prompts="")
