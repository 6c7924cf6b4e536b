"""A win rate at equal lengths: how often an answer is preferred, less what its length alone explains.

The logistic correction of AlpacaEval 2 (Dubois et al., arXiv 2404.04475), without its term for how hard a prompt is,
which needs other models' results on the same prompts.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from likelier.stats.intervals import Estimate, checked_weights, cluster_sums, kish_size, t_quantile

Floats = npt.NDArray[np.float64]
_ROUNDS = 200
_ENOUGH = 1e-10


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthControl:
    """What a fit of wins on lengths says."""

    win_rate: Estimate | None
    """At equal lengths, `σ(θ)`; None where lengths never vary, so that nothing tells length from worth."""
    effect: Estimate | None
    """φ: what the longer answer gains, in log-odds, as the difference grows large; None where it is unknown."""
    scale: float
    """s: the root mean square of the length differences."""


def control_length(
    outcomes: npt.ArrayLike,
    length_differences: npt.ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    weights: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> LengthControl:
    """Fits `P(first wins) = σ(θ + φ tanh(Δ / s))` to all rows, and gives `σ(θ)`: the win rate at Δ = 0.

    A tie is half a win and half a loss. Nothing is held out: both coefficients are fitted to every row, by maximum
    likelihood under Jeffreys' prior (Firth, Biometrika 1993), which is finite where all are wins and has no strength
    to be chosen; AlpacaEval chooses one by cross-validation. The interval is the sandwich's, clustered, on the scale of
    log-odds, and never narrower than that of independent rows without ties. Swapping both sides gives one less
    the win rate; lengths that are all equal give the plain one. Weighted rows count together as many as Kish says,
    `(Σ w)² / Σ w²`.

    Args:
        outcomes: `[n]`, 1 where the first answer wins, 0 where the second does, one half for a tie.
        length_differences: `[n]`, first less second, in any unit.
        clusters: `[n]`, what rows share, such as a prompt's id.
        weights: `[n]`, how much each row counts against the others, above 0; all alike unless given.
        level: the coverage.

    Raises:
        ValueError: no rows, outcomes outside [0, 1], lengths that differ, or weights that are not above 0.

    >>> wins, longer = [1, 1, 1, 0, 1, 0, 0, 0, 1, 0] * 5, [9, 8, 7, 6, 5, -5, -6, -7, -8, -9] * 5
    >>> found = control_length(wins, longer)
    >>> round(found.win_rate.value, 3), round(found.effect.value, 2)
    (0.5, 1.75)
    """
    wins, gaps = np.asarray(outcomes, np.float64), np.asarray(length_differences, np.float64)
    if wins.ndim != 1 or not wins.size or wins.shape != gaps.shape or not np.isfinite(gaps).all():
        raise ValueError(f"{wins.shape} outcomes with {gaps.shape} length differences")
    if not ((wins >= 0.0) & (wins <= 1.0)).all():
        raise ValueError("an outcome lies between 0 and 1")
    counted = checked_weights(weights, wins.size)
    counted = counted * (kish_size(counted) / counted.sum())
    scale = float(np.sqrt((counted * np.square(gaps)).sum() / counted.sum()))
    if scale == 0.0:
        intercept = _fit(np.ones((wins.size, 1)), wins, counted)
        return LengthControl(win_rate=_rate(wins, intercept, clusters, level)[0], effect=None, scale=0.0)
    curved = np.tanh(gaps / scale)
    if np.ptp(curved) == 0.0:
        return LengthControl(win_rate=None, effect=None, scale=scale)
    design = np.column_stack([np.ones(wins.size), curved])
    rate, effect = _rate(wins, _fit(design, wins, counted), clusters, level)
    return LengthControl(win_rate=rate, effect=effect, scale=scale)


@dataclass(frozen=True, slots=True)
class _Fitted:
    """Coefficients `[k]`, and what their errors follow from."""

    design: Floats
    """`[n, k]`."""
    coefficients: Floats
    inverse: Floats
    """`(Xᵀ W X)⁻¹`, `[k, k]`."""
    expected: Floats
    """`[n]`: the probabilities fitted."""
    counted: Floats
    """`[n]`: how much each row counts."""


def _fit(design: Floats, wins: Floats, counted: Floats) -> _Fitted:
    """Newton's steps on the score under Jeffreys' prior, `Xᵀ (c (y − p) + h (1/2 − p))`: counts c, leverages h."""
    at = _at(design, np.zeros(design.shape[1]), counted)
    for _ in range(_ROUNDS):
        weights = counted * at.expected * (1.0 - at.expected)
        leverage = weights * np.einsum("ij,jk,ik->i", design, at.inverse, design)
        score = design.T @ (counted * (wins - at.expected) + leverage * (0.5 - at.expected))
        step = at.inverse @ score
        # Far from the optimum the information is tiny and a whole step leads further away.
        step *= min(1.0, 1.0 / max(float(np.abs(step).max()), 1e-300))
        at = _at(design, at.coefficients + step, counted)
        if np.abs(step).max() < _ENOUGH:
            break
    return at


def _at(design: Floats, coefficients: Floats, counted: Floats) -> _Fitted:
    expected = special.expit(design @ coefficients)
    information = (design * (counted * expected * (1.0 - expected))[:, None]).T @ design
    inverse = np.asarray(np.linalg.inv(information), np.float64)
    return _Fitted(design, coefficients, inverse, expected, counted)


def _rate(
    wins: Floats, fitted: _Fitted, clusters: Sequence[Hashable] | None, level: float
) -> tuple[Estimate, Estimate | None]:
    """`σ(θ)` and φ with their intervals."""
    sums = cluster_sums(fitted.design * (fitted.counted * (wins - fitted.expected))[:, None], clusters)
    count, size = sums.shape
    rows = {"n": wins.size, "clusters": count, "level": level}
    values = fitted.coefficients
    if count <= size:
        found = [Estimate(value=float(value), **rows) for value in values]
    else:
        sandwich = fitted.inverse @ (count / (count - 1) * sums.T @ sums) @ fitted.inverse
        errors = np.sqrt(np.maximum(np.diag(sandwich), np.diag(fitted.inverse)))
        halves = t_quantile(level, count - size) * errors
        found = [
            Estimate(value=float(value), low=float(value - half), high=float(value + half), **rows)
            for value, half in zip(values, halves, strict=True)
        ]
    theta = found[0]
    low, high = (None if end is None else float(special.expit(end)) for end in (theta.low, theta.high))
    rate = Estimate(value=float(special.expit(theta.value)), low=low, high=high, **rows)
    return rate, found[1] if size > 1 else None
