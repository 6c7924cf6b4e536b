"""Rewards with mean 0 over the data, though the head of a sequence classifier has no bias: math.md (3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

MOST_SPREAD = 0.05
"""Standard deviations of the reward that centring may add; beyond, the reward is left as it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Centring:
    """What is taken from a head so that its values have mean 0, and what that costs."""

    shift: Tensor
    """`[D]` float64: subtract it from the head's weight."""
    mean: float
    """Of the values before."""
    deviation: float
    """Their standard deviation."""
    spread: float
    """Standard deviation of what is subtracted, on states that it was not fitted to, as a share of `deviation`.
    Subtracting a constant would have none."""
    answers: int

    @property
    def allowed(self) -> bool:
        """Whether it adds too little spread to matter."""
        return self.spread <= MOST_SPREAD


def centring(states: Float[Tensor, "answers width"], weight: Float[Tensor, " width"]) -> Centring:
    """The shift `mean · a` with `a = Σ⁻¹μ / (μᵀΣ⁻¹μ)`: of all directions with `a·μ = 1` that of least spread.

    μ and Σ are the mean and covariance of the final hidden states; Σ with a ridge `tr Σ / n`, the size of its own
    error. The spread is measured on either half of the answers by the shift that the other half gives.

    Args:
        states: final hidden states at the answers' ends; at least two answers.
        weight: of the head.

    >>> noise = torch.Generator().manual_seed(0)
    >>> states = torch.randn(400, 8, generator=noise, dtype=torch.float64) + 3
    >>> weight = torch.randn(8, generator=noise, dtype=torch.float64)
    >>> found = centring(states, weight)
    >>> round(abs((states @ (weight - found.shift)).mean().item()), 12), found.answers
    (0.0, 400)
    """
    states, weight = states.double(), weight.double()
    values = states @ weight
    mean, deviation = float(values.mean()), float(values.std(correction=0))
    halves = states[0::2], states[1::2]
    variances = [
        float((there @ _unit(here)).var(correction=0)) for here, there in (halves, halves[::-1]) if len(there)
    ]
    added = abs(mean) * (sum(variances) / len(variances)) ** 0.5
    spread = added / deviation if deviation > 0 else (0.0 if mean == 0 else float("inf"))
    return Centring(mean * _unit(states), mean, deviation, spread, len(states))


def _unit(states: Tensor) -> Tensor:
    """The direction `a` of least spread on which the mean state is 1."""
    mean = states.mean(0)
    away = states - mean
    covariance = away.T @ away / len(states)
    ridge = covariance.diagonal().sum() / len(states)
    covariance.diagonal().add_(ridge.clamp(min=torch.finfo(torch.float64).tiny))
    solved = torch.linalg.solve(covariance, mean)
    direction: Tensor = solved / (mean @ solved)
    return direction
