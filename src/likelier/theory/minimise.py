"""The minimum of a smooth function of a few numbers, to the last bits, or the word that there is none.

Newton's method in a trust region whose subproblem is solved by eigenvalues, so that neither a saddle nor a direction
without curvature stops it. Where the loss has kinks (a hinge), sampled gradients take over: `kinks.py`.

A loss may have no minimum: its infimum is then at infinity, and the gradient vanishes on the way there. The two are
told apart by how it vanishes: near a minimum Newton's step squares the error, on the way to infinity it divides the
gradient by e (an exponential tail) or less. Where the minimum is so far out that its curvature is some 1e-11 of the
largest, float64 cannot tell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from likelier.theory.kinks import stationary_point
from likelier.theory.shapes import Number, Vector

Function = Callable[[Vector], Number]
Outcome = Literal["minimum", "kink", "unattained", "unbounded", "undecided"]

_NOISE = 1e-14
"""Rounding, as a share of gradients before they cancel, of the largest curvature, of numbers that are subtracted."""
_SMALL = 100.0
"""A gradient of so many times the rounding is looked at: does it vanish at a minimum, or on the way to infinity?"""
_SQUARED = 10.0
"""Newton's last step divides the gradient by more than this at a minimum; by e on an exponential tail."""


@dataclass(frozen=True, kw_only=True)
class Minimum:
    """Where a descent ended."""

    point: Vector
    value: float
    gradient_norm: float
    """Of the gradient, or at a kink of the shortest vector in the hull of the gradients around it."""
    outcome: Outcome
    """minimum; kink: a minimum where the function has no gradient; unattained: the infimum is finite, and lies at
    infinity; unbounded: the function falls without end; undecided: the steps ran out."""
    flat: int
    """Directions without curvature: the minimum is not unique along them, to second order."""
    steps: int

    @property
    def is_finite(self) -> bool:
        """Whether there is a minimum, and `point` is one."""
        return self.outcome in ("minimum", "kink")


class _Sizes(NamedTuple):
    """What rounding is measured against."""

    gradient: float
    """Gradients before they cancel."""
    numbers: float
    """Those from whose differences the function is computed."""
    curvature: float = 0.0
    """The largest met so far."""

    def seen(self, model: _Model) -> _Sizes:
        """The same, `model` looked at."""
        return self._replace(curvature=max(self.curvature, model.largest))

    def noise(self, model: _Model) -> float:
        """What rounding makes of a gradient of 0: that of its own parts, and of the point, times the curvature."""
        return _NOISE * max(self.gradient, self.numbers * model.largest)


class _Model(NamedTuple):
    """The function to second order around a point."""

    value: float
    gradient: Tensor
    curvatures: Tensor
    directions: Tensor

    @property
    def largest(self) -> float:
        """The largest curvature, up or down; 0 where there is none to speak of."""
        found = float(self.curvatures.abs().max())
        return found if found < float("inf") else 0.0


def minimise(
    function: Function, start: Vector, *, scale: float, size: float = 1.0, reach: float = 1e6, most: int = 400
) -> Minimum:
    """Descend from `start`.

    Args:
        function: twice differentiable but for kinks, of a vector, float64.
        start: the point that the descent begins at.
        scale: the size of its gradients before they cancel, such as the sum of the norms of their parts.
        size: of the numbers from whose differences the function is computed.
        reach: a point farther than this from `start` counts as infinitely far.
        most: steps.

    >>> from torch.nn.functional import softplus
    >>> start = torch.zeros(1, dtype=torch.float64)
    >>> found = minimise(lambda x: 0.8 * softplus(-x).sum() + 0.2 * softplus(x).sum(), start, scale=1.0)
    >>> found.outcome, round(float(found.point.exp()), 12)  # the odds are 0.8 : 0.2
    ('minimum', 4.0)
    >>> minimise(lambda x: softplus(-x).sum(), start, scale=1.0).outcome
    'unattained'
    """
    point, radius = start, 1.0
    model = _model(function, point)
    sizes = _Sizes(scale, size)
    for count in range(most):
        sizes = sizes.seen(model)
        if float(model.gradient.norm()) <= _SMALL * sizes.noise(model):
            return _judged(function, point, model, sizes, count)
        step = _step(model, radius, sizes)
        if float((point - start).norm()) > reach or not torch.isfinite(step).all():
            return _ended(point, model, "unbounded", count)
        taken = _model(function, point + step)
        if _is_better(model, taken, step):
            radius = max(radius, 2.0 * float(step.norm()))
            point, model = point + step, taken
        else:
            radius = float(step.norm()) / 4.0
            if radius <= 1e-12 * max(1.0, float(point.abs().max())):
                return _at_a_kink(function, point, scale, count)
    return _ended(point, model, "undecided", most)


