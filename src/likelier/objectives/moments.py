"""Mean and deviation of all that was seen so far, number by number merged in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_LEAST_DEVIATION = 1e-8


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and sum of squared deviations; Chan, Golub and LeVeque 1979."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    def including(self, values: Sequence[float]) -> Moments:
        """Those of all values before and `values`.

        >>> Moments().including([1.0, 2.0]).including([6.0])
        Moments(count=3.0, mean=3.0, squares=14.0)
        """
        if not values:
            return self
        mean = sum(values) / len(values)
        squares = sum((value - mean) ** 2 for value in values)
        count = self.count + len(values)
        apart = mean - self.mean
        return Moments(
            count,
            self.mean + apart * len(values) / count,
            self.squares + squares + apart**2 * self.count * len(values) / count,
        )

    @property
    def deviation(self) -> float:
        """The standard deviation, over n.

        >>> Moments().including([1.0, 3.0]).deviation
        1.0
        """
        return (self.squares / self.count) ** 0.5 if self.count else 0.0

    def normalized(self, value: float) -> float:
        """`(value − mean) / deviation`; 0 while all that was seen is equal.

        >>> Moments().including([1.0, 3.0]).normalized(5.0)
        3.0
        """
        return (value - self.mean) / self.deviation if self.deviation > _LEAST_DEVIATION else 0.0
