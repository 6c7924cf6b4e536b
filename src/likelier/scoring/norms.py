"""RMS norms: one pass each way, and what they hand to a product is made again in its backward rather than kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


class RMSNorm(torch.autograd.Function):
    """`x / rms(x) * weight` in float32 or wider; `[…, D]`, output in `dtype`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, offset: float, epsilon: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
        ctx.save_for_backward(x, weight, scale)
        ctx.mark_non_differentiable(scale)
        ctx.offset = offset
        return _normed(x, weight, scale, offset, dtype), scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
        x, weight, scale = ctx.saved_tensors
        wide, grad = x.to(scale.dtype), grad.to(scale.dtype)
        normed = wide * scale
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = (grad * normed).flatten(0, -2).sum(0)
        grad = grad * (weight + ctx.offset if ctx.offset else weight)
        inner = (grad * normed).mean(-1, keepdim=True)
        grad_x = torch.addcmul(grad, normed, inner, value=-1).mul_(scale)
        return grad_x.to(x.dtype), grad_weight, None, None, None


def _normed(x: Tensor, weight: Tensor, scale: Tensor, offset: float, dtype: torch.dtype) -> Tensor:
    return (x.to(scale.dtype) * scale).mul_(weight + offset if offset else weight).to(dtype)


def keep_input(ctx: Any, x: Tensor, flat: Tensor, *more: Tensor) -> None:
    """Save `flat` for the backward, or what the norm that made it has saved anyway: a pass over it costs less."""
    made = getattr(x, "made_of", None)
    ctx.made = None if made is None else (made[3], flat.dtype)
    ctx.save_for_backward(*([flat] if made is None else made[:3]), *more)


def kept_input(ctx: Any) -> tuple[Tensor, ...]:
    """What `keep_input` saved: `flat` and `more`."""
    saved: tuple[Tensor, ...] = ctx.saved_tensors
    if ctx.made is None:
        return saved
    x, weight, scale, *more = saved
    return _normed(x, weight, scale, *ctx.made).flatten(0, -2), *more


@dataclass(frozen=True)
class Rms:
    """What makes a module an RMS norm: what is added to its weight, and its epsilon."""

    offset: float
    epsilon: float


def norm_forward(norm: nn.Module, found: Rms, dtype: Callable[[], torch.dtype]) -> Callable[[Tensor], Tensor]:
    """The norm that `found` describes, as a forward of `norm`; from float32 it hands on `dtype()`."""

    def forward(x: Tensor) -> Tensor:
        # From the residual stream (float32) to a product (working precision); from its output, back up.
        out = dtype() if x.dtype == torch.float32 else torch.promote_types(x.dtype, torch.float32)
        weight, offset = norm.weight, found.offset
        normed: Tensor
        normed, scale = RMSNorm.apply(x, weight, offset, found.epsilon, out)  # type: ignore[no-untyped-call]
        normed.made_of = (x.detach(), weight.detach(), scale, offset)  # type: ignore[attr-defined, operator]
        return normed

    return forward


@torch.no_grad()
def rms_of(module: nn.Module) -> Rms | None:
    """What makes `module` an RMS norm: its epsilon, and 0 or 1 added to its weight; None if it is none."""
    parameters = dict(module.named_parameters())
    epsilon = next((getattr(module, n) for n in ("variance_epsilon", "eps") if hasattr(module, n)), None)
    if list(parameters) != ["weight"] or not isinstance(epsilon, float) or parameters["weight"].dim() != 1:
        return None
    weight = parameters["weight"].float()
    x = torch.linspace(-2, 3, 2 * len(weight), device=weight.device).view(2, -1)
    theirs = module(x)
    for offset in (0.0, 1.0):
        ours, _ = RMSNorm.apply(x, weight, offset, epsilon, torch.float32)  # type: ignore[no-untyped-call]
        if theirs.shape == ours.shape and torch.allclose(theirs.float(), ours, rtol=1e-5, atol=1e-6):
            return Rms(offset, epsilon)
    return None
