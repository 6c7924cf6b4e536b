"""The arithmetic of a forward pass: what runs in which precision, and in which shapes.

bfloat16 means here: inputs of matrix products in bfloat16, everything else in float32: residual stream,
norms, softmax, log-sum-exp, master weights, and the sum of gradients over micro-batches. The bfloat16 copy of
a weight is made once per update (`Kernels.refresh`), not once per micro-batch.

On CPU the library picks its matrix kernel by the number of rows, so the same token gets other bits in another
pack. Here every forward product therefore has `ROWS` rows: a row's numbers depend on the row alone. Backward
products run at full size.

`Kernels` gives a model's own modules these forwards, and takes them away again:
- every linear layer; layers that read the same tensor (queries, keys and values) share one product;
- RMS norms, gated MLPs, experts and activations, where a check of numbers, not of names, shows that ours is the same
  function; routers and the like run as they are, with products and activations that read no place (`experts.py`).

Where a model's own code multiplies by a weight, or stumbles over bfloat16, all that it sees is float32 (`wide`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from likelier.scoring.activations import activation_forward, silu
from likelier.scoring.experts import Experts, experts_of, owns_a_matrix, steady_forward

ROWS = 128
"""Of a forward product on a CPU: more are a few percent faster, but a pack's last block is padded (docs/log.md)."""
_TILE = {torch.float32: 16, torch.float64: 48}
"""Columns of a forward product are a multiple of this on a CPU: on an AMD processor the library computes those past
its own tile (16 and 24) differently for some rows of a block (docs/log.md)."""
_PRODUCT_COLUMNS = 8192
"""Rows of a weight whose gradient is made at once: that of a head with its vocabulary would be the peak of memory."""
_SUM_NUMBERS = 1 << 18
"""Numbers of a gradient that are widened to float32 at once while they are added up: they stay in the cache."""


