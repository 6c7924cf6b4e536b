"""Intervals for the figures that are reported: means, accuracies, and differences paired over prompts.

Rows of one prompt are not independent, so wherever rows share prompts their prompt ids go in as `clusters`.
One row, or one cluster, gives no interval at all: never a standard error of 0.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

Values = npt.ArrayLike
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its interval, its n, and over how many independent clusters it was taken.

    >>> print(Estimate(value=0.25, n=1, clusters=1))
    0.25 (n = 1: no interval)
    >>> print(Estimate(value=0.25, low=0.1, high=0.4, n=8, clusters=4))
    0.25 [0.1, 0.4] (95 %, n = 8 in 4 clusters)
    """

    value: float
    n: int
    clusters: int
    """Equal to `n` where every row stands for itself."""
    low: float | None = None
    high: float | None = None
    """Both None where one row or one cluster allows no interval."""
    level: float = 0.95

    @property
    def interval(self) -> tuple[float, float] | None:
        """`(low, high)`, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def excludes(self, value: float) -> bool:
        """Whether there is an interval and `value` lies outside it: a significant difference from `value`.

        >>> Estimate(value=0.25, low=0.1, high=0.4, n=8, clusters=8).excludes(0.0)
        True
        """
        return self.interval is not None and not self.interval[0] <= value <= self.interval[1]

    def scaled(self, factor: float) -> Estimate:
        """The same in another unit; `factor` is positive.

        >>> print(Estimate(value=0.25, low=0.125, high=0.5, n=8, clusters=8).scaled(100))
        25 [12.5, 50] (95 %, n = 8)
        """
        low, high = (None, None) if self.interval is None else (factor * end for end in self.interval)
        return replace(self, value=factor * self.value, low=low, high=high)

    def __str__(self) -> str:
        count = f"n = {self.n}" if self.clusters == self.n else f"n = {self.n} in {self.clusters} clusters"
        if self.interval is None:
            return f"{self.value:.4g} ({count}: no interval)"
        low, high = self.interval
        return f"{self.value:.4g} [{low:.4g}, {high:.4g}] ({100 * self.level:g} %, {count})"


def wilson(successes: float, n: int, *, level: float = 0.95) -> Estimate:
    """Wilson's score interval for a share: never wider than [0, 1], never of width 0.

    `(p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n)` (Wilson 1927). A tie may count as half a success; the
    interval is then a little wide.

    Args:
        successes: between 0 and n.
        n: independent trials, at least 1.
        level: the coverage.

    Raises:
        ValueError: no trials, or successes outside [0, n].

    >>> print(wilson(9, 10))
    0.9 [0.5958, 0.9821] (95 %, n = 10)
    """
    if n < 1:
        raise ValueError("a share of no trials has no value")
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} trials")
    share = successes / n
    if n == 1:
        return Estimate(value=share, n=1, clusters=1, level=level)
    low, high = _score_interval(share, n, _normal_quantile(level))
    return Estimate(value=share, low=low, high=high, n=n, clusters=n, level=level)


def mean_interval(
    values: Values, *, clusters: Sequence[Hashable] | None = None, level: float = 0.95
) -> Estimate:
    """The mean over all rows with Student's t interval, robust to correlation within clusters.

    Standard error `√( G/(G−1) Σ_g (Σ_{i∈g} (v_i − v̄))² ) / n` over G clusters (CR1), t with G − 1 degrees of
    freedom. Without `clusters` every row is its own, and this is the textbook interval.

    Args:
        values: `[n]`, at least one, finite.
        clusters: `[n]`, what rows share, such as a prompt's id.
        level: the coverage.

    Raises:
        ValueError: no values, values that are not finite, or lengths that differ.

    >>> print(mean_interval([1.0, 2.0, 3.0, 4.0]))
    2.5 [0.4457, 4.554] (95 %, n = 4)
    >>> print(mean_interval([1.0, 2.0, 3.0, 4.0], clusters=["a", "a", "b", "b"]))
    2.5 [-10.21, 15.21] (95 %, n = 4 in 2 clusters)
    """
    rows = _checked(values)
    mean, variance, count = _clustered_mean(rows, clusters)
    if count == 1:
        return Estimate(value=mean, n=rows.size, clusters=count, level=level)
    half = t_quantile(level, count - 1) * math.sqrt(variance)
    return Estimate(value=mean, low=mean - half, high=mean + half, n=rows.size, clusters=count, level=level)


def paired_interval(
    before: Values, after: Values, *, clusters: Sequence[Hashable] | None = None, level: float = 0.95
) -> Estimate:
    """The mean of `after − before`, row by row, with its interval clustered as in `mean_interval`.

    Args:
        before, after: `[n]`, row i of both about the same thing.
        clusters: `[n]`, what rows share, such as a prompt's id.
        level: the coverage.

    Raises:
        ValueError: as `mean_interval`.

    >>> print(paired_interval([0.0, 5.0, 9.0], [1.0, 6.5, 10.5]))
    1.333 [0.6162, 2.05] (95 %, n = 3)
    """
    first, second = _checked(before), _checked(after)
    if first.size != second.size:
        raise ValueError(f"{first.size} values before and {second.size} after cannot be paired")
    return mean_interval(second - first, clusters=clusters, level=level)


def ratio_interval(
    numerators: Values,
    denominators: Values,
    *,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> Estimate:
    """`r = Σ a / Σ b` over all rows, such as a loss per token, with its interval clustered as in `mean_interval`.

    By linearisation: rows are `z_i = n (a_i − r b_i) / Σ b`, whose mean is 0, and whose mean's standard error is r's.
    With denominators that are all 1 it is `mean_interval`.

    Args:
        numerators, denominators: `[n]`, row i of both about the same thing; the denominators' sum is positive.
        clusters: `[n]`, what rows share, such as a prompt's id.
        level: the coverage.

    Raises:
        ValueError: as `mean_interval`; denominators that are negative, or all 0.

    >>> print(ratio_interval([2.0, 9.0, 4.0], [2.0, 3.0, 5.0]))
    1.5 [-1.55, 4.55] (95 %, n = 3)
    """
    above, below = _checked(numerators), _checked(denominators)
    if above.size != below.size:
        raise ValueError(f"{above.size} numerators and {below.size} denominators")
    total = float(below.sum())
    if below.min() < 0.0 or total == 0.0:
        raise ValueError("a ratio's denominators are 0 or more, and not all 0")
    ratio = float(above.sum()) / total
    spread = mean_interval(below.size * (above - ratio * below) / total, clusters=clusters, level=level)
    low, high = (None, None) if spread.interval is None else (ratio + bound for bound in spread.interval)
    return Estimate(value=ratio, low=low, high=high, n=above.size, clusters=spread.clusters, level=level)


def accuracy_interval(
    margins: Values,
    *,
    clusters: Sequence[Hashable] | None = None,
    weights: Values | None = None,
    level: float = 0.95,
) -> Estimate:
    """The share of positive margins, an exact 0 counting one half, with Wilson's interval.

    With clusters, weights or ties it is that of `rate_interval`.

    Args:
        margins: `[n]`, chosen less rejected; only the sign counts.
        clusters: `[n]`, what rows share, such as a prompt's id.
        weights: `[n]`, how much each row counts against the others, above 0; all alike unless given.
        level: the coverage.

    Raises:
        ValueError: as `mean_interval`; weights that are not above 0, or not one a row.

    >>> print(accuracy_interval([0.3, 0.0, -0.1, 2.0]))
    0.625 [0.1178, 0.9541] (95 %, n = 4)
    >>> print(accuracy_interval([1.0, 1.0, 1.0, 1.0], clusters=[1, 1, 2, 3]))
    1 [0.1395, 1] (95 %, n = 4 in 3 clusters)
    """
    outcomes = 0.5 * (1.0 + np.sign(_checked(margins)))
    if clusters is None and weights is None and not (outcomes == 0.5).any():
        return wilson(float(outcomes.sum()), outcomes.size, level=level)
    return rate_interval(outcomes, clusters=clusters, weights=weights, level=level)


def rate_interval(
    rates: Values,
    *,
    clusters: Sequence[Hashable] | None = None,
    weights: Values | None = None,
    level: float = 0.95,
) -> Estimate:
    """The mean of rates, such as each prompt's win rate, with an interval that stays within 0 and 1.

    Wilson's formula takes the number of independent rows of 0 or 1 that would give the variance found (of the clusters,
    but never less than that of rows which are independent; where all rows are alike, the number of clusters) and
    Student's t for z: a rate of 1 is never certain. Weighted rows are as many independent ones as Kish says,
    `(Σ w)² / Σ w²`.

    Args:
        rates: `[n]`, from 0 to 1.
        clusters, weights: as `accuracy_interval`'s.
        level: the coverage.

    Raises:
        ValueError: as `accuracy_interval`; rates below 0 or above 1.

    >>> print(rate_interval([1.0, 0.5, 0.75, 0.75]))
    0.75 [0.385, 0.935] (95 %, n = 4)
    """
    rows = _checked(rates)
    if rows.min() < 0.0 or rows.max() > 1.0:
        raise ValueError(f"rates lie from 0 to 1, not from {rows.min():g} to {rows.max():g}")
    counted = checked_weights(weights, rows.size)
    share, variance, count = _clustered_mean(rows, clusters, counted)
    if count == 1:
        return Estimate(value=share, n=rows.size, clusters=count, level=level)
    spread = float((counted * np.square(rows - share)).sum() / counted.sum())
    floor = spread / kish_size(counted)
    independent = count if floor == 0.0 else share * (1.0 - share) / max(variance, floor)
    low, high = _score_interval(share, independent, t_quantile(level, count - 1))
    return Estimate(value=share, low=low, high=high, n=rows.size, clusters=count, level=level)


def _score_interval(share: float, n: float, quantile: float) -> tuple[float, float]:
    shrink = quantile**2 / n
    centre = (share + shrink / 2.0) / (1.0 + shrink)
    half = math.sqrt(shrink * share * (1.0 - share) + shrink**2 / 4.0) / (1.0 + shrink)
    # At 0 and 1 the formula ends there exactly, but for rounding.
    low = 0.0 if share == 0.0 else max(0.0, centre - half)
    high = 1.0 if share == 1.0 else min(1.0, centre + half)
    return low, high


def _clustered_mean(
    rows: Floats, clusters: Sequence[Hashable] | None, weights: Floats | None = None
) -> tuple[float, float, int]:
    """Mean, squared standard error (0 for one cluster, and not to be used), number of clusters."""
    counted = np.ones(rows.size) if weights is None else weights
    total = float(counted.sum())
    mean = float((counted * rows).sum() / total)
    sums = cluster_sums(counted * (rows - mean), clusters)
    count = len(sums)
    if count == 1:
        return mean, 0.0, 1
    return mean, float(count / (count - 1) * np.square(sums).sum() / total**2), count


def kish_size(weights: Floats) -> float:
    """As how many rows of equal weight these count, `(Σ w)² / Σ w²`.

    >>> float(kish_size(np.array([1.0, 1.0, 2.0]))).__round__(4)
    2.6667
    """
    return float(np.square(weights.sum()) / np.square(weights).sum())


def checked_weights(weights: Values | None, count: int) -> Floats:
    """One a row, ones unless given.

    Raises:
        ValueError: of another number, not finite, or not above 0.
    """
    found = np.ones(count) if weights is None else _checked(weights)
    if found.size != count or found.min() <= 0.0:
        raise ValueError(
            f"{count} rows need as many weights above 0, not {found.size} from {found.min():g} on"
        )
    return found


def cluster_sums(rows: Floats, clusters: Sequence[Hashable] | None) -> Floats:
    """The sum of `rows`, `[n]` or `[n, columns]`, over each cluster; without clusters, the rows themselves.

    >>> cluster_sums(np.array([1.0, 2.0, 4.0]), ["a", "b", "a"])
    array([5., 2.])
    """
    if clusters is None:
        return rows
    if len(clusters) != len(rows):
        raise ValueError(f"{len(rows)} values with {len(clusters)} cluster ids")
    number = {cluster: index for index, cluster in enumerate(dict.fromkeys(clusters))}
    sums = np.zeros((len(number), *rows.shape[1:]))
    np.add.at(sums, [number[cluster] for cluster in clusters], rows)
    return sums


def _checked(values: Values) -> Floats:
    rows: npt.NDArray[Any] = np.asarray(values, np.float64)
    if rows.ndim != 1 or rows.size == 0:
        raise ValueError(f"an interval needs one row of at least one value, not shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError(f"value {int(np.flatnonzero(~np.isfinite(rows))[0])} of {rows.size} is not finite")
    return rows


def _normal_quantile(level: float) -> float:
    return float(special.ndtri(_upper(level)))


def t_quantile(level: float, freedom: int) -> float:
    """How many standard errors to either side hold `level` of Student's t with `freedom` degrees of freedom.

    >>> round(t_quantile(0.95, 10), 3)
    2.228
    """
    return float(special.stdtrit(freedom, _upper(level)))


def _upper(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise ValueError(f"the level of an interval lies between 0 and 1, not at {level}")
    return (1.0 + level) / 2.0
