"""Products that a model makes without a linear layer: experts as one stack of matrices, and their routers.

How many rows an expert gets depends on the pack, and so would its bits: here each expert's product has a fixed number
of rows, as in `products.py`, its inputs are in the working precision, and a token's experts are added up in the order
of the router's choice. A router stays in float32, in fixed rows too: an expert chosen by rounding is another token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers.pytorch_utils import Conv1D

from likelier.scoring.activations import called, steady

EXPERT_ROWS = 32
"""Of an expert's product on a CPU: a pack's tokens are shared out among many, and each pads its last block."""
Product = Callable[..., Tensor]
"""`products.fixed_rows_linear`."""


class FixedLinear(torch.autograd.Function):
    """`x @ weight.T`, computed from `matrix`, the copy of `weight` in the working precision, in fixed rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, matrix: Tensor, product: Product) -> Tensor:
        flat = x.reshape(-1, x.shape[-1]).to(matrix.dtype)
        ctx.save_for_backward(flat, matrix)
        ctx.shape, ctx.dtypes = x.shape, (x.dtype, weight.dtype)
        return product(flat, matrix, rows=EXPERT_ROWS).view(*x.shape[:-1], len(matrix))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        flat, matrix = ctx.saved_tensors
        grad = grad.reshape(len(flat), -1).to(matrix.dtype)
        grad_x = (grad @ matrix).view(ctx.shape).to(ctx.dtypes[0]) if ctx.needs_input_grad[0] else None
        grad_weight = (grad.T @ flat).to(ctx.dtypes[1]) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, None, None


class Experts:
    """The forward of a module of experts whose matrices lie in one stack each; `refresh` after an update."""

    parameters: Sequence[Tensor] = ()
    """None whose gradient is added up in place: autograd does it."""

    def __init__(self, module: Any, dtype: torch.dtype, product: Product) -> None:
        self.module, self.dtype, self.product = module, dtype, product
        self.names = ["gate_up_proj" if module.has_gate else "up_proj", "down_proj"]
        self.matrices: list[Tensor] = []
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the weights; in their own precision they are used as they are."""
        self.matrices = [
            self._laid(getattr(self.module, name)).detach().to(self.dtype) for name in self.names
        ]

    def _laid(self, stack: Tensor) -> Tensor:
        """`[experts, N, K]`."""
        return stack.transpose(1, 2) if self.module.is_transposed else stack

    def __call__(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """`[T, D]`, `[T, k]` and `[T, k]` -> `[T, D]`."""
        count, chosen = self.module.num_experts, top_k_index.reshape(-1)
        order = torch.argsort(chosen, stable=True)
        rows = hidden_states.index_select(0, order // top_k_index.shape[1])
        parts = rows.split(torch.bincount(chosen, minlength=count).tolist())
        stacks = [self._laid(getattr(self.module, name)).unbind(0) for name in self.names]
        done = torch.cat(
            [
                self._expert(part, e, [stack[e] for stack in stacks])
                for e, part in enumerate(parts)
                if len(part)
            ]
        )
        # Each token's results side by side again, in the order in which the router named the experts.
        ordered = done.index_select(0, torch.argsort(order)).view(*top_k_index.shape, -1)
        return (ordered * top_k_weights[..., None]).sum(1)

    def _expert(self, x: Tensor, expert: int, weights: Sequence[Tensor]) -> Tensor:
        module = self.module
        hidden = self._linear(x, expert, weights, 0)
        with Steady(self.product):
            hidden = module._apply_gate(hidden) if module.has_gate else module.act_fn(hidden)
        out = self._linear(hidden, expert, weights, 1)
        return module.post_expert_norm(out) if module.has_post_expert_norm else out

    def _linear(self, x: Tensor, expert: int, weights: Sequence[Tensor], layer: int) -> Tensor:
        out: Tensor = FixedLinear.apply(x, weights[layer], self.matrices[layer][expert], self.product)  # type: ignore[no-untyped-call]
        if self.module.has_bias:
            bias: Tensor = getattr(self.module, f"{self.names[layer]}_bias")[expert]
            out = out + bias.to(out.dtype)
        return out


@torch.no_grad()
def experts_of(module: nn.Module, dtype: torch.dtype, product: Product) -> Experts | None:
    """`module` as `Experts`, where three tokens through its own loop show the same function; else None."""
    own = getattr(type(module).forward, "__wrapped__", None)
    if own is None or not hasattr(module, "is_transposed") or getattr(module, "_is_expert_parallel", False):
        return None
    return Experts(module, dtype, product) if _is_the_same(module, own, product) else None


def _is_the_same(module: Any, own: Callable[..., Tensor], product: Product) -> bool:
    try:
        experts = Experts(module, next(module.parameters()).dtype, product)
        weight = experts.matrices[0]
        x = torch.linspace(-1, 1, 3 * weight.shape[2], device=weight.device).view(3, -1).to(weight)
        index = torch.tensor([[0, 1], [1, 0], [module.num_experts - 1, 0]], device=weight.device)
        share = torch.tensor([[0.75, 0.25], [0.5, 0.5], [1.0, -0.5]], device=weight.device).to(weight)
        return torch.allclose(own(module, x, index, share), experts(x, index, share), rtol=1e-4, atol=1e-5)
    except (AttributeError, IndexError, RuntimeError, TypeError):  # Built otherwise: its own forward stays.
        return False


def owns_a_matrix(module: nn.Module) -> bool:
    """Whether `module` multiplies by a weight of its own: a router, a convolution, a scan, an unknown linear layer."""
    if isinstance(module, nn.Embedding | nn.ParameterDict | nn.ParameterList):
        return False
    if type(module) in (nn.Linear, Conv1D):
        return False
    return any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))


class Steady(TorchFunctionMode):
    """Linear functions in fixed rows, activations without ends, whatever Python code calls them."""

    def __init__(self, product: Product) -> None:
        super().__init__()
        self.product = product

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func is F.linear and not given and args[0].ndim > 1:
            return self._linear(*args)
        kind = called(func, args, given)
        return func(*args, **given) if kind is None else steady(kind, args[0])

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        matrix = weight.detach().to(torch.promote_types(x.dtype, weight.dtype))
        out: Tensor = FixedLinear.apply(x, weight, matrix, self.product)  # type: ignore[no-untyped-call]
        return out if bias is None else out + bias


def steady_forward(module: nn.Module, product: Product) -> Callable[..., Any]:
    """The module's own forward under `Steady`."""
    own = module.forward

    def forward(*args: Any, **given: Any) -> Any:
        with Steady(product):
            return own(*args, **given)

    return forward