class Kernels:
    """Forwards in `dtype` for the linear layers, norms and gated MLPs of `model`; `remove()` undoes it.

    Args:
        model: its parameters stay what they are; float32 or float64 masters.
        dtype: of the inputs of matrix products: bfloat16, or the parameters' own.
        probe: runs one forward of the model, during which layers that share an input are found.
    """

    def __init__(self, model: nn.Module, *, dtype: torch.dtype, probe: Callable[[], object]) -> None:
        self.dtype = dtype
        self._summing = False
        self._kept: dict[int, Tensor] = {}
        """By parameter, the memory for its `.grad`, while nothing has been added to it."""
        self._patched: list[tuple[nn.Module, Callable[..., Any]]] = []
        self._weights: list[WorkingWeights | Experts] = []
        self.wide = False
        """Whether norms and linear layers hand on float32 though their inputs are in half precision."""
        # The norm of a float64 model computes in float32 as transformers wrote it; ours would be better, and
        # so differ from ordinary rows by more than 1e-12.
        fuse = dtype != torch.float64
        mlps = [m for m in model.modules() if fuse and _is_gated_mlp(m)]
        inside = {id(child) for mlp in mlps for child in mlp.modules()}
        for norm in [m for m in model.modules() if fuse and isinstance(m, nn.Module)]:
            offset = _rms_offset(norm)
            if offset is not None:
                self._patch(norm, _norm_forward(norm, offset, self._handed_on))
        for mlp in mlps:
            self._patch(mlp, self._mlp_forward(mlp))
        for embedding in [m for m in model.modules() if type(m) is nn.Embedding and m.max_norm is None]:
            self._patch(embedding, self._embedding_forward(embedding))
        self._patch_products(model)
        head = _output_head(model)
        linears = [m for m in model.modules() if _is_linear(m) and id(m) not in inside and m is not head]
        for group in _siblings(linears, probe):
            shared = self._shared(group)
            for index, linear in enumerate(group):
                self._patch(linear, _member_forward(shared, index, self._handed_on))
        self.head = self._own(head) if head is not None and _is_linear(head) else None
        self.install()
        if dtype in (torch.bfloat16, torch.float16) and not self.wide:
            self.wide = _stumbles(probe)

    def refresh(self) -> None:
        """Bring the working copies up to date after an update of the weights."""
        for weights in self._weights:
            weights.refresh()

    @contextmanager
    def summing(self, parameters: Sequence[Tensor]) -> Iterator[None]:
        """Backward passes in this context leave their sum in the `.grad` of `parameters`, whatever it held before.

        Its memory is kept, since fresh pages for all of it cost more than a pass over it. The first product of a
        weight is written there, neither zeroed before nor copied in float32; the others are added in place.
        """
        own = {id(parameter) for weights in self._weights for parameter in weights.parameters}
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

    def install(self) -> None:
        """Give the modules our forwards."""
        for module, forward in self._patched:
            module.forward = forward

    def remove(self) -> None:
        """Give them their own again."""
        for module, _ in self._patched:
            module.__dict__.pop("forward", None)

    def _handed_on(self) -> torch.dtype:
        """What norms and linear layers hand on."""
        return torch.promote_types(self.dtype, torch.float32) if self.wide else self.dtype

    def _patch_products(self, model: nn.Module) -> None:
        """Activations, experts, and modules that multiply by a weight of their own; and those that hold such."""
        on_cpu = not next(model.parameters()).is_cuda
        own = set()
        for module in model.modules():
            experts = experts_of(module, self.dtype, fixed_rows_linear)
            if experts is not None:
                self._weights.append(experts)
                self._patch(module, experts)
            elif owns_a_matrix(module):
                own.add(module)
            elif on_cpu and (activation := activation_forward(module)) is not None:
                self._patch(module, activation)
            self.wide |= experts is not None or module in own
        patched = {id(module) for module, _ in self._patched}
        for module in model.modules() if on_cpu else ():
            if id(module) not in patched and (module in own or own.intersection(module.children())):
                self._patch(module, steady_forward(module, fixed_rows_linear))

    def _patch(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        self._patched.append((module, forward))

    def _own(self, *linears: nn.Module) -> WorkingWeights:
        weights = WorkingWeights(linears, self.dtype, self)
        self._weights.append(weights)
        return weights

    def _shared(self, linears: Sequence[nn.Module]) -> _SharedInput:
        return _SharedInput(self._own(*linears))

    def _embedding_forward(self, embedding: nn.Embedding) -> Callable[[Tensor], Tensor]:
        def forward(ids: Tensor) -> Tensor:
            rows: Tensor = Embedding.apply(ids, embedding.weight, embedding.padding_idx, self)  # type: ignore[no-untyped-call]
            return rows

        return forward

    def _mlp_forward(self, mlp: nn.Module) -> Callable[[Tensor], Tensor]:
        into, out = self._own(mlp.gate_proj, mlp.up_proj), self._own(mlp.down_proj)  # type: ignore[arg-type]

        def forward(x: Tensor) -> Tensor:
            parameters = (*into.parameters, *out.parameters)
            result: Tensor = GatedMLP.apply(x, into, out, *parameters)  # type: ignore[no-untyped-call]
            return result

        return forward


class WorkingWeights:
    """One or several linear layers as one matrix `[N, K]` in the working precision."""

    def __init__(self, linears: Sequence[nn.Module], dtype: torch.dtype, owner: Kernels) -> None:
        self.owner = owner
        self.linears = list(linears)
        self.sizes = [_out_features(linear) for linear in linears]
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
            grads.append(self.owner.handed(bias, total))
        return grads

    def _weight_gradients(
        self,
        weights: list[Tensor],
        grad_out: Tensor,
        parts: Sequence[Tensor],
        x: Tensor,
        needed: Sequence[bool],
    ) -> list[Tensor | None]:
        handed = self.owner.handed
        if any(self.transposed) or not all(needed[: len(weights)]):
            return [
                None if not need else handed(weight, x.T @ part if conv else part.T @ x)
                for weight, part, conv, need in zip(weights, parts, self.transposed, needed, strict=False)
            ]
        if len(weights) == 1:
            return [self.owner.product(weights[0], grad_out, x)]
        products = (grad_out.T @ x).split(self.sizes)
        return [handed(weight, product) for weight, product in zip(weights, products, strict=True)]


def fixed_rows_linear(
    x: Float[Tensor, "T K"],
    matrix: Float[Tensor, "N K"],
    bias: Float[Tensor, " N"] | None = None,
    *,
    rows: int = ROWS,
) -> Float[Tensor, "T N"]:
    """`x @ matrix.T + bias` for `[T, K]` and `[N, K]`; on CPU in products of `rows` rows, the last padded.

    >>> x = torch.randn(300, 8)
    >>> torch.equal(fixed_rows_linear(x, torch.eye(8))[290:], fixed_rows_linear(x[290:], torch.eye(8)))
    True
    """
    if x.is_cuda:
        return F.linear(x, matrix, bias)
    out = x.new_empty(len(x), len(matrix))
    full = len(x) - len(x) % rows
    for start in range(0, full, rows):
        _product(x[start : start + rows], matrix, bias, out[start : start + rows])
    if full < len(x):
        padded = x.new_zeros(rows, x.shape[1])
        padded[: len(x) - full] = x[full:]
        last = _product(padded, matrix, bias, x.new_empty(rows, len(matrix)))
        out[full:] = last[: len(x) - full]
    return out


def _product(x: Tensor, matrix: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    """`out = x @ matrix.T + bias`, columns past a whole number of tiles apart, as a tile of their own."""
    tail = len(matrix) % _TILE.get(x.dtype, 1)
    whole = len(matrix) - tail
    if whole:
        _multiply(x, matrix[:whole], None if bias is None else bias[:whole], out[:, :whole])
    if tail:
        tile = F.pad(matrix[whole:], (0, 0, 0, _TILE[x.dtype] - tail))
        columns = _multiply(x, tile, None, x.new_empty(len(x), len(tile)))[:, :tail]
        out[:, whole:] = columns if bias is None else columns + bias[whole:]
    return out


def _multiply(x: Tensor, matrix: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    if bias is None:
        return torch.mm(x, matrix.T, out=out)
    return torch.addmm(bias, x, matrix.T, out=out)


class SharedLinear(torch.autograd.Function):
    """Linear layers that read the same tensor, as one product: `[…, K]` -> one `[…, N_i]` per layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: WorkingWeights, *parameters: Tensor) -> tuple[Tensor, ...]:
        flat = x.reshape(-1, x.shape[-1]).to(weights.dtype)
        out = fixed_rows_linear(flat, weights.matrix, weights.bias)
        _keep_input(ctx, x, flat)
        ctx.weights, ctx.shape, ctx.dtype = weights, x.shape, x.dtype
        parts = out.split(weights.sizes, dim=1)
        return tuple(part.view(*x.shape[:-1], part.shape[1]) for part in parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (flat,) = _kept_input(ctx)
        weights: WorkingWeights = ctx.weights
        parts = [grad.reshape(len(flat), -1).to(weights.dtype) for grad in grads]
        grad_out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_out @ weights.matrix).view(ctx.shape).to(ctx.dtype)
        return grad_x, None, *weights.gradients(grad_out, flat, ctx.needs_input_grad[2:])


class _SharedInput:
    """The layers of a `SharedLinear`: the first call with a tensor computes for all."""

    def __init__(self, weights: WorkingWeights) -> None:
        self.weights = weights
        self._input: Tensor | None = None
        self._outputs: list[Tensor | None] = []

    def __call__(self, index: int, x: Tensor) -> Tensor:
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
        _keep_input(ctx, x, flat, gate_up)
        ctx.into, ctx.out, ctx.shape, ctx.dtype = into, out, x.shape, x.dtype
        return result.view(*x.shape[:-1], result.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        flat, gate_up = _kept_input(ctx)
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
    def forward(ctx: Any, ids: Tensor, weight: Tensor, padding_idx: int | None, owner: Kernels) -> Tensor:
        ctx.save_for_backward(ids, weight)
        ctx.padding_idx, ctx.owner = padding_idx, owner
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
        in_place = ctx.owner.sum_of(weight)
        total = torch.zeros_like(weight) if in_place is None else in_place
        total.index_add_(0, rows, flat.to(weight.dtype))
        return None, total if in_place is None else None, None, None


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


def _keep_input(ctx: Any, x: Tensor, flat: Tensor, *more: Tensor) -> None:
    """Save `flat` for the backward, or what the norm that made it has saved anyway: a pass over it costs less."""
    made = getattr(x, "made_of", None)
    ctx.made = None if made is None else (made[3], flat.dtype)
    ctx.save_for_backward(*([flat] if made is None else made[:3]), *more)


def _kept_input(ctx: Any) -> tuple[Tensor, ...]:
    """What `_keep_input` saved: `flat` and `more`."""
    saved: tuple[Tensor, ...] = ctx.saved_tensors
    if ctx.made is None:
        return saved
    x, weight, scale, *more = saved
    return _normed(x, weight, scale, *ctx.made).flatten(0, -2), *more


@dataclass(frozen=True)
class _Rms:
    offset: float
    epsilon: float


def _norm_forward(
    norm: nn.Module, found: _Rms, dtype: Callable[[], torch.dtype]
) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        # From the residual stream (float32) to a product (working precision); from its output, back up.
        out = dtype() if x.dtype == torch.float32 else torch.promote_types(x.dtype, torch.float32)
        weight, offset = norm.weight, found.offset
        normed: Tensor
        normed, scale = RMSNorm.apply(x, weight, offset, found.epsilon, out)  # type: ignore[no-untyped-call]
        normed.made_of = (x.detach(), weight.detach(), scale, offset)  # type: ignore[attr-defined, operator]
        return normed

    return forward


def _member_forward(
    shared: _SharedInput, index: int, dtype: Callable[[], torch.dtype]
) -> Callable[[Tensor], Tensor]:
    return lambda x: shared(index, x).to(dtype())


@torch.no_grad()
def _stumbles(probe: Callable[[], object]) -> bool:
    """Whether the model's own code cannot take what its layers hand on: float32 met half precision."""
    try:
        probe()
    except RuntimeError:
        return True
    return False


@torch.no_grad()
def _rms_offset(module: nn.Module) -> _Rms | None:
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
            return _Rms(offset, epsilon)
    return None


@torch.no_grad()
def _is_gated_mlp(module: nn.Module) -> bool:
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


def _siblings(linears: list[nn.Module], probe: Callable[[], object]) -> list[list[nn.Module]]:
    """`linears` grouped by the tensor they read in one forward; unused or reused layers stand alone."""
    order: list[tuple[Tensor, nn.Module]] = []
    # Inputs are held until the end, so that no two of them share an address.
    hooks = [m.register_forward_pre_hook(lambda module, x: order.append((x[0], module))) for m in linears]
    try:
        with torch.no_grad():
            probe()
    finally:
        for hook in hooks:
            hook.remove()
    calls = [id(module) for _, module in order]
    groups: dict[tuple[int, bool], list[nn.Module]] = {}
    alone = []
    for module in linears:
        if calls.count(id(module)) == 1 and not isinstance(module, Conv1D):
            read = next(x for x, m in order if m is module)
            groups.setdefault((id(read), module.weight.requires_grad), []).append(module)  # type: ignore[arg-type]
        else:
            alone.append([module])
    return [*groups.values(), *alone]


def _is_linear(module: nn.Module) -> bool:
    return type(module) in (nn.Linear, Conv1D)


def _out_features(linear: nn.Module) -> int:
    return linear.nf if isinstance(linear, Conv1D) else linear.out_features  # type: ignore[return-value]


def _output_head(model: nn.Module) -> nn.Module | None:
    get = getattr(model, "get_output_embeddings", None)
    return get() if get is not None else None
