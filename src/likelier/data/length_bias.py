"""How often the longer answer is the chosen one, counted row by row in flat memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LengthBias:
    """How often the longer answer is the chosen one, over the pairs of answers of different lengths."""

    longer: int
    """Pairs whose chosen answer is the longer one."""
    shorter: int
    equal: int
    independent: float | None = field(default=None, compare=False)
    """How many independent pairs would say as much: fewer than `n` where rows hold several. None for `n`."""

    @property
    def n(self) -> int:
        """Pairs that have a longer answer."""
        return self.longer + self.shorter


@dataclass(slots=True)
class Longer:
    """Sums over rows, enough for the variance of a share whose pairs are alike within a row.

    With s of a row's n pairs won by the longer answer and p over all, it is Σ (s − p n)² / (Σ n)².
    """

    order: Counter[int] = field(default_factory=Counter)
    won_won: int = 0
    won_pairs: int = 0
    pairs_pairs: int = 0

    def add(self, row: Counter[int]) -> None:
        """A row's pairs: how many had the longer answer chosen (1), the shorter (-1), or neither (0)."""
        self.order.update(row)
        won, pairs = row[1], row[1] + row[-1]
        self.won_won += won * won
        self.won_pairs += won * pairs
        self.pairs_pairs += pairs * pairs

    def bias(self) -> LengthBias:
        """What the sums say."""
        won, total = self.order[1], self.order[1] + self.order[-1]
        share = won / total if total else 0.0
        squares = self.won_won - 2 * share * self.won_pairs + share * share * self.pairs_pairs
        # At a share of 0 or 1 the rows do not differ: count each row's pairs as one.
        unlike = share * (1 - share) * total**2 / squares if squares > 1e-9 else None
        alike = total**2 / self.pairs_pairs if self.pairs_pairs else 0.0
        independent = min(total, alike if unlike is None else unlike)
        return LengthBias(won, self.order[-1], self.order[0], independent)
