"""The output head, on the positions that predict a scored token and nowhere else, a block of rows at a time.

Memory is `_LOGIT_BYTES` of logits, whatever the vocabulary and the pack. Where those of a pack fit, they are kept for
the backward, which overwrites them with their gradients; else they live only while their log-sum-exp is taken, and
are made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from transformers import PretrainedConfig

from likelier.scoring.products import fixed_rows_linear
from likelier.scoring.weights import WorkingWeights

_PRODUCT_ROWS = 128
"""Rows per product: logits exist for so many at once."""
ELEMENT_ROWS = 16
"""Rows whose float32 logits exist at once: they stay in the processor's cache, which is what exp needs."""
_LOGIT_BYTES = 1 << 26
"""Bytes of logits, or of their gradients, that are kept at once: the weight's gradient is one product over them."""


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

    `parameters` are those of `weights`, the head's working copy; `trained` says whether a backward may follow.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weights: WorkingWeights,
        targets: Tensor,
        shape: LogitShape,
        trained: bool,
        *parameters: Tensor,
    ) -> Tensor:
        rows, targets, kept = whole_blocks(ctx, hidden, targets, weights, shape, trained=trained)
        logps = rows.new_empty(len(rows), dtype=wide_dtype(weights.dtype))
        for block, logits in logit_blocks(rows, targets, weights, shape, into=kept):
            peak = logits.amax(1, keepdim=True)
            target = logits.gather(1, targets[block, None])[:, 0] - peak[:, 0]
            # Not `logsumexp`, which takes thirty times as long on a CPU at this width (docs/log.md).
            logps[block] = target - logits.sub_(peak).exp_().sum(1).log_()
        ctx.save_for_backward(rows, targets)
        return logps[: len(hidden)]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        rows, targets = ctx.saved_tensors
        grad = F.pad(grad, (0, len(rows) - len(grad)))
        kept, ctx.kept = ctx.kept, None

        def of_logits(part: slice) -> Tensor:
            return _grad_logits(rows[part], targets[part], grad[part], ctx.weights, ctx.shape, kept)

        return through_head(ctx, rows, of_logits, whole=kept is not None)


def whole_blocks(
    ctx: Any, hidden: Tensor, targets: Tensor, weights: WorkingWeights, shape: LogitShape, *, trained: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Hidden states and targets filled up to whole blocks, and room for their logits where they are kept.

    Over a single row a sum is shared out between threads, in another order. What `through_head` reads is left in `ctx`.
    """
    ctx.spare = -len(hidden) % ELEMENT_ROWS
    rows = F.pad(hidden, (0, 0, 0, ctx.spare)).to(weights.dtype)
    kept = None
    if trained and len(rows) * _row_bytes(weights) <= _LOGIT_BYTES:
        kept = rows.new_empty(len(rows), len(weights.matrix))
    ctx.weights, ctx.shape, ctx.dtype, ctx.kept = weights, shape, hidden.dtype, kept
    return rows, F.pad(targets, (0, ctx.spare)), kept


def through_head(
    ctx: Any, rows: Tensor, of_logits: Callable[[slice], Tensor], *, whole: bool
) -> tuple[Any, ...]:
    """The gradients of hidden states and parameters from those of the logits, which are made part by part.

    Args:
        of_logits: from the rows that are wanted, their logits' gradients `[rows, V]`, in the working precision.
        whole: all of them at once; else as many as `_LOGIT_BYTES` hold: the weight's gradient is one product over them.
    """
    weights: WorkingWeights = ctx.weights
    grad_rows = torch.empty_like(rows)
    totals: list[Tensor | None] = [None] * len(weights.parameters)
    step = max(_PRODUCT_ROWS, _LOGIT_BYTES // _row_bytes(weights) // _PRODUCT_ROWS * _PRODUCT_ROWS)
    for start in (0,) if whole else range(0, len(rows), step):
        part = slice(None) if whole else slice(start, start + step)
        grad_logits = of_logits(part)
        grad_rows[part] = grad_logits @ weights.matrix
        found = weights.gradients(grad_logits, rows[part], ctx.needs_input_grad[5:])
        totals = [
            new if old is None or new is None else old + new for old, new in zip(totals, found, strict=True)
        ]
    shown = grad_rows[: len(rows) - ctx.spare]
    return shown.to(ctx.dtype), None, None, None, None, *totals


def logit_blocks(
    rows: Tensor,
    targets: Tensor,
    weights: WorkingWeights,
    shape: LogitShape,
    *,
    known: Tensor | None = None,
    into: Tensor | None = None,
) -> Iterator[tuple[slice, Tensor]]:
    """The shaped logits, float32 or wider, block after block; the caller may overwrite them.

    Those of the product are taken from `known`, or left `into` where one is given, both `[S, V]`.
    """
    wide = wide_dtype(weights.dtype)
    few = len(rows) if rows.is_cuda else ELEMENT_ROWS
    for start in range(0, len(rows), _PRODUCT_ROWS):
        stop = min(start + _PRODUCT_ROWS, len(rows))
        if known is None:
            place = None if into is None else into[start:stop]
            logits = fixed_rows_linear(rows[start:stop], weights.matrix, weights.bias, out=place)
        else:
            logits = known[start:stop]
        for offset in range(0, len(logits), few):
            block = slice(start + offset, start + min(offset + few, len(logits)))
            widened = logits[offset : offset + few].to(wide, copy=True)
            if wide != weights.dtype:
                widened.scatter_(
                    1, targets[block, None], _target_logits(rows[block], targets[block], weights)
                )
            yield block, shape.apply_(widened)


def _target_logits(rows: Tensor, targets: Tensor, weights: WorkingWeights) -> Tensor:
    """`[S, 1]` in float32: a product in half precision rounds its result, and of this one all depends (docs/log.md)."""
    exact = (rows.float() * weights.matrix.index_select(0, targets).float()).sum(1, keepdim=True)
    return exact if weights.bias is None else exact + weights.bias.index_select(0, targets)[:, None]


def _grad_logits(
    rows: Tensor,
    targets: Tensor,
    grad: Tensor,
    weights: WorkingWeights,
    shape: LogitShape,
    kept: Tensor | None,
) -> Tensor:
    """`(onehot − softmax) · grad`, through the shape, in the working precision: `[S, V]`, over `kept` logits if any."""
    result = rows.new_empty(len(rows), len(weights.matrix)) if kept is None else kept
    for block, logits in logit_blocks(rows, targets, weights, shape, known=kept):
        slope = grad[block, None].to(logits.dtype)
        grads = torch.softmax(logits, 1).mul_(-slope)
        grads.scatter_add_(1, targets[block, None], slope)
        result[block] = shape.backward_(grads, logits)
    return result


def _row_bytes(weights: WorkingWeights) -> int:
    """Bytes of a row of logits."""
    return len(weights.matrix) * weights.matrix.element_size()


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32, or the precision itself where it is wider."""
    return torch.promote_types(dtype, torch.float32)
