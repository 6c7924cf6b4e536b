"""Intervals against scipy's own, against the sandwich formula in matrices, and by how often they cover."""

import numpy as np
import pytest
from scipy import stats

from likelier.stats import (
    Estimate,
    accuracy_interval,
    mean_interval,
    paired_interval,
    ratio_interval,
    wilson,
)


@pytest.fixture
def generator():
    return np.random.default_rng(7)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(
    ("successes", "n"), [(0, 2), (2, 2), (1, 3), (7, 10), (0, 50), (50, 50), (4321, 9000)]
)
def test_wilson_is_scipys(successes, n, level):
    truth = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    estimate = wilson(successes, n, level=level)
    assert estimate.value == successes / n
    assert estimate.interval == pytest.approx((truth.low, truth.high), abs=1e-12)


def test_wilson_by_hand():
    """p = 1/2, n = 4, z² = 3.8415: centre 0.5, half √(z²/16 + z⁴/64)/(1 + z²/4)."""
    z_square = 1.959963984540054**2
    half = (z_square / 16 + z_square**2 / 64) ** 0.5 / (1 + z_square / 4)
    assert wilson(2, 4).interval == pytest.approx((0.5 - half, 0.5 + half), abs=1e-14)


def test_wilson_at_the_ends_is_neither_certain_nor_outside():
    assert wilson(30, 30).high == 1.0
    assert 0.88 < wilson(30, 30).low < 0.89
    assert wilson(0, 30).low == 0.0
    assert wilson(0.5, 30).low > 0.0


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2), (float("nan"), 2)])
def test_wilson_refuses(successes, n):
    with pytest.raises(ValueError, match="trials"):
        wilson(successes, n)


@pytest.mark.parametrize("size", [2, 3, 40])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_mean_is_scipys_t_interval(generator, size, level):
    values = generator.normal(3.0, 2.0, size)
    truth = stats.ttest_1samp(values, 0.0).confidence_interval(level)
    estimate = mean_interval(values, level=level)
    assert estimate.interval == pytest.approx((truth.low, truth.high), rel=1e-12)
    assert (estimate.value, estimate.n, estimate.clusters) == (pytest.approx(values.mean()), size, size)


def test_one_row_gives_no_interval():
    """Not a standard error of 0.0, which would say "certain" (style.md, defects seen elsewhere)."""
    for estimate in (
        mean_interval([2.0]),
        paired_interval([1.0], [3.0]),
        accuracy_interval([2.0]),
        wilson(1, 1),
        mean_interval([2.0, 3.0], clusters=["same", "same"]),
        accuracy_interval([2.0, 3.0], clusters=["same", "same"]),
    ):
        assert estimate.interval is None
        assert estimate.low is None
        assert estimate.high is None
        assert not estimate.excludes(0.0)
        assert "no interval" in str(estimate)


