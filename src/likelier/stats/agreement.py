"""Agreement between people who labelled the same items: the share of equal labels, and Krippendorff's α.

Labels come item by item, each a list of whatever was said about it, in any order. A missing label is simply not
there; an item with fewer than two labels says nothing about agreement and does not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from likelier.stats.intervals import Estimate, accuracy_interval

Labels = Sequence[Sequence[Hashable]]
"""`[items][labels of the item]`, of any lengths."""
Floats = npt.NDArray[np.float64]


def percent_agreement(labels: Labels, *, level: float = 0.95) -> Estimate | None:
    """The share of pairs of labels of one item that are equal, over all such pairs, clustered by item.

    Args:
        labels: `[items][labels of the item]`.
        level: the coverage of the interval.

    Returns:
        None where no item has two labels.

    >>> print(percent_agreement([["a", "a"], ["a", "b"], ["b"], ["b", "b", "a"]]))
    0.4 [0.03696, 0.9205] (95 %, n = 5 in 3 clusters)
    """
    margins: list[float] = []
    items: list[int] = []
    for item, said in enumerate(labels):
        equal = sum(count * (count - 1) // 2 for count in Counter(said).values())
        pairs = len(said) * (len(said) - 1) // 2
        margins += [1.0] * equal + [-1.0] * (pairs - equal)
        items += [item] * pairs
    return accuracy_interval(margins, clusters=items, level=level) if margins else None


def krippendorff_alpha(labels: Labels) -> float | None:
    """Krippendorff's α for nominal labels, `1 − D_o / D_e`: 1 where all agree, 0 where as much as by chance.

    `D_o = Σ_{c≠k} o_ck / n` and `D_e = Σ_{c≠k} n_c n_k / (n (n − 1))`, with the coincidences
    `o_ck = Σ_items (ordered pairs of labels c, k of the item) / (its labels − 1)` (Krippendorff 2011,
    "Computing Krippendorff's Alpha-Reliability").

    Args:
        labels: `[items][labels of the item]`.

    Returns:
        None where it is undefined: no item has two labels, or all labels are the same, so that nothing shows
        whether people can tell items apart.

    >>> krippendorff_alpha([["a", "a"], ["b", "b"], ["a", "b"]])
    0.4444444444444444
    >>> krippendorff_alpha([["a", "a"], ["a", "a"]]) is None
    True
    """
    coincidences = _patterns(labels).total
    alpha = float(_alphas(coincidences[None])[0])
    return None if np.isnan(alpha) else alpha


def alpha_interval(
    labels: Labels, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Estimate | None:
    """`krippendorff_alpha` with a percentile interval of the bootstrap over items.

    Where all labels agree the bootstrap would say "certain"; the lower end is then that of the agreement's own
    interval (`percent_agreement`), at the expected disagreement found.

    Args:
        labels: `[items][labels of the item]`.
        level: the coverage.
        draws: resamples of the items; those in which α is undefined do not count.
        seed: of the resampling.

    Returns:
        None where α is undefined. `n` counts labels, `clusters` items.

    >>> print(alpha_interval([["a", "a"], ["b", "b"], ["a", "b"]] * 20))
    0.3389 [0.09518, 0.5673] (95 %, n = 120 in 60 clusters)
    """
    patterns = _patterns(labels)
    value = krippendorff_alpha(labels)
    if value is None:
        return None
    items, count = int(patterns.counts.sum()), round(float(patterns.total.sum()))
    if items == 1:
        return Estimate(value=value, n=count, clusters=1, level=level)
    if value == 1.0:
        low, high = _unanimous(labels, patterns, level), 1.0
    else:
        low, high = _bootstrap(patterns, level, draws, seed)
    return Estimate(value=value, low=low, high=high, n=count, clusters=items, level=level)


@dataclass(frozen=True, slots=True)
class _Patterns:
    """Items by what was said of them: items with the same labels have the same coincidences."""

    counts: npt.NDArray[np.int64]
    """`[patterns]`: how many items."""
    coincidences: Floats
    """`[patterns, categories, categories]`, of one item each."""

    @property
    def total(self) -> Floats:
        """`[categories, categories]`, over all items."""
        return np.tensordot(self.counts.astype(np.float64), self.coincidences, axes=1)


def _patterns(labels: Labels) -> _Patterns:
    categories = {
        label: index for index, label in enumerate(dict.fromkeys(x for said in labels for x in said))
    }
    tallies: Counter[tuple[int, ...]] = Counter()
    for said in labels:
        if len(said) > 1:
            tally = [0] * len(categories)
            for label in said:
                tally[categories[label]] += 1
            tallies[tuple(tally)] += 1
    size = len(categories)
    coincidences = np.zeros((len(tallies), size, size))
    for row, tally_of_item in enumerate(tallies):
        said_of = np.asarray(tally_of_item, np.float64)
        coincidences[row] = (np.outer(said_of, said_of) - np.diag(said_of)) / (said_of.sum() - 1.0)
    return _Patterns(np.asarray(list(tallies.values()), np.int64), coincidences)


def _alphas(coincidences: Floats) -> Floats:
    """α of each of `[n, categories, categories]`; nan where it is undefined."""
    said = coincidences.sum(axis=2)
    total = said.sum(axis=1)
    observed = total - np.trace(coincidences, axis1=1, axis2=2)
    expected = total**2 - (said**2).sum(axis=1)
    alphas = np.full(len(coincidences), np.nan)
    defined = expected > 1e-9
    alphas[defined] = 1.0 - (total[defined] - 1.0) * observed[defined] / expected[defined]
    # Coincidences are sums of thirds and quarters: where all agree, no rounding may hide it.
    alphas[defined & (observed < 1e-9)] = 1.0
    return alphas


def _bootstrap(patterns: _Patterns, level: float, draws: int, seed: int) -> tuple[float, float]:
    items = int(patterns.counts.sum())
    weights = np.random.default_rng(seed).multinomial(items, patterns.counts / items, size=draws)
    alphas = _alphas(np.tensordot(weights.astype(np.float64), patterns.coincidences, axes=1))
    tail = 100.0 * (1.0 - level) / 2.0
    low, high = np.nanpercentile(alphas, [tail, 100.0 - tail])
    return float(low), float(high)


def _unanimous(labels: Labels, patterns: _Patterns, level: float) -> float:
    agreement = percent_agreement(labels, level=level)
    assert agreement is not None
    assert agreement.low is not None
    said = patterns.total.sum(axis=1)
    total = float(said.sum())
    expected = (total**2 - float((said**2).sum())) / (total * (total - 1.0))
    return max(-1.0, 1.0 - (1.0 - agreement.low) / expected)
