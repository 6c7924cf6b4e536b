"""The rewards that explain choices best: maximum likelihood, math.md (3), and whether it has a finite answer.

It has one only where comparisons bind all items together: whichever way the items are parted in two, some item of
either part must have been ranked above one of the other (Ford 1957 for pairs, Hunter 2004 for rankings). Labels that
are always the same break that, and rewards run away to infinity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from likelier.objectives.preferences import plackett_luce_log_probability
from likelier.theory.minimise import minimise
from likelier.theory.shapes import Items, Number, Wins

Ranking = Sequence[int]
"""Items by their number, best first; those that are left out were not compared."""


class NoFiniteFitError(ValueError):
    """Comparisons that no finite rewards explain best; the message names the items."""


def fit_bradley_terry(wins: Wins, *, names: Sequence[str] | None = None, prompt: str | None = None) -> Items:
    """Rewards of mean 0 that maximise `Σ_ij wins_ij log σ(r_i − r_j)`: math.md (1), the paper's equation 2.

    Args:
        wins: `[items, items]`, how often (or with which weight, at least 0) row i was preferred to column j.
        names: what the items are called in an error.
        prompt: and the prompt.

    Raises:
        NoFiniteFitError: the comparisons do not bind all items together.
        ValueError: a weight that is negative or not finite.

    >>> wins = torch.tensor([[0.0, 1.0], [4.0, 0.0]], dtype=torch.float64)
    >>> fit_bradley_terry(wins).diff().exp().round(decimals=12).item()  # odds 4 : 1
    4.0
    """
    items = len(wins)
    pairs = [(first, second) for first in range(items) for second in range(items) if first != second]
    weights = [float(wins[pair]) for pair in pairs]
    return fit_plackett_luce(pairs, weights=weights, items=items, names=names, prompt=prompt)


def fit_plackett_luce(
    found: Sequence[Ranking],
    *,
    weights: Sequence[float] | None = None,
    items: int,
    names: Sequence[str] | None = None,
    prompt: str | None = None,
) -> Items:
    """Rewards of mean 0 that maximise `Σ_n w_n log p(τ_n)`: math.md (2), by Newton's method with a line search.

    Args:
        found: rankings of some or all of the items, best first.
        weights: of each ranking, at least 0; 1 where left out.
        items: how many there are.
        names: what they are called in an error.
        prompt: and the prompt.

    Returns:
        `[items]`, float64.

    Raises:
        NoFiniteFitError: the rankings do not bind all items together.
        ValueError: a weight that is negative or not finite.

    >>> fitted = fit_plackett_luce([[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]], items=3)
    >>> [round(reward, 6) for reward in fitted.tolist()]
    [-0.391453, 0.782906, -0.391453]
    """
    counted = _valid(weights, len(found))
    used = [(ranking, weight) for ranking, weight in zip(found, counted, strict=True) if weight > 0]
    require_finite_fit([ranking for ranking, _ in used], items=items, names=names, prompt=prompt)
    return _fitted(used, items, ridge=0.0)


def penalised_fit(
    found: Sequence[Ranking], *, items: int, ridge: float, weights: Sequence[float] | None = None
) -> Items:
    """The fit with `½ ridge |r|²` added to the negative log-likelihood: finite for every ranking.

    Where no finite fit exists its gaps grow without bound as `ridge` goes to 0.

    Raises:
        ValueError: a ridge that is not positive, a weight that is negative or not finite.

    >>> gaps = [penalised_fit([[0, 1]], items=2, ridge=10.0**-k).diff().item() for k in (1, 3, 5)]
    >>> [round(-gap, 2) for gap in gaps]  # one label that is always the same
    [2.13, 5.83, 9.91]
    """
    if not ridge > 0.0:
        raise ValueError(f"a ridge is positive, not {ridge}")
    counted = _valid(weights, len(found))
    return _fitted(list(zip(found, counted, strict=True)), items, ridge=ridge)


def require_finite_fit(
    found: Sequence[Ranking], *, items: int, names: Sequence[str] | None = None, prompt: str | None = None
) -> None:
    """The condition for a finite fit: the graph with an edge from each item to all below it is strongly connected.

    Raises:
        NoFiniteFitError: it is not; the message names the items and the prompt.

    >>> require_finite_fit([[0, 1], [1, 2], [2, 0]], items=3)
    >>> require_finite_fit([[0, 1], [0, 2], [1, 2], [2, 1]], items=3, names="abc")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    likelier.theory.fits.NoFiniteFitError: `a` was never ranked below the rest: its reward grows without ...
    """
    called = [f"`{name}`" for name in (names or [f"item {index + 1}" for index in range(items)])]
    beats = _graph(found, items)
    count, part = connected_components(beats, directed=True, connection="strong")
    if count <= 1:
        return
    where = "" if prompt is None else f"prompt `{prompt}`: "
    above = np.zeros((count, count), dtype=bool)
    rows, columns = beats.nonzero()
    above[part[rows], part[columns]] = True
    np.fill_diagonal(above, False)
    # The smallest part that nothing outside was ever preferred to.
    top = min(np.flatnonzero(~above.any(axis=0)), key=lambda index: int((part == index).sum()))
    group = ", ".join(called[index] for index in np.flatnonzero(part == top))
    raise NoFiniteFitError(
        where + _why(group, alone=not bool(above[top].any()), one=int((part == top).sum()) == 1)
    )


def _why(group: str, *, alone: bool, one: bool) -> str:
    was, its, grow = ("was", "its reward", "grows") if one else ("were", "their rewards", "grow")
    if alone:
        return f"{group} {was} never compared with the rest: {its} can be anything; compare them"
    return (
        f"{group} {was} never ranked below the rest: {its} {grow} without bound;"
        " add comparisons that go the other way, or penalise rewards"
    )


def _graph(found: Sequence[Ranking], items: int) -> csr_array:
    edges = {(a, b) for ranking in found for k, a in enumerate(ranking) for b in ranking[k + 1 :]}
    rows, columns = [a for a, _ in edges], [b for _, b in edges]
    return csr_array((np.ones(len(edges)), (rows, columns)), shape=(items, items))


def _fitted(found: Sequence[tuple[Ranking, float]], items: int, *, ridge: float) -> Items:
    """The minimum, in the gauge Σ r = 0, which a ridge chooses by itself."""
    start = torch.zeros(items, dtype=torch.float64)
    if items == 1:
        return start
    ranks = torch.full((len(found), items), items)
    for row, (ranking, _) in enumerate(found):
        ranks[row, list(ranking)] = torch.arange(len(ranking))
    mask = ranks < items
    weights = torch.tensor([weight for _, weight in found], dtype=torch.float64)
    weights, ridge = weights / weights.sum(), ridge / float(weights.sum())

    def loss(rewards: Items) -> Number:
        each = plackett_luce_log_probability(rewards.expand(len(found), items), mask=mask, ranks=ranks)
        return 0.5 * ridge * rewards.square().sum() - (weights * each).sum()

    lowest = minimise(loss, start, scale=1.0)
    if not lowest.is_finite:
        raise NoFiniteFitError(
            "the fit lies too far out for float64: comparisons bind some items by next to nothing"
        )
    return lowest.point - lowest.point.mean()


def _valid(weights: Sequence[float] | None, count: int) -> list[float]:
    given = [1.0] * count if weights is None else list(weights)
    for weight in given:
        if not 0.0 <= weight < math.inf:
            raise ValueError(f"weights are finite and at least 0, not {weight}")
    return given
