"""Linear layers, gated MLPs and embeddings with inputs of products in the working precision, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from likelier.scoring.activations import silu
from likelier.scoring.norms import keep_input, kept_input
from likelier.scoring.products import fixed_rows_linear
from likelier.scoring.weights import GradientSums, WorkingWeights


class SharedLinear(torch.autograd.Function):
    """Linear layers that read the same tensor, as one product: `[…, K]` -> one `[…, N_i]` per layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: WorkingWeights, *parameters: Tensor) -> tuple[Tensor, ...]:
        flat = x.reshape(-1, x.shape[-1]).to(weights.dtype)
        out = fixed_rows_linear(flat, weights.matrix, weights.bias)
        keep_input(ctx, x, flat)
        ctx.weights, ctx.shape, ctx.dtype = weights, x.shape, x.dtype
        parts = out.split(weights.sizes, dim=1)
        return tuple(part.view(*x.shape[:-1], part.shape[1]) for part in parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (flat,) = kept_input(ctx)
        weights: WorkingWeights = ctx.weights
        parts = [grad.reshape(len(flat), -1).to(weights.dtype) for grad in grads]
        grad_out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_out @ weights.matrix).view(ctx.shape).to(ctx.dtype)
        return grad_x, None, *weights.gradients(grad_out, flat, ctx.needs_input_grad[2:])


class SharedInput:
    """The layers of a `SharedLinear`: the first call with a tensor computes for all."""

    def __init__(self, weights: WorkingWeights) -> None:
        self.weights = weights
        self._input: Tensor | None = None
        self._outputs: list[Tensor | None] = []

    def __call__(self, index: int, x: Tensor) -> Tensor:
        """The output of layer `index` for `x`; each is asked for once."""
        if x is not self._input or self._outputs[index] is None:
            self._input = x
            self._outputs = list(
                SharedLinear.apply(x, self.weights, *self.weights.parameters)  # type: ignore[no-untyped-call]
            )
        out = self._outputs[index]
        self._outputs[index] = None
        if not any(other is not None for other in self._outputs):
            self._input = None
        assert out is not None
        return out


class GatedMLP(torch.autograd.Function):
    """`down(act(gate(x)) * up(x))` with SiLU, keeping only the gate's and up's outputs for the backward."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, into: WorkingWeights, out: WorkingWeights, *parameters: Tensor
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1]).to(into.dtype)
        gate_up = fixed_rows_linear(flat, into.matrix, into.bias)
        gate, up = gate_up.chunk(2, dim=1)
        result = fixed_rows_linear(silu(gate).mul_(up), out.matrix, out.bias)
        keep_input(ctx, x, flat, gate_up)
        ctx.into, ctx.out, ctx.shape, ctx.dtype = into, out, x.shape, x.dtype
        return result.view(*x.shape[:-1], result.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        flat, gate_up = kept_input(ctx)
        into, out = ctx.into, ctx.out
        gate, up = gate_up.chunk(2, dim=1)
        grad_result = grad.reshape(len(flat), -1).to(out.dtype)
        grad_hidden = grad_result @ out.matrix
        activated = F.silu(gate)
        grad_gate_up = torch.empty_like(gate_up)
        grad_gate, grad_up = grad_gate_up.chunk(2, dim=1)
        torch.mul(grad_hidden, activated, out=grad_up)
        grad_gate.copy_(torch.ops.aten.silu_backward(grad_hidden.mul_(up), gate))
        needed = ctx.needs_input_grad[3:]
        count = len(into.parameters)
        grads_out = out.gradients(grad_result, activated.mul_(up), needed[count:])
        grads_into = into.gradients(grad_gate_up, flat, needed[:count])
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_gate_up @ into.matrix).view(ctx.shape).to(ctx.dtype)
        return grad_x, None, None, *grads_into, *grads_out


class Embedding(torch.autograd.Function):
    """Rows of `weight`; the gradient touches only the rows that were read, where it may add to `.grad`."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, padding_idx: int | None, sums: GradientSums) -> Tensor:
        ctx.save_for_backward(ids, weight)
        ctx.padding_idx, ctx.sums = padding_idx, sums
        return F.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        ids, weight = ctx.saved_tensors
        if not ctx.needs_input_grad[1]:
            return None, None, None, None
        rows, flat = ids.flatten(), grad.reshape(-1, grad.shape[-1])
        if ctx.padding_idx is not None:
            # transformers gives this row no gradient as an input, whether it pads or (SmolLM2) ends turns.
            flat = flat.masked_fill(rows[:, None] == ctx.padding_idx, 0)
        in_place = ctx.sums.sum_of(weight)
        total = torch.zeros_like(weight) if in_place is None else in_place
        total.index_add_(0, rows, flat.to(weight.dtype))
        return None, total if in_place is None else None, None, None


@torch.no_grad()
def is_gated_mlp(module: nn.Module) -> bool:
    """Whether `module` is `down(silu(gate(x)) * up(x))` of three plain linear layers, by trying."""
    children = dict(module.named_children())
    parts = [children.get(name) for name in ("gate_proj", "up_proj", "down_proj")]
    linears = [part for part in parts if type(part) is nn.Linear]
    if len(linears) < 3 or any(linear.weight.is_meta for linear in linears):
        return False
    gate, up, down = linears
    x = torch.linspace(-1, 1, 2 * gate.in_features).view(2, -1).to(gate.weight)
    theirs = module(x)
    ours = down(F.silu(gate(x)) * up(x))
    return isinstance(theirs, Tensor) and torch.allclose(theirs, ours, rtol=1e-4, atol=1e-5)