def _model(function: Function, point: Vector) -> _Model:
    value, gradient, hessian = derivatives(function, point)
    if not torch.isfinite(hessian).all():
        return _Model(float("nan"), gradient, gradient, hessian)
    curvatures, directions = torch.linalg.eigh(hessian)
    return _Model(value, gradient, curvatures, directions)


def derivatives(function: Function, point: Vector) -> tuple[float, Tensor, Tensor]:
    """Value, gradient and Hessian at `point`, by backward passes."""
    at = point.detach().requires_grad_(True)
    value = function(at)
    (gradient,) = torch.autograd.grad(value, at, create_graph=True, materialize_grads=True)
    rows = [_second(entry, at) for entry in gradient]
    hessian = torch.stack(rows)
    return float(value.detach()), gradient.detach(), 0.5 * (hessian + hessian.T)


def _second(entry: Tensor, at: Tensor) -> Tensor:
    if not entry.requires_grad:  # linear in the point: no curvature
        return torch.zeros_like(at)
    return torch.autograd.grad(entry, at, retain_graph=True, materialize_grads=True)[0]


def _step(model: _Model, radius: float, sizes: _Sizes) -> Tensor:
    """The lowest point of the model within `radius`, without the directions in which there is nothing but rounding."""
    slopes = model.directions.T @ model.gradient
    bent = model.curvatures.abs() > _NOISE * sizes.curvature
    lively = bent | (slopes.abs() > sizes.noise(model))
    lowest = float(model.curvatures[lively].min()) if bool(lively.any()) else 0.0

    def at(shift: float) -> Tensor:
        return torch.where(lively, -slopes / (model.curvatures + shift), 0.0)

    low = max(0.0, -lowest)
    if lowest > 0.0 and float(at(0.0).norm()) <= radius:
        return model.directions @ at(0.0)
    high = low + float(slopes.norm()) / radius
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if float(at(middle).norm()) > radius else (low, middle)
    return model.directions @ at(high)


def _is_better(before: _Model, after: _Model, step: Tensor) -> bool:
    """Whether the step made good on the model's promise; where the promise is below rounding, the gradient decides."""
    if not after.value < float("inf"):  # NaN too
        return False
    slopes = before.directions.T @ step
    promised = -float(before.gradient @ step + 0.5 * (before.curvatures * slopes**2).sum())
    if promised <= 1e-13 * max(abs(before.value), float(before.gradient.norm())):
        return bool(after.gradient.norm() < before.gradient.norm())
    return before.value - after.value >= 0.05 * promised


def _judged(function: Function, point: Vector, model: _Model, sizes: _Sizes, count: int) -> Minimum:
    """A gradient that has all but vanished: at a minimum, or on the way to infinity?"""
    norm = float(model.gradient.norm())
    if norm > sizes.noise(model):
        further = point + _step(model, float("inf"), sizes)
        last = _model(function, further)
        if not float(last.gradient.norm()) < max(norm / _SQUARED, sizes.noise(last)):
            return _ended(point, model, "unattained", count)
        point, model = further, last
    return _ended(*_polished(function, point, model, sizes), "minimum", count)


def _polished(function: Function, point: Vector, model: _Model, sizes: _Sizes) -> tuple[Vector, _Model]:
    """Newton's steps for as long as they make the gradient smaller: down to rounding."""
    for _ in range(4):
        further = point + _step(model, float("inf"), sizes)
        last = _model(function, further)
        if not last.gradient.norm() < model.gradient.norm():
            break
        point, model = further, last
    return point, model


def _ended(point: Vector, model: _Model, outcome: Outcome, count: int) -> Minimum:
    return Minimum(
        point=point.detach(),
        value=model.value,
        gradient_norm=float(model.gradient.norm()),
        outcome=outcome,
        flat=int((model.curvatures.abs() <= 1e-9 * model.largest).sum()),
        steps=count,
    )


def _at_a_kink(function: Function, point: Vector, scale: float, count: int) -> Minimum:
    """No step helps: a kink, or a function whose values have no more digits to tell points apart."""
    found = stationary_point(function, point, scale=scale)
    model = _model(function, found.point)
    ended = _ended(found.point, model, "kink" if found.is_stationary else "undecided", count + found.steps)
    return Minimum(**{**vars(ended), "gradient_norm": found.gradient_norm})
