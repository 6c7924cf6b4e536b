"""Minima of functions with kinks, by gradient sampling (Burke, Lewis and Overton 2005).

At a kink no gradient is 0, yet the gradients of the points around it hold 0 in their hull: that certifies the minimum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from likelier.theory.shapes import Number, Vector

Function = Callable[[Vector], Number]
_RADII = (1e-1, 1e-3, 1e-5, 1e-7, 1e-9)
_CERTIFIED = 1e-7


class Stationary(NamedTuple):
    """Where it ended, and the length of the shortest vector in the hull of the gradients within 1e-9 of there."""

    point: Vector
    gradient_norm: float
    is_stationary: bool
    steps: int


def stationary_point(function: Function, start: Vector, *, scale: float, most: int = 80) -> Stationary:
    """A point with 0 in the hull of the gradients around it, to `1e-7 · scale`.

    Args:
        function: continuous, with a gradient almost everywhere.
        start: where to begin: best where a smooth descent got stuck.
        scale: the size of the gradients before they cancel.
        most: steps for each radius of the sampled balls, 0.1 to 1e-9.

    >>> found = stationary_point(lambda x: (x - 2.0).abs().sum(), torch.zeros(2, dtype=torch.float64), scale=1.0)
    >>> [round(value, 7) for value in found.point.tolist()], found.is_stationary
    ([2.0, 2.0], True)
    """
    generator = torch.Generator().manual_seed(0)
    point, steps, shortest = start.detach(), 0, start.detach()
    for radius in _RADII:
        bundle = _Bundle(function, radius, generator)
        for _ in range(most):
            shortest = _shortest(bundle.around(point))
            if float(shortest.norm()) <= _CERTIFIED * scale:
                break
            # Where nothing falls the gradients do not yet tell of every kink: the bundle grows.
            point, moved = _line_search(function, point, shortest, radius)
            steps += moved
    norm = float(shortest.norm())
    return Stationary(point, norm, norm <= _CERTIFIED * scale, steps)


class _Bundle:
    """Gradients of points within a radius, kept for as long as the centre stays near."""

    def __init__(self, function: Function, radius: float, generator: torch.Generator) -> None:
        self._function, self._radius, self._generator = function, radius, generator
        self._points: list[Tensor] = []
        self._gradients: list[Tensor] = []

    def around(self, centre: Vector) -> Tensor:
        """With those of the centre and of three new points beside it, `[points, dimensions]`."""
        near = [bool((point - centre).norm() <= 2.0 * self._radius) for point in self._points]
        self._points = [point for point, kept in zip(self._points, near, strict=True) if kept]
        self._gradients = [gradient for gradient, kept in zip(self._gradients, near, strict=True) if kept]
        offsets = torch.randn(3, centre.numel(), generator=self._generator, dtype=centre.dtype)
        offsets = self._radius * offsets / offsets.norm(dim=1, keepdim=True)
        for point in (centre, *(centre + offsets)):
            self._points.append(point)
            self._gradients.append(_gradient(self._function, point))
        return torch.stack(self._gradients)


def _gradient(function: Function, point: Vector) -> Tensor:
    at = point.detach().requires_grad_(True)
    return torch.autograd.grad(function(at), at, materialize_grads=True)[0]


def _shortest(gradients: Tensor) -> Tensor:
    """The shortest vector in the hull of the rows: non-negative least squares with a row that asks for a sum of 1."""
    size = float(gradients.norm(dim=1).max())
    if size == 0.0:
        return gradients[0]
    columns = (gradients / size).T.numpy()
    # Minimising |G λ|² + (1 − Σλ)² over λ ≥ 0 gives the direction of the shortest vector; scaled, the vector itself.
    system = np.vstack([columns, np.ones((1, columns.shape[1]))])
    shares, _ = nnls(system, np.append(np.zeros(columns.shape[0]), 1.0), maxiter=100 * columns.shape[1])
    return gradients.T @ torch.as_tensor(shares / shares.sum())


def _line_search(function: Function, point: Vector, shortest: Tensor, radius: float) -> tuple[Vector, bool]:
    """Down along the shortest vector by 64 radii or a quarter of that, and so on, if any of it falls as promised."""
    slope = float(shortest.norm())
    here = float(function(point))
    length = 64.0 * radius
    while length > 0.1 * radius:
        trial = point - length / slope * shortest
        if float(function(trial)) < here - 1e-4 * length * slope:
            return trial, True
        length /= 4.0
    return point, False
