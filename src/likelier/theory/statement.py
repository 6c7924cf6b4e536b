"""A statement of math.md, and by how much a computation misses it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from likelier.theory.world import World

IDENTITY = 1e-10
"""What an identity in float64 may miss, relative to max(1, |r|/β): see `scale`."""


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One statement, checked by computing.

    >>> Statement(name="Z = 1", equation="(12)", error=3e-16, bound=IDENTITY).holds
    True
    >>> Statement(name="Z = 1", equation="(12)", error=float("nan"), bound=IDENTITY).holds
    False
    """

    name: str
    """The statement in words."""
    equation: str
    """Where it stands: its number, lemma or theorem in math.md."""
    error: float
    """What was measured: how far the two sides lie apart, or how far an inequality is violated (at least 0)."""
    bound: float
    """The largest error at which it still holds."""
    note: str = ""
    """What else is worth knowing: figures, the world it was computed in."""

    @property
    def holds(self) -> bool:
        """Whether the error is within the bound; an error that is not a number is not."""
        return self.error <= self.bound


def largest(errors: Iterable[float]) -> float:
    """The largest error; NaN where one of them is: Python's `max` may pass over it, and the statement would hold.

    >>> max([1.0, float("nan")]), largest([1.0, float("nan")]), largest([1.0, float("inf")])
    (1.0, nan, inf)
    """
    found = list(errors)
    return math.nan if any(map(math.isnan, found)) else max(found)


def largest_gap(found: Tensor, expected: Tensor) -> float:
    """`max |found − expected|`; equal infinities are equal, and a NaN is one.

    >>> import torch
    >>> minus = torch.tensor([-torch.inf, 1.0])
    >>> largest_gap(minus, minus), largest_gap(minus, torch.tensor([torch.nan, 1.0]))
    (0.0, nan)
    """
    gap = (found - expected).abs()
    return float(gap.masked_fill(found == expected, 0.0).max()) if gap.numel() else 0.0


def scale(world: World, beta: float) -> float:
    """`max(1, |r|/β)`, the largest over the world: what the error of an identity is relative to.

    A logit is r/β, and rounding it costs so many times the last bit of 1.
    """
    return max(1.0, float(world.reward[world.exists].abs().max()) / beta)
