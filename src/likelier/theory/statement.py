"""A statement of math.md, and by how much a computation misses it."""

from __future__ import annotations

from dataclasses import dataclass

IDENTITY = 1e-10
"""What an identity in float64 may miss, relative to max(1, |r|/β)."""


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
