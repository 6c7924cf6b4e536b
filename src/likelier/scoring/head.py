"""The output head, on the positions that predict a scored token and nowhere else, a block of rows at a time.

The logits of a block live only while their log-sum-exp is taken, and again in the backward. Memory is
`_BLOCK_BYTES` of logits, whatever the vocabulary and the pack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

from likelier.scoring.kernels import fixed_rows_linear

_ROWS = 128
"""Rows whose float32 logits exist at once: they stay in the processor's cache."""
_BLOCK_BYTES = 1 << 27
"""Bytes of logits' gradients kept at once in the backward, so that the weight's gradient is one product."""


@dataclass(frozen=True, slots=True)
class LogitShape:
    """What a model does to its logits after the head: `softcap · tanh(scale · z / softcap)`."""

    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, config: PretrainedConfig) -> LogitShape:
        """As the configuration says it; the check at load compares the result with the model's own logits."""
        scale = float(getattr(config, "logit_scale", None) or 1.0)
        divisor = float(getattr(config, "logits_scaling", None) or 1.0)
        return cls(scale / divisor, getattr(config, "final_logit_softcapping", None))

    def apply_(self, logits: Tensor) -> Tensor:
        """In place."""
        if self.scale != 1.0:
            logits.mul_(self.scale)
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits

    def backward_(self, grad: Tensor, logits: Tensor) -> Tensor:
        """The gradient before the shape from that after it, given the shaped logits; in place."""
        if self.softcap is not None:
            grad.mul_(1 - (logits / self.softcap).square_())
        return grad.mul_(self.scale) if self.scale != 1.0 else grad


class TokenLogps(torch.autograd.Function):
    """`log softmax(shape(h Wᵀ + b))[target]`: hidden `[S, D]`, targets `[S]` -> `[S]`, float32 or wider.

    `matrix` and `offset` are the working copies of the parameters `weight` and `bias`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        matrix: Tensor,
        offset: Tensor | None,
        targets: Tensor,
        shape: LogitShape,
    ) -> Tensor:
        rows = hidden.to(matrix.dtype)
        logps = [
            logits.gather(1, target[:, None])[:, 0] - logits.logsumexp(1)
            for logits, target in _blocks(rows, targets, matrix, offset, shape)
        ]
        ctx.save_for_backward(rows, weight, bias, matrix, offset, targets)
        ctx.shape, ctx.dtype = shape, hidden.dtype
        wide = torch.promote_types(matrix.dtype, torch.float32)
        return torch.cat(logps) if logps else rows.new_empty(0, dtype=wide)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        rows, weight, bias, matrix, offset, targets = ctx.saved_tensors
        grad_rows = torch.empty_like(rows)
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        step = max(_ROWS, _BLOCK_BYTES // (len(matrix) * matrix.element_size()) // _ROWS * _ROWS)
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            grad_logits = _grad_logits(rows[part], targets[part], grad[part], matrix, offset, ctx.shape)
            grad_rows[part] = grad_logits @ matrix
            if grad_weight is not None:
                grad_weight += grad_logits.T @ rows[part]
            if grad_bias is not None:
                grad_bias += grad_logits.sum(0, dtype=grad_bias.dtype)
        return grad_rows.to(ctx.dtype), grad_weight, grad_bias, None, None, None, None


def _blocks(rows: Tensor, targets: Tensor, matrix: Tensor, offset: Tensor | None, shape: LogitShape) -> Any:
    """The shaped logits, float32 or wider, and the targets of each block of rows."""
    wide = torch.promote_types(matrix.dtype, torch.float32)
    for start in range(0, len(rows), _ROWS):
        logits = fixed_rows_linear(rows[start : start + _ROWS], matrix, offset, rows=_ROWS)
        yield shape.apply_(logits.to(wide)), targets[start : start + _ROWS]


def _grad_logits(
    rows: Tensor, targets: Tensor, grad: Tensor, matrix: Tensor, offset: Tensor | None, shape: LogitShape
) -> Tensor:
    """`(onehot − softmax) · grad`, through the shape, in the working precision: `[S, V]`."""
    result = rows.new_empty(len(rows), len(matrix))
    start = 0
    for logits, target in _blocks(rows, targets, matrix, offset, shape):
        stop = start + len(target)
        grads = torch.softmax(logits, 1).mul_(-grad[start:stop, None])
        grads.scatter_add_(1, target[:, None], grad[start:stop, None])
        result[start:stop] = shape.backward_(grads, logits)
        start = stop
    return result
