"""Weights in the working precision, and where the gradients of their masters are added up.

The copy of a weight is made once per update (`WorkingWeights.refresh`), not once per micro-batch; gradients are summed
over micro-batches in the master's own precision.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

_PRODUCT_COLUMNS = 8192
"""Rows of a weight whose gradient is made at once: that of a head with its vocabulary would be the peak of memory."""
_SUM_NUMBERS = 1 << 18
"""Numbers of a gradient that are widened to float32 at once while they are added up: they stay in the cache."""


class GradientSums:
    """The `.grad` of a model's parameters while the packs of a step are added up in it."""

    def __init__(self) -> None:
        self._summing = False
        self._kept: dict[int, Tensor] = {}
        """By parameter, the memory for its `.grad`, while nothing has been added to it."""

    @contextmanager
    def summing(self, parameters: Sequence[Tensor], *, own: Collection[int]) -> Iterator[None]:
        """Backward passes in this context leave their sum in the `.grad` of `parameters`, whatever it held before.

        Its memory is kept, since fresh pages for all of it cost more than a pass over it. The first product of a
        weight is written there, neither zeroed before nor copied in float32; the others are added in place.

        Args:
            own: of those parameters whose gradients come through here, `id`s; autograd adds up the others.
        """
        for parameter in parameters:
            memory = torch.empty_like(parameter) if parameter.grad is None else parameter.grad
            if id(parameter) in own:
                self._kept[id(parameter)], parameter.grad = memory, None
            else:
                parameter.grad = memory.zero_()
        self._summing = True
        try:
            yield
            for parameter in parameters:
                if parameter.grad is None:
                    parameter.grad = self._kept[id(parameter)].zero_()
        finally:
            self._summing = False
            self._kept.clear()

    def handed(self, parameter: Tensor, grad: Tensor) -> Tensor | None:
        """`grad` for autograd to add up, or None once it is in `parameter.grad`."""
        first = self._first(parameter)
        if first is None:
            return grad
        self._add(parameter, grad, 0, first=first)
        return None

    def product(self, parameter: Tensor, left: Tensor, right: Tensor) -> Tensor | None:
        """`left.T @ right` for autograd to add up, or None once it is in `parameter.grad`, some rows at a time."""
        first = self._first(parameter)
        if first is None:
            return left.T @ right
        for start in range(0, left.shape[1], _PRODUCT_COLUMNS):
            part = left[:, start : start + _PRODUCT_COLUMNS].T @ right
            self._add(parameter, part, start, first=first)
        return None

    def _first(self, parameter: Tensor) -> bool | None:
        """Whether nothing has been added to the kept `parameter.grad`; None where autograd is to add up."""
        if not self._summing:
            return None
        if parameter.grad is not None:
            return False
        kept = self._kept.pop(id(parameter), None)
        if kept is None:
            return None
        parameter.grad = kept
        return True

    @staticmethod
    def _add(parameter: Tensor, grad: Tensor, start: int, *, first: bool) -> None:
        assert parameter.grad is not None
        total = parameter.grad[start : start + len(grad)]
        if first:
            total.copy_(grad)
            return
        rows = max(1, _SUM_NUMBERS // max(1, grad[0].numel()))
        for part, more in zip(total.split(rows), grad.split(rows), strict=True):
            part.add_(more)

    def sum_of(self, parameter: Tensor) -> Tensor | None:
        """`parameter.grad` to add to in place, or None where autograd is to add up."""
        if self._summing and parameter.grad is None and id(parameter) in self._kept:
            parameter.grad = self._kept.pop(id(parameter)).zero_()
        return parameter.grad if self._summing else None


class WorkingWeights:
    """One or several linear layers as one matrix `[N, K]` in the working precision."""

    def __init__(self, linears: Sequence[nn.Module], dtype: torch.dtype, sums: GradientSums) -> None:
        self.sums = sums
        self.linears = list(linears)
        self.sizes = [out_features(linear) for linear in linears]
        self.parameters: list[Tensor] = [linear.weight for linear in linears]  # type: ignore[misc]
        self.biases: list[Tensor | None] = [linear.bias for linear in linears]  # type: ignore[misc]
        self.parameters += [bias for bias in self.biases if bias is not None]
        self.transposed = [isinstance(linear, Conv1D) for linear in linears]
        self.dtype = dtype
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the master weights; one layer in its own precision is used as it is."""
        matrices = [
            weight.T if conv else weight
            for weight, conv in zip(self.parameters, self.transposed, strict=False)
        ]
        if len(matrices) == 1 and matrices[0].dtype == self.dtype:
            self.matrix = matrices[0].detach()
        elif hasattr(self, "matrix"):
            for part, matrix in zip(self.matrix.split(self.sizes), matrices, strict=True):
                part.copy_(matrix)
        else:
            self.matrix = torch.cat([matrix.to(self.dtype) for matrix in matrices])
        self.bias: Tensor | None = None
        if any(bias is not None for bias in self.biases):
            self.bias = torch.cat(
                [
                    self.matrix.new_zeros(size) if bias is None else bias.detach().to(self.dtype)
                    for size, bias in zip(self.sizes, self.biases, strict=True)
                ]
            )

    def gradients(self, grad_out: Tensor, x: Tensor, needed: Sequence[bool]) -> list[Tensor | None]:
        """Gradients of `parameters` from `[T, N]` and `[T, K]`, in their order; None where it was added up."""
        weights, biases = self.parameters[: len(self.linears)], self.parameters[len(self.linears) :]
        parts = grad_out.split(self.sizes, dim=1)
        grads = self._weight_gradients(weights, grad_out, parts, x, needed)
        for bias, part in zip(
            biases, [p for p, b in zip(parts, self.biases, strict=True) if b is not None], strict=True
        ):
            total = part.sum(0, dtype=torch.promote_types(part.dtype, torch.float32))
            grads.append(self.sums.handed(bias, total))
        return grads

    def _weight_gradients(
        self,
        weights: list[Tensor],
        grad_out: Tensor,
        parts: Sequence[Tensor],
        x: Tensor,
        needed: Sequence[bool],
    ) -> list[Tensor | None]:
        handed = self.sums.handed
        if any(self.transposed) or not all(needed[: len(weights)]):
            return [
                None if not need else handed(weight, x.T @ part if conv else part.T @ x)
                for weight, part, conv, need in zip(weights, parts, self.transposed, needed, strict=False)
            ]
        if len(weights) == 1:
            return [self.sums.product(weights[0], grad_out, x)]
        products = (grad_out.T @ x).split(self.sizes)
        return [handed(weight, product) for weight, product in zip(weights, products, strict=True)]


def out_features(linear: nn.Module) -> int:
    """Rows of its weight as `[N, K]`; transformers' `Conv1D` holds it the other way round."""
    return linear.nf if isinstance(linear, Conv1D) else linear.out_features  # type: ignore[return-value]
