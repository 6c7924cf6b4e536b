"""Activations whose bits do not depend on where a number lies.

On a CPU torch computes the end of a thread's share of a tensor with other code than the rest, and for its sigmoid,
SiLU, softplus and GELU the two differ in the last bit (docs/log.md): the same token would get other bits in another
pack. exp, erf and the four operations have no such ends, and of them these activations are written. In bfloat16 only
the GELUs are at fault; the others are left to torch there. Backward passes are torch's own: a gradient is
a sum over packs anyway.

`experts.Steady` gives the same to the functions that a module's own code calls, for as long as its forward runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

Gradient = Callable[[Tensor, Tensor], Tensor]
_HOMES = ("torch.nn.modules.activation", "transformers.activations")
_QUICK = 1.702
_PLACED_IN_HALF = ("gelu", "gelu_tanh")
"""Those that torch computes by place in half precision too."""


def _over(x: Tensor, power: Tensor) -> Tensor:
    """`x / (1 + exp(power))`, in the memory of `power`: fresh pages cost more than the arithmetic."""
    power.exp_().add_(1)
    return torch.div(x, power, out=power)


def sigmoid(x: Tensor) -> Tensor:
    """`1 / (1 + exp(−x))`."""
    return x.neg().exp_().add_(1).reciprocal_()


def silu(x: Tensor) -> Tensor:
    """`x / (1 + exp(−x))`; torch's own where that has the same bits everywhere."""
    if x.is_cuda or x.dtype in (torch.bfloat16, torch.float16):
        return F.silu(x)
    return _over(x, x.neg())


def _quick_gelu(x: Tensor) -> Tensor:
    return _over(x, x.mul(-_QUICK))


def _gelu(x: Tensor) -> Tensor:
    return x.mul(math.sqrt(0.5)).erf_().add_(1).mul_(x).mul_(0.5)


def _gelu_tanh(x: Tensor) -> Tensor:
    # (1 + tanh u) / 2 as 1 / (1 + exp(−2u)), which cancels nothing where x is far below 0.
    inner = x.square().mul_(0.044715).add_(1).mul_(x).mul_(-2 * math.sqrt(2 / math.pi))
    return _over(x, inner)


def _softplus(x: Tensor) -> Tensor:
    return x.abs().neg_().exp_().log1p_().add_(x.clamp(min=0))


def _sigmoid_slope(grad: Tensor, x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return grad * s * (1 - s)


def _quick_slope(grad: Tensor, x: Tensor) -> Tensor:
    s = torch.sigmoid(_QUICK * x)
    return grad * (s + _QUICK * x * s * (1 - s))


def _gelu_slope(grad: Tensor, x: Tensor) -> Tensor:
    return torch.ops.aten.gelu_backward(grad, x)  # type: ignore[no-any-return]


def _gelu_tanh_slope(grad: Tensor, x: Tensor) -> Tensor:
    return torch.ops.aten.gelu_backward(grad, x, approximate="tanh")  # type: ignore[no-any-return]


_KINDS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Gradient]] = {
    "silu": (silu, F.silu, torch.ops.aten.silu_backward),
    "gelu_tanh": (_gelu_tanh, lambda x: F.gelu(x, approximate="tanh"), _gelu_tanh_slope),
    "gelu": (_gelu, F.gelu, _gelu_slope),
    "quick_gelu": (_quick_gelu, lambda x: x * torch.sigmoid(_QUICK * x), _quick_slope),
    "sigmoid": (sigmoid, torch.sigmoid, _sigmoid_slope),
    "softplus": (_softplus, F.softplus, lambda grad, x: grad * torch.sigmoid(x)),
}
"""Ours, torch's, and the gradient of both."""


class SteadyActivation(torch.autograd.Function):
    """One of `_KINDS`, by name; keeps its input alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: str) -> Tensor:
        ctx.save_for_backward(x)
        ctx.kind = kind
        return _KINDS[kind][0](x.to(torch.promote_types(x.dtype, torch.float32))).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        (x,) = ctx.saved_tensors
        return _KINDS[ctx.kind][2](grad, x), None


def steady(kind: str, x: Tensor) -> Tensor:
    """The activation `kind` of `x`: ours where torch's depends on the place, torch's elsewhere."""
    half = x.dtype in (torch.bfloat16, torch.float16)
    if x.is_cuda or (half and kind not in _PLACED_IN_HALF):
        return _KINDS[kind][1](x)
    out: Tensor = SteadyActivation.apply(x, kind)  # type: ignore[no-untyped-call]
    return out


@torch.no_grad()
def activation_forward(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """A forward for `module` where it is one of these functions, by trying; None where it is none of them."""
    if type(module).__module__ not in _HOMES or next(module.parameters(), None) is not None:
        return None
    x = torch.linspace(-12, 12, 2401, dtype=torch.float64)
    try:
        theirs = module(x)
    except (TypeError, RuntimeError):  # One of more arguments, or of another number of dimensions.
        return None
    for kind, (ours, _, _) in _KINDS.items():
        if isinstance(theirs, Tensor) and torch.allclose(theirs, ours(x), rtol=1e-9, atol=1e-12):
            return partial(steady, kind)
    return None


def called(function: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any]) -> str | None:
    """Which of `_KINDS` a call of a torch function is; None where it is none of them as it stands."""
    approximate = given.get("approximate", "none")
    plain = len(args) == 1 and set(given) <= {"inplace", "approximate"} and not given.get("inplace", False)
    if not plain:
        return None
    if function is F.gelu:
        return "gelu" if approximate == "none" else "gelu_tanh"
    return _FUNCTIONS.get(function)


_FUNCTIONS: dict[Callable[..., Any], str] = {
    F.silu: "silu",
    torch.sigmoid: "sigmoid",
    Tensor.sigmoid: "sigmoid",
    F.softplus: "softplus",
}
