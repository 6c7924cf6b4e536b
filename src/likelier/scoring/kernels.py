"""The arithmetic of a forward pass: what runs in which precision, and in which shapes.

bfloat16 means here: inputs of matrix products in bfloat16, everything else in float32: residual stream,
norms, softmax, log-sum-exp, master weights, and the sum of gradients over micro-batches.

`Kernels` gives a model's own modules these forwards, and takes them away again:
- every linear layer; layers that read the same tensor (queries, keys and values) share one product (`products.py`,
  `weights.py`, `layers.py`);
- RMS norms, gated MLPs, experts and activations, where a check of numbers, not of names, shows that ours is the same
  function; routers and the like run as they are, with products and activations that read no place (`experts.py`).

Where a model's own code multiplies by a weight, or stumbles over bfloat16, all that it sees is float32 (`wide`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from likelier.scoring.activations import activation_forward
from likelier.scoring.experts import Experts, experts_of, owns_a_matrix, steady_forward
from likelier.scoring.layers import Embedding, GatedMLP, SharedInput, is_gated_mlp
from likelier.scoring.norms import norm_forward, rms_of
from likelier.scoring.products import fixed_rows_linear
from likelier.scoring.weights import GradientSums, WorkingWeights


class Kernels:
    """Forwards in `dtype` for the linear layers, norms and gated MLPs of `model`; `remove()` undoes it.

    Args:
        model: its parameters stay what they are; float32 or float64 masters.
        dtype: of the inputs of matrix products: bfloat16, or the parameters' own.
        probe: runs one forward of the model, during which layers that share an input are found.
    """

    def __init__(self, model: nn.Module, *, dtype: torch.dtype, probe: Callable[[], object]) -> None:
        self.dtype = dtype
        self._sums = GradientSums()
        self._patched: list[tuple[nn.Module, Callable[..., Any]]] = []
        self._weights: list[WorkingWeights | Experts] = []
        self.wide = False
        """Whether norms and linear layers hand on float32 though their inputs are in half precision."""
        # The norm of a float64 model computes in float32 as transformers wrote it; ours would be better, and
        # so differ from ordinary rows by more than 1e-12.
        fuse = dtype != torch.float64
        mlps = [m for m in model.modules() if fuse and is_gated_mlp(m)]
        inside = {id(child) for mlp in mlps for child in mlp.modules()}
        for norm in [m for m in model.modules() if fuse and isinstance(m, nn.Module)]:
            found = rms_of(norm)
            if found is not None:
                self._patch(norm, norm_forward(norm, found, self._handed_on))
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

    def summing(self, parameters: Sequence[Tensor]) -> AbstractContextManager[None]:
        """Backward passes in this context leave their sum in the `.grad` of `parameters` (`GradientSums.summing`)."""
        own = {id(parameter) for weights in self._weights for parameter in weights.parameters}
        return self._sums.summing(parameters, own=own)

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
        weights = WorkingWeights(linears, self.dtype, self._sums)
        self._weights.append(weights)
        return weights

    def _shared(self, linears: Sequence[nn.Module]) -> SharedInput:
        return SharedInput(self._own(*linears))

    def _embedding_forward(self, embedding: nn.Embedding) -> Callable[[Tensor], Tensor]:
        def forward(ids: Tensor) -> Tensor:
            rows: Tensor = Embedding.apply(ids, embedding.weight, embedding.padding_idx, self._sums)  # type: ignore[no-untyped-call]
            return rows

        return forward

    def _mlp_forward(self, mlp: nn.Module) -> Callable[[Tensor], Tensor]:
        into, out = self._own(mlp.gate_proj, mlp.up_proj), self._own(mlp.down_proj)  # type: ignore[arg-type]

        def forward(x: Tensor) -> Tensor:
            parameters = (*into.parameters, *out.parameters)
            result: Tensor = GatedMLP.apply(x, into, out, *parameters)  # type: ignore[no-untyped-call]
            return result

        return forward


def _member_forward(
    shared: SharedInput, index: int, dtype: Callable[[], torch.dtype]
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


def _output_head(model: nn.Module) -> nn.Module | None:
    get = getattr(model, "get_output_embeddings", None)
    return get() if get is not None else None
