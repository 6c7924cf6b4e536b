"""Best-of-N for every N from one set of draws: each draw counts by its chance to be the one that is kept."""

from __future__ import annotations

from math import comb

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def kept_weights(scores: npt.ArrayLike, n: int) -> Floats:
    """M times the chance that a draw has the highest score among `n` of the M draws, taken without replacement.

    `M [C(a+g, n) − C(a, n)] / (g C(M, n))` for a draw with `a` draws of a lower score and `g` of its own, itself
    included: equal scores share. The mean of `weight · value` over the draws is then the mean, over all C(M, n)
    subsets, of the value that best-of-n keeps, and so an unbiased estimate of best-of-n's expected value. For `n` = 1
    every weight is exactly 1.

    Args:
        scores: `[M]`, by which the best is chosen; finite.
        n: how many are drawn, from 1 to M.

    Raises:
        ValueError: no row of finite scores, or `n` outside 1 to M.

    >>> kept_weights([3.0, 1.0, 2.0, 2.0], 2).round(4).tolist()  # 3 of 6 pairs hold the first, and it wins them all
    [2.0, 0.0, 1.0, 1.0]
    """
    row = np.asarray(scores, np.float64)
    if row.ndim != 1 or not np.isfinite(row).all():
        raise ValueError(f"scores are one row of finite numbers, not {row!r}")
    count = row.size
    if not 1 <= n <= count:
        raise ValueError(f"of {count} draws the best of {n} cannot be taken")
    ordered = np.sort(row)
    below = np.searchsorted(ordered, row, side="left").tolist()
    up_to = np.searchsorted(ordered, row, side="right").tolist()
    # Whole numbers until the last division: they outgrow a float from about 1,000 draws on.
    return np.array(
        [
            count * (comb(end, n) - comb(start, n)) / ((end - start) * comb(count, n))
            for start, end in zip(below, up_to, strict=True)
        ]
    )
