"""How far each of several options falls short of the best of them, where the data say which is best.

The best of several means is too good: it was chosen for its luck too. A paired interval against the option that came
out best pretends that this one had been named beforehand, and is too short where several are about equally good.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from likelier.stats.intervals import Estimate, cluster_sums, t_quantile

Floats = npt.NDArray[np.float64]
_DRAWS = 4000


def drops_from_best(
    values: npt.ArrayLike, *, clusters: Sequence[Hashable] | None = None, level: float = 0.95
) -> list[Estimate]:
    """`max_j μ_j − μ_i` for each option i, from rows that all options share.

    The interval is one for a maximum of means (intersection bounds, Chernozhukov, Lee and Rosen, Econometrica 2013):
    its upper end is `max_j (m_j − m_i + t se_ij)`, and its lower end `max_j (m_j − m_i − c se_ij)` over the
    contenders, those within `√(2 log G)` standard errors of the best, with c the quantile of the largest of the
    contenders' t ratios, which are correlated as the rows say. Where one option is clearly best, that is the paired
    interval against it; where several may be, it is wider, and covers at least as often as it says. No drop is below 0,
    so where the truth is 0 only the upper end can err.

    Args:
        values: `[rows, options]`, row i of all options about the same thing.
        clusters: `[rows]`, what rows share, such as a prompt's id.
        level: the coverage.

    Raises:
        ValueError: not a table of finite numbers, or lengths that differ.

    >>> wins = [[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0]]
    >>> for drop in drops_from_best(wins):
    ...     print(drop)
    0 [0, 0.137] (95 %, n = 8)
    0.25 [0, 0.637] (95 %, n = 8)
    0.75 [0.3016, 1.137] (95 %, n = 8)
    """
    table = np.asarray(values, np.float64)
    if table.ndim != 2 or 0 in table.shape or not np.isfinite(table).all():
        raise ValueError(f"drops need a table [rows, options] of finite numbers, not shape {table.shape}")
    means = table.mean(axis=0)
    sums = cluster_sums(table - means, clusters)
    count = len(sums)
    covariance = count / max(1, count - 1) * sums.T @ sums / len(table) ** 2
    contending = _contenders(means, covariance, count)
    return [
        _drop(option, means, covariance, contending, n=len(table), count=count, level=level)
        for option in range(len(means))
    ]


def _drop(
    option: int, means: Floats, covariance: Floats, contending: list[int], *, n: int, count: int, level: float
) -> Estimate:
    gaps, errors = means - means[option], _errors(covariance, option)
    value = float(gaps.max())
    if count == 1:
        return Estimate(value=value, n=n, clusters=1, level=level)
    rivals = [other for other in contending if other != option]
    critical = _critical(covariance, option, rivals, count=count, level=level)
    low = max([0.0, *(float(gaps[other] - critical * errors[other]) for other in rivals)])
    high = float((gaps + t_quantile(level, count - 1) * errors).max())
    return Estimate(value=value, low=low, high=high, n=n, clusters=count, level=level)


def _contenders(means: Floats, covariance: Floats, count: int) -> list[int]:
    """The options that may be the best: a bound that grows with the data keeps those that are as good as it."""
    best = int(means.argmax())
    bound = np.sqrt(2.0 * np.log(count)) * _errors(covariance, best)
    return [int(option) for option in np.flatnonzero(means[best] - means <= bound)]


def _errors(covariance: Floats, option: int) -> Floats:
    """Standard errors of every option less this one."""
    own = np.diag(covariance)
    found: Floats = np.sqrt(np.maximum(own + own[option] - 2.0 * covariance[option], 0.0))
    return found


def _critical(covariance: Floats, option: int, rivals: list[int], *, count: int, level: float) -> float:
    """The upper quantile of the largest t ratio among the rivals' gaps to this option."""
    contrast = np.zeros((len(rivals), len(covariance)))
    contrast[:, option] = -1.0
    contrast[range(len(rivals)), rivals] = 1.0
    spread = contrast @ covariance @ contrast.T
    errors = np.sqrt(np.diag(spread))
    uncertain = errors > 1e-12 * max(1.0, float(errors.max(initial=0.0)))
    if uncertain.sum() < 2:
        return t_quantile(level, count - 1)
    errors = errors[uncertain]
    correlation = spread[np.ix_(uncertain, uncertain)] / np.outer(errors, errors)
    scale, axes = np.linalg.eigh(correlation)
    ratios = (_noise(len(errors), count - 1) @ (axes * np.sqrt(np.maximum(scale, 0.0))).T).max(axis=1)
    return float(np.quantile(ratios, (1.0 + level) / 2.0))


@cache
def _noise(size: int, freedom: int) -> Floats:
    """`[draws, size]` of a Student's t of many dimensions: the same every time, since an interval is a function of
    its data."""
    draw = np.random.default_rng(0)
    normal = draw.normal(size=(_DRAWS, size))
    return normal / np.sqrt(draw.chisquare(freedom, size=(_DRAWS, 1)) / freedom)
