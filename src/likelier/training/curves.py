"""Curves of a run, and what can be said of them in spite of their noise."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any

LEAST_WINDOW = 8
MOST_WINDOW = 100
NOISE = 5.0
"""Standard errors that a change of means must exceed."""


class Curves:
    """Every figure's values so far, in order, with the step of each."""

    def __init__(self) -> None:
        self._values: defaultdict[str, list[float]] = defaultdict(list)
        self._steps: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Takes the numbers of a line; what is None or no number is left out."""
        for name, value in metrics.items():
            if isinstance(value, int | float) and value == value:
                self._values[name].append(float(value))
                self._steps[name].append(float(metrics.get("step") or 0))

    def __getitem__(self, name: str) -> Sequence[float]:
        return self._values.get(name, ())

    def before(self, name: str, step: float) -> Sequence[float]:
        """The values up to and including `step`."""
        return self[name][: sum(own <= step for own in self._steps.get(name, ()))]

    def steps(self, name: str) -> Sequence[float]:
        """The step of each value."""
        return self._steps.get(name, ())


@dataclass(frozen=True, slots=True)
class Sign:
    """Something to say. A higher `level` of the same `kind` is a materially worse case of it."""

    kind: str
    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Change:
    """How far a curve's last window lies from its start."""

    start: float
    now: float
    by: float
    noise: float
    """The standard error of `by`."""
    certain: bool
    """In the last two windows alike, outside the noise."""


def change(values: Sequence[float], *, start: float | None = None) -> Change | None:
    """The change of a noisy curve; None while it is short. A known `start` has no noise of its own.

    >>> change([0.0, 1.0] * 20).certain, change([0.0] * 30 + [5.0]).certain, change(list(range(40))).certain
    (False, False, True)
    """
    size = min(MOST_WINDOW, max(LEAST_WINDOW, len(values) // 8))
    if len(values) < size * (2 if start is not None else 3):
        return None
    first, windows = values[:size], (values[-2 * size : -size], values[-size:])
    level = fmean(first) if start is None else start
    before, now = (fmean(window) - level for window in windows)
    noises = [_noise(window) + (_noise(first) if start is None else 0.0) for window in windows]
    same_way = before * now > 0
    certain = same_way and abs(before) > NOISE * noises[0] and abs(now) > NOISE * noises[1]
    return Change(level, level + now, now, noises[1], certain)


def _noise(window: Sequence[float]) -> float:
    """The standard error of a window's mean, from the jumps between neighbours: a slope is no noise."""
    jumps = [after - before for before, after in pairwise(window)]
    return stdev(jumps) / (2 * len(window)) ** 0.5 if len(jumps) > 1 else float("inf")


def twice(
    values: Sequence[float],
    measure: Callable[[float, float], float],
    *,
    above: float | None = None,
    below: float | None = None,
) -> float | None:
    """The milder of a curve's last two changes against its first value, if both pass the bound."""
    if len(values) < 3:
        return None
    last = [measure(value, values[0]) for value in values[-2:]]
    if above is not None:
        return min(last) if min(last) > above else None
    return max(last) if below is not None and max(last) < below else None
