"""Win rates at equal lengths: against a second fit, on planted data, and what must hold whatever the data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats

from likelier.stats.length_control import control_length


def planted(count, *, rate, effect, seed=0, shift=0.0):
    """Outcomes with a tie in ten, and length differences."""
    draw = np.random.default_rng(seed)
    gaps = shift + 50.0 * draw.normal(size=count)
    curved = np.tanh(gaps / np.sqrt(np.square(gaps).mean()))
    won = draw.random(count) < special.expit(special.logit(rate) + effect * curved)
    return np.where(draw.random(count) < 0.1, 0.5, won), gaps


def second_fit(wins, gaps, weights=None):
    """θ and φ by a general optimiser on the penalised likelihood, written out; errors by numerical derivatives."""
    own = np.ones(len(wins)) if weights is None else weights * weights.sum() / (weights**2).sum()
    curved = np.tanh(gaps / np.sqrt(np.average(gaps**2, weights=own)))

    def expected(at):
        return 1 / (1 + np.exp(-(at[0] + at[1] * curved)))

    def information(at):
        weights = own * expected(at) * (1 - expected(at))
        rows = [
            [weights.sum(), (weights * curved).sum()],
            [(weights * curved).sum(), (weights * curved**2).sum()],
        ]
        return np.array(rows)

    def loss(at):
        p = expected(at)
        return -(own * (wins * np.log(p) + (1 - wins) * np.log(1 - p))).sum() - 0.5 * np.log(
            np.linalg.det(information(at))
        )

    at = optimize.minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-12}).x
    scores = np.column_stack([own * (wins - expected(at)), own * (wins - expected(at)) * curved])
    bread = np.linalg.inv(information(at))
    sandwich = bread @ (len(wins) / (len(wins) - 1) * scores.T @ scores) @ bread
    return at, np.sqrt(np.maximum(np.diag(sandwich), np.diag(bread)))


@pytest.mark.parametrize(("rate", "effect"), [(0.6, 1.0), (0.5, 0.0), (0.9, -2.0)])
def test_a_general_optimiser_finds_the_same(rate, effect):
    wins, gaps = planted(80, rate=rate, effect=effect, seed=3)
    found = control_length(wins, gaps)
    (theta, phi), errors = second_fit(wins, gaps)
    assert found.win_rate.value == pytest.approx(special.expit(theta), abs=1e-6)
    assert found.effect.value == pytest.approx(phi, abs=1e-5)
    quantile = stats.t.ppf(0.975, 78)
    assert found.effect.high == pytest.approx(phi + quantile * errors[1], rel=1e-4)
    assert found.win_rate.low == pytest.approx(special.expit(theta - quantile * errors[0]), rel=1e-4)


def test_weighted_rows():
    """Against the same second fit; which unit the weights are in does not matter, nor whether equal ones are given."""
    wins, gaps = planted(80, rate=0.6, effect=1.0, seed=4)
    weights = np.random.default_rng(4).uniform(0.1, 3.0, size=80)
    found = control_length(wins, gaps, weights=weights)
    (theta, phi), errors = second_fit(wins, gaps, weights)
    assert found.win_rate.value == pytest.approx(special.expit(theta), abs=1e-6)
    assert found.effect.value == pytest.approx(phi, abs=1e-5)
    assert found.effect.high == pytest.approx(phi + stats.t.ppf(0.975, 78) * errors[1], rel=1e-4)
    again = control_length(wins, gaps, weights=7.0 * weights)
    assert again.win_rate.low == pytest.approx(found.win_rate.low, rel=1e-9)
    assert control_length(wins, gaps, weights=np.full(80, 1.0)) == control_length(wins, gaps)
    with pytest.raises(ValueError, match="80 rows need as many weights above 0"):
        control_length(wins, gaps, weights=0.0 * weights)


def test_a_win_rate_that_is_length_alone_is_seen_through():
    """The first answer is the longer one four times in five, and the longer one wins: equal worth, and 63 % wins."""
    wins, gaps = planted(4000, rate=0.5, effect=1.5, shift=50.0, seed=1)
    found = control_length(wins, gaps)
    assert wins.mean() > 0.62
    assert found.win_rate.value == pytest.approx(0.5, abs=0.03)
    assert not found.win_rate.excludes(0.5)
    assert found.effect.value == pytest.approx(1.5 * 0.9, abs=0.25)  # a tie in ten weakens it
    assert found.effect.low > 0.5


def test_swapping_sides_mirrors_the_result():
    wins, gaps = planted(60, rate=0.7, effect=1.0)
    one, other = control_length(wins, gaps), control_length(1 - wins, -gaps)
    assert other.win_rate.value == pytest.approx(1 - one.win_rate.value, abs=1e-9)
    assert other.win_rate.low == pytest.approx(1 - one.win_rate.high, abs=1e-9)
    assert other.effect.value == pytest.approx(one.effect.value, abs=1e-7)


def test_equal_lengths_give_the_plain_win_rate():
    """Firth's estimate of a share is (k + 1/2) / (n + 1)."""
    found = control_length([1, 1, 0, 1, 0.5], [0, 0, 0, 0, 0])
    assert found.win_rate.value == pytest.approx(4.0 / 6.0)
    assert found.effect is None


def test_all_wins_are_finite_and_not_certain():
    found = control_length(np.ones(50), np.random.default_rng(0).normal(size=50))
    assert 0.95 < found.win_rate.value < 1.0
    assert found.win_rate.low < 0.95


def test_lengths_that_never_vary_tell_nothing():
    found = control_length([1, 0, 1, 1], [7, 7, 7, 7])
    assert found.win_rate is None
    assert found.effect is None


def test_rows_of_one_prompt_are_one_cluster():
    wins, gaps = planted(50, rate=0.6, effect=0.5)
    labels = np.repeat(np.arange(50), 6).tolist()
    once = control_length(wins, gaps)
    many = control_length(np.repeat(wins, 6), np.repeat(gaps, 6), clusters=labels)
    assert (many.win_rate.n, many.win_rate.clusters) == (300, 50)
    width = [found.win_rate.high - found.win_rate.low for found in (once, many)]
    assert width[1] == pytest.approx(width[0], rel=0.05)


def test_too_few_clusters_give_no_interval():
    assert control_length([1, 0], [1, -2]).win_rate.interval is None


@pytest.mark.parametrize(("wins", "gaps"), [([], []), ([1, 0], [1]), ([2.0], [1]), ([1], [float("nan")])])
def test_what_is_no_outcome_is_refused(wins, gaps):
    with pytest.raises(ValueError, match="outcome"):
        control_length(wins, gaps)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(-500, 500)), min_size=3, max_size=40))
def test_whatever_the_data_it_ends_and_lies_between_0_and_1(rows):
    wins, gaps = zip(*rows, strict=True)
    found = control_length(wins, gaps).win_rate
    if found is not None:
        assert 0.0 <= found.low <= found.value <= found.high <= 1.0