def test_no_rows_are_refused():
    for function in (mean_interval, accuracy_interval):
        with pytest.raises(ValueError, match="at least one value"):
            function([])
    with pytest.raises(ValueError, match="at least one value"):
        paired_interval([], [])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_by_number(bad):
    with pytest.raises(ValueError, match="value 1 of 3 is not finite"):
        mean_interval([0.0, bad, 1.0])


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_interval([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="cluster ids"):
        mean_interval([1.0, 2.0], clusters=["a"])


def test_a_level_outside_its_range_is_refused():
    with pytest.raises(ValueError, match="level"):
        mean_interval([1.0, 2.0], level=95)


def test_clusters_of_equal_size_are_the_t_interval_of_their_means(generator):
    values = generator.normal(size=(9, 4)) + generator.normal(size=(9, 1))
    truth = stats.ttest_1samp(values.mean(axis=1), 0.0).confidence_interval(0.95)
    estimate = mean_interval(values.ravel(), clusters=np.repeat(np.arange(9), 4).tolist())
    assert estimate.interval == pytest.approx((truth.low, truth.high), rel=1e-12)
    assert (estimate.n, estimate.clusters) == (36, 9)


def test_clusters_of_unequal_size_are_the_sandwich_in_matrices(generator):
    """Least squares on a constant: (X'X)⁻¹ (Σ_g X_g' e_g e_g' X_g) (X'X)⁻¹ · G/(G−1), in matrices."""
    sizes = [1, 5, 2, 7, 3]
    labels = np.repeat(np.arange(5), sizes)
    values = generator.normal(size=18) + labels
    design = np.ones((18, 1))
    bread = np.linalg.inv(design.T @ design)
    residual = values - design @ (bread @ design.T @ values)
    meat = sum(
        design[labels == g].T @ np.outer(residual[labels == g], residual[labels == g]) @ design[labels == g]
        for g in range(5)
    )
    error = float(np.sqrt((bread @ meat @ bread)[0, 0] * 5 / 4))
    half = stats.t.ppf(0.975, 4) * error
    estimate = mean_interval(values, clusters=labels.tolist())
    assert estimate.interval == pytest.approx((values.mean() - half, values.mean() + half), rel=1e-12)


def test_the_order_of_rows_and_the_names_of_clusters_do_not_matter(generator):
    values, labels = generator.normal(size=12), generator.integers(0, 4, 12)
    order = generator.permutation(12)
    one = mean_interval(values, clusters=labels.tolist())
    other = mean_interval(values[order], clusters=[f"prompt {label}" for label in labels[order]])
    assert other.interval == pytest.approx(one.interval, rel=1e-12)


def test_pairing_removes_what_rows_share(generator):
    """A gain of 0.1 under noise of 10 that both share: seen when paired, invisible when not."""
    shared = generator.normal(0.0, 10.0, 50)
    before, after = shared, shared + 0.1 + generator.normal(0.0, 0.05, 50)
    assert paired_interval(before, after).excludes(0.0)
    assert paired_interval(before, after).value == pytest.approx(0.1, abs=0.03)
    assert not stats.ttest_ind(after, before).pvalue < 0.5
    assert paired_interval(after, before).high < 0.0


def test_paired_by_prompt_is_the_t_test_of_prompt_means(generator):
    before, after = generator.normal(size=(6, 8)), generator.normal(0.3, 1.0, size=(6, 8))
    truth = stats.ttest_rel(after.mean(axis=1), before.mean(axis=1)).confidence_interval(0.95)
    prompts = np.repeat(np.arange(6), 8).tolist()
    estimate = paired_interval(before.ravel(), after.ravel(), clusters=prompts)
    assert estimate.interval == pytest.approx((truth.low, truth.high), rel=1e-12)


def test_a_tie_counts_one_half():
    assert accuracy_interval([1.0, 0.0]).value == 0.75
    assert accuracy_interval([0.0, 0.0, 0.0]).value == 0.5
    assert accuracy_interval([-0.0, 5e-324, -5e-324, 0.0]).value == 0.5


def test_ties_are_neither_certain_nor_as_uncertain_as_wins_and_losses():
    """Wilson's formula at the rows without ties that vary as much: 60 wins, 30 ties, 10 losses have variance 0.1125."""
    found = accuracy_interval([1.0] * 60 + [0.0] * 30 + [-1.0] * 10)
    independent = 0.75 * 0.25 / (0.1125 / 99)
    shrink = stats.t.ppf(0.975, 99) ** 2 / independent
    half = (shrink * 0.75 * 0.25 + shrink**2 / 4) ** 0.5 / (1 + shrink)
    assert found.value == 0.75
    assert found.high - found.low == pytest.approx(2 * half, rel=1e-12)
    assert found.high - found.low < wilson(75, 100).high - wilson(75, 100).low
    tied = accuracy_interval([0.0] * 50)
    assert (tied.value, tied.interval) == (0.5, pytest.approx(_wilson_t(0.5, 50)))


def _wilson_t(share, n):
    shrink = stats.t.ppf(0.975, n - 1) ** 2 / n
    half = (shrink * share * (1 - share) + shrink**2 / 4) ** 0.5 / (1 + shrink)
    centre = (share + shrink / 2) / (1 + shrink)
    return centre - half, centre + half


def test_weighted_rows_are_rows_that_are_repeated(generator):
    """Where prompts decide, so that the number of independent rows does not matter; a row's weight is its count."""
    prompts = np.repeat(np.arange(30), 4)
    margins = np.repeat(generator.normal(size=30), 4) + 0.2 * generator.normal(size=120)
    counts = generator.integers(1, 4, size=120)
    found = accuracy_interval(margins, clusters=prompts, weights=0.5 * counts)
    repeated = accuracy_interval(np.repeat(margins, counts), clusters=np.repeat(prompts, counts))
    assert found.value == pytest.approx(repeated.value)
    assert found.interval == pytest.approx(repeated.interval)
    assert (found.n, found.clusters) == (120, 30)
    even = accuracy_interval(margins, clusters=prompts, weights=np.full(120, 0.25))
    assert even == accuracy_interval(margins, clusters=prompts)


def test_weighted_rows_alone_by_hand():
    """Weights 3, 1, 1 of two wins and a loss: 4/5, as (5² / 11) rows; the variance of clusters of one is larger."""
    found = accuracy_interval([1.0, 1.0, -1.0], weights=[3.0, 1.0, 1.0])
    variance = 3 / 2 * (0.6**2 + 0.2**2 + 0.8**2) / 25
    independent = 0.16 / max(variance, 0.16 * 11 / 25)
    shrink = stats.t.ppf(0.975, 2) ** 2 / independent
    centre = (0.8 + shrink / 2) / (1 + shrink)
    half = np.sqrt(shrink * 0.16 + shrink**2 / 4) / (1 + shrink)
    assert found.value == pytest.approx(0.8)
    assert found.interval == pytest.approx((centre - half, centre + half))
    with pytest.raises(ValueError, match="3 rows need as many weights above 0, not 2"):
        accuracy_interval([1.0, 1.0, -1.0], weights=[1.0, 1.0])


def test_accuracy_without_clusters_is_wilsons():
    assert accuracy_interval([3.0, -1.0, 2.0, 1e-9, -4.0]).interval == wilson(3, 5).interval


def test_a_perfect_accuracy_over_clusters_is_not_certain():
    """Four prompts of a hundred rows, all right: four independent facts, not four hundred."""
    labels = np.repeat(np.arange(4), 100).tolist()
    estimate = accuracy_interval(np.ones(400), clusters=labels)
    assert (estimate.value, estimate.high) == (1.0, 1.0)
    assert 0.2 < estimate.low < wilson(4, 4).low


def test_clustered_accuracy_is_wide_where_prompts_decide_and_never_below_wilson(generator):
    labels = np.repeat(np.arange(20), 10)
    by_prompt = np.where(np.arange(20) % 2 == 0, 1.0, -1.0)[labels]
    wide = accuracy_interval(by_prompt, clusters=labels.tolist())
    assert wide.high - wide.low > (wilson(10, 20).high - wilson(10, 20).low)
    alternating = np.tile([1.0, -1.0], 100)
    narrow = accuracy_interval(alternating, clusters=labels.tolist())
    assert narrow.high - narrow.low >= wilson(100, 200).high - wilson(100, 200).low


def _clustered_trials(generator, trials):
    """Rows of 12 prompts whose own means differ: the truth is 0, or an accuracy of one half."""
    labels = np.repeat(np.arange(12), 6)
    prompts = generator.normal(size=(trials, 12))
    return labels, prompts[:, labels] + generator.normal(size=(trials, 72))


@pytest.mark.parametrize(("function", "truth"), [(mean_interval, 0.0), (accuracy_interval, 0.5)])
def test_coverage_with_clusters_is_as_promised_and_without_them_is_not(generator, function, truth):
    labels, trials = _clustered_trials(generator, 600)
    clusters = labels.tolist()
    covered = np.mean([not function(rows, clusters=clusters).excludes(truth) for rows in trials])
    naive = np.mean([not function(rows).excludes(truth) for rows in trials])
    assert 0.925 <= covered <= 0.985
    assert naive < 0.85


def test_an_estimate_prints_its_interval_and_its_n():
    assert (
        str(Estimate(value=0.5, low=0.4, high=0.6, n=100, clusters=100)) == "0.5 [0.4, 0.6] (95 %, n = 100)"
    )


def test_a_ratio_of_ones_is_a_mean(generator):
    values, clusters = generator.normal(3.0, 2.0, 30), generator.integers(0, 9, 30).tolist()
    for given in (None, clusters):
        found, truth = (
            ratio_interval(values, np.ones(30), clusters=given),
            mean_interval(values, clusters=given),
        )
        assert (found.value, found.low, found.high) == pytest.approx((truth.value, truth.low, truth.high))
        assert (found.n, found.clusters) == (truth.n, truth.clusters)


def test_a_ratio_by_hand():
    """Losses 2, 9, 4 over 2, 3, 5 tokens: 1.5; residuals −1, 4.5, −3.5 over 10; √(3/2 · 33.5)/10, t with 2."""
    half = stats.t.ppf(0.975, 2) * (1.5 * 33.5) ** 0.5 / 10
    assert ratio_interval([2, 9, 4], [2, 3, 5]).interval == pytest.approx((1.5 - half, 1.5 + half))
    # The last two of one prompt: residuals −1 and 1.
    half = stats.t.ppf(0.975, 1) * (2 * 2.0) ** 0.5 / 10
    found = ratio_interval([2, 9, 4], [2, 3, 5], clusters="abb")
    assert found.interval == pytest.approx((1.5 - half, 1.5 + half))
    assert (found.n, found.clusters) == (3, 2)


def test_a_ratios_interval_is_about_that_of_the_bootstrap(generator):
    """Tokens per row between 5 and 60, a loss per token that varies between rows: 400 rows of 200 prompts."""
    tokens = generator.integers(5, 60, 400)
    losses = tokens * (2.0 + 0.3 * np.repeat(generator.normal(size=200), 2)) + generator.normal(size=400)
    found = ratio_interval(losses, tokens, clusters=np.repeat(np.arange(200), 2).tolist())
    draws = generator.integers(0, 200, (4000, 200))
    above, below = losses.reshape(200, 2).sum(1), tokens.reshape(200, 2).sum(1)
    ratios = above[draws].sum(1) / below[draws].sum(1)
    assert found.value == losses.sum() / tokens.sum()
    assert found.high - found.value == pytest.approx(1.96 * ratios.std(), rel=0.1)


def test_what_is_no_ratio_is_refused():
    assert ratio_interval([2.0], [4.0]).interval is None
    for numerators, denominators in (
        ([1.0, 2.0], [1.0]),
        ([1.0], [0.0]),
        ([1.0, 1.0], [2.0, -1.0]),
        ([], []),
    ):
        with pytest.raises(ValueError, match=r"numerators|denominators|at least one value"):
            ratio_interval(numerators, denominators)
