"""The best that a set of policies reaches at each cost: the upper envelope of their points, and the area under it.

Cost is the KL to the reference, or the compute that training took. Of two policies any mixture can be played (each
answer drawn from one of them by lot): its reward is the mixture of the two, its KL at most that of theirs, since KL is
convex. So an envelope over KL is concave. Compute mixes in no such way, and an envelope over it is a staircase: the
best reward that was reached with so much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from likelier.stats.intervals import Estimate, mean_interval, paired_interval

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
_FOLDS = 10


class _Weight(NamedTuple):
    """A point that an envelope rests on over some length of cost, where it has some slope."""

    point: int
    length: float
    slope: float
    place: float
    """The point's cost, as the envelope was made."""


_Weigh = Callable[[Floats, Floats, float, float], list[_Weight]]
"""`(costs, rewards, from, to)` to weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """What a set of points reaches."""

    corners: tuple[int, ...]
    """The points that the envelope goes through, from the cheapest to the one of the highest reward."""
    area: Estimate
    """Between the envelope and the starting point's reward, from its cost to `to`: reward times cost. The middle of two
    figures, one that is too large on average and one that is too small."""
    to: float
    below: tuple[float, ...]
    """How far each point lies below the envelope at its own cost; 0 for its corners. Less than 0 only where its cost is
    rough."""
    dominated_by: tuple[int | None, ...]
    """A point of no higher cost and no lower reward, and better in one of them; of several that of the most reward."""
    surely: tuple[bool, ...]
    """Whether the intervals of both differences, paired over prompts, allow no doubt about that (KL), or that of the
    reward (compute, which is known)."""


def kl_frontier(
    rewards: npt.ArrayLike,
    costs: npt.ArrayLike,
    *,
    start: int,
    to: float,
    rough: Sequence[int] = (),
    level: float = 0.95,
) -> Frontier:
    """The envelope of points whose reward and KL are means over the same prompts.

    The area is `Σ_is W_is (r_i − λ_s k_i)` over points i and segments s of slope λ_s, and a constant of the slopes,
    with W_is the length of KL over which the envelope rests on the point. To first order its error is that of the means
    r and k alone, so its interval is that of a mean over prompts. But an envelope is too high by the luck of the points
    that it goes through, all the more where many lie close together, as checkpoints do; and too low where its lengths
    and slopes are those of the envelope over nine tenths of the prompts, measured on the tenth. The figure is the
    middle of both. In a crowd of twenty points within one another's noise its interval still covers 92 % for 95.

    Args:
        rewards, costs: `[points, prompts]`, means over each prompt's answers.
        start: the point from which training started, of the lowest KL.
        to: the KL up to which the area counts.
        rough: points whose KL is known only roughly: no envelope rests on them, and they dominate nothing.
        level: the coverage.

    Raises:
        ValueError: the starting point is rough; tables of different shapes, or not finite; nothing between the start's
            KL and `to`.

    >>> rewards, costs = [[0, 0], [1, 3], [0, 2], [2, 4]], [[0, 0], [1, 1], [2, 2], [4, 4]]
    >>> found = kl_frontier(rewards, costs, start=0, to=5.0)
    >>> found.corners, found.area.value, found.below, found.dominated_by
    ((0, 1, 3), 11.5, (0.0, 0.0, 1.3333333333333335, 0.0), (None, None, 1, None))
    """
    reward_rows, cost_rows = _tables(rewards, costs)
    means, places = reward_rows.mean(axis=1), cost_rows.mean(axis=1)
    firm = [point for point in range(len(means)) if point not in rough]
    if start not in firm:
        raise ValueError("an envelope starts at a point whose KL is known")
    corners = [firm[corner] for corner in _hull(places[firm], means[firm])]
    area = _area(reward_rows[firm], cost_rows[firm], _concave_weights, firm.index(start), to, level)
    found = dict(zip(range(len(means)), _dominators(means, places, among=firm), strict=True))
    return Frontier(
        corners=tuple(corners),
        area=area,
        to=to,
        below=tuple((_height(places, means, corners, places) - means).tolist()),
        dominated_by=tuple(found.values()),
        surely=tuple(
            other is not None
            and _above(reward_rows[one], reward_rows[other], level)
            and _above(cost_rows[other], cost_rows[one], level)
            for one, other in found.items()
        ),
    )


def compute_frontier(
    rewards: npt.ArrayLike, compute: npt.ArrayLike, *, start: int, to: float, level: float = 0.95
) -> Frontier:
    """The same against compute, `[points]`, which is known: a staircase.

    >>> found = compute_frontier([[0, 0], [1, 3], [0, 2], [2, 4]], [0, 1, 2, 4], start=0, to=5.0)
    >>> found.corners, found.area.value, found.below, found.dominated_by
    ((0, 1, 3), 9.0, (0.0, 0.0, 1.0, 0.0), (None, None, 1, None))
    """
    places = np.asarray(compute, np.float64)
    reward_rows, cost_rows = _tables(rewards, np.broadcast_to(places[:, None], np.shape(rewards)))
    means = reward_rows.mean(axis=1)
    corners = _stairs(places, means)
    area = _area(reward_rows, cost_rows, _stair_weights, start, to, level)
    found = _dominators(means, places)
    steps = np.searchsorted(places[corners], places, side="right") - 1
    return Frontier(
        corners=tuple(corners),
        area=area,
        to=to,
        below=tuple((means[np.asarray(corners)[steps]] - means).tolist()),
        dominated_by=tuple(found),
        surely=tuple(
            other is not None and _above(reward_rows[one], reward_rows[other], level)
            for one, other in enumerate(found)
        ),
    )


def area_shares(rewards: npt.ArrayLike, costs: npt.ArrayLike, *, to: float) -> Floats:
    """What each prompt adds to the area of `kl_frontier`, `[prompts]`; the first point is where training started.

    The area is their mean, and that of the difference of two sets of points, measured on the same prompts, is the mean
    of the differences: an interval paired over prompts follows.

    Raises:
        ValueError: as `kl_frontier` does.

    >>> float(area_shares([[0, 0], [1, 3], [0, 2], [2, 4]], [[0, 0], [1, 1], [2, 2], [4, 4]], to=5.0).mean())
    11.5
    """
    return _shares(*_tables(rewards, costs), _concave_weights, 0, to)


def _tables(rewards: npt.ArrayLike, costs: npt.ArrayLike) -> tuple[Floats, Floats]:
    reward_rows, cost_rows = np.asarray(rewards, np.float64), np.asarray(costs, np.float64)
    if reward_rows.ndim != 2 or reward_rows.shape != cost_rows.shape or 0 in reward_rows.shape:
        raise ValueError(f"rewards {reward_rows.shape} and costs {cost_rows.shape} of points and prompts")
    if not (np.isfinite(reward_rows).all() and np.isfinite(cost_rows).all()):
        raise ValueError("rewards and costs must be finite")
    return reward_rows, cost_rows


def _order(places: Floats, means: Floats) -> list[int]:
    """By cost, at one cost the highest reward first."""
    return sorted(range(len(means)), key=lambda point: (places[point], -means[point]))


def _stairs(places: Floats, means: Floats) -> list[int]:
    """The points that are better than all that cost no more."""
    corners: list[int] = []
    for point in _order(places, means):
        if not corners or means[point] > means[corners[-1]]:
            corners.append(point)
    return corners


def _hull(places: Floats, means: Floats) -> list[int]:
    """The corners of the least concave, never falling function above all points."""
    corners: list[int] = []
    for point in _stairs(places, means):
        while len(corners) > 1 and _turns_up(places, means, corners[-2], corners[-1], point):
            corners.pop()
        corners.append(point)
    return corners


def _turns_up(places: Floats, means: Floats, first: int, middle: int, last: int) -> bool:
    """Whether the middle point lies on or below the line between the others."""
    rise = (means[last] - means[first]) * (places[middle] - places[first])
    return bool((means[middle] - means[first]) * (places[last] - places[first]) <= rise)


def _height(places: Floats, means: Floats, corners: list[int], at: Floats) -> Floats:
    """The concave envelope at these costs, flat after its last corner."""
    found: Floats = np.interp(at, places[corners], means[corners])
    return found


def _concave_weights(places: Floats, means: Floats, start: float, to: float) -> list[_Weight]:
    corners = _hull(places, means)
    weights = []
    for first, last in pairwise(corners):
        left, right = float(places[first]), float(places[last])
        low, high = max(left, start), min(right, to)
        if high <= low:
            continue
        slope = float(means[last] - means[first]) / (right - left)
        on_last = ((high - left) ** 2 - (low - left) ** 2) / (2.0 * (right - left))
        on_first = high - low - on_last
        # A mixture's reward is measured at its own KL, which is not quite the one that it was meant for.
        weights.append(_Weight(first, on_first, slope, left))
        weights.append(_Weight(last, on_last, slope, right))
    rest = to - max(float(places[corners[-1]]), start)
    return [*weights, _Weight(corners[-1], rest, 0.0, 0.0)] if rest > 0.0 else weights


def _stair_weights(places: Floats, means: Floats, start: float, to: float) -> list[_Weight]:
    corners = _stairs(places, means)
    ends = [*(float(places[corner]) for corner in corners[1:]), max(to, float(places[corners[-1]]))]
    lengths = [
        max(0.0, min(end, to) - max(float(places[corner]), start))
        for corner, end in zip(corners, ends, strict=True)
    ]
    return [_Weight(corner, length, 0.0, 0.0) for corner, length in zip(corners, lengths, strict=True)]


def _area(rewards: Floats, costs: Floats, weigh: _Weigh, start: int, to: float, level: float) -> Estimate:
    return mean_interval(_shares(rewards, costs, weigh, start, to), level=level)


def _shares(rewards: Floats, costs: Floats, weigh: _Weigh, start: int, to: float) -> Floats:
    """What each prompt adds: half by the envelope of all, half by one that it has no part in."""
    origin, prompts = float(costs[start].mean()), rewards.shape[1]
    if not to > origin:
        raise ValueError(f"an area from {origin} to {to} is none")
    everyone = np.ones(prompts, np.bool_)
    added = _added(rewards, costs, weigh, start, (origin, to), of=everyone, by=everyone)
    if prompts > 1:
        for fold in range(min(_FOLDS, prompts)):
            here = np.arange(prompts) % _FOLDS == fold
            apart = _added(rewards, costs, weigh, start, (origin, to), of=here, by=~here)
            added[here] = (added[here] + apart) / 2.0
    return added


def _added(
    rewards: Floats,
    costs: Floats,
    weigh: _Weigh,
    start: int,
    span: tuple[float, float],
    *,
    of: Mask,
    by: Mask,
) -> Floats:
    """What the prompts `of` add to the area, by the envelope over the prompts `by`."""
    added = -(span[1] - span[0]) * rewards[start, of]
    for weight in weigh(costs[:, by].mean(axis=1), rewards[:, by].mean(axis=1), *span):
        beyond = costs[weight.point, of] - weight.place
        added = added + weight.length * (rewards[weight.point, of] - weight.slope * beyond)
    return np.asarray(added)


def _dominators(means: Floats, places: Floats, *, among: Sequence[int] | None = None) -> list[int | None]:
    """By which of the points `among`, by default of all, each is dominated."""
    eligible = np.isin(np.arange(len(means)), range(len(means)) if among is None else among)
    found: list[int | None] = []
    for reward, cost in zip(means, places, strict=True):
        better = eligible & (places <= cost) & (means >= reward) & ((places < cost) | (means > reward))
        found.append(int(np.flatnonzero(better)[means[better].argmax()]) if better.any() else None)
    return found


def _above(less: Floats, more: Floats, level: float) -> bool:
    """Whether the second is surely larger on average."""
    low = paired_interval(less, more, level=level).low
    return low is not None and low > 0.0
