"""The floor: how much arithmetic a run is, and how fast this machine does it.

`flops` over `product_rate` is the time of a run that does nothing but matrix products; the share of it that a
run reaches is its MFU.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from likelier.data.trees import Tree

_COLUMNS = 8192
"""A head is timed on that much of its vocabulary: the rate of a product so wide changes no more."""
_LEAST_ROWS = 256
_ATTENTION = ("full_attention", "sliding_attention", "chunked_attention")


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight that a token is multiplied with, `[outputs, inputs]`."""

    outputs: int
    inputs: int
    trained: bool
    is_head: bool = False
    used: float = 1.0
    """The share of tokens that meet it: below 1 for the experts of a mixture."""

    @property
    def size(self) -> int:
        """Its parameters."""
        return self.outputs * self.inputs


def matrices(model: nn.Module) -> list[Matrix]:
    """Every matrix of the forward pass but embedding look-ups; each expert of a mixture is one.

    >>> matrices(nn.ModuleDict({"embed": nn.Embedding(9, 4), "layer": nn.Linear(4, 3)}))
    [Matrix(outputs=3, inputs=4, trained=True, is_head=False, used=1.0)]
    """
    get_head = getattr(_inner(model), "get_output_embeddings", None)
    head = get_head() if get_head is not None else None
    in_head = {id(module) for module in head.modules()} if head is not None else set()
    experts, share = _experts(model)
    found = []
    for name, module in model.named_modules():
        # The module that an adapter saves whole stands beside its original, which does not run.
        if isinstance(module, nn.Embedding) or ".original_module" in name:
            continue
        for outputs, inputs, parameter, count in _shapes(module):
            used = share if count > 1 and count == experts else 1.0
            one = Matrix(outputs, inputs, parameter.requires_grad, id(module) in in_head, used)
            found += [one] * count
    return found


def flops(model: nn.Module, trees: Sequence[Tree], *, training: bool) -> float:
    """Floating-point operations of one pass over `trees`, every node read once.

    Per token and parameter of the blocks' matrices 2 for the forward pass, and in training 2 for the
    gradient of the input and 2 for that of the weight, where it is trained; the same for the head, on scored
    positions only; and attention's own two products, over the keys that each query sees. Embedding look-ups
    are none.

    Args:
        model: a causal language model of transformers, or a PeftModel around one.
        trees: what is read; empty gives 0.
        training: with the gradients.

    >>> from likelier.data.trees import tree_of
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> shape = dict(vocab_size=32, hidden_size=16, intermediate_size=16, num_attention_heads=2)
    >>> model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, **shape))
    >>> tree = tree_of([1, 2], [[3, 4], [5]])  # 5 tokens, 3 scored, 3 + 7 + 3 keys seen
    >>> flops(model, [tree], training=False) == 2 * 5 * (7 * 16 * 16) + 2 * 3 * (32 * 16) + 13 * 4 * 16
    True
    """
    read = sum(tree.num_tokens for tree in trees)
    scored = sum(tree.branch_length(branch) for tree in trees for branch in range(len(tree.branches)))
    total = 0.0
    for matrix in matrices(model):
        each = 2.0 if not training else 6.0 if matrix.trained else 4.0
        total += each * matrix.size * matrix.used * (scored if matrix.is_head else read)
    return total + (3.0 if training else 1.0) * _attention_flops(model, trees)


def product_rate(model: nn.Module, *, rows: int, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """FLOP/s of `F.linear`, forward and both gradients, at the model's own shapes, on its device.

    Each shape counts by its share of the arithmetic, at the best of its repetitions. No random number of the
    process is used up.

    Args:
        model: its linear layers give the shapes.
        rows: tokens in a forward; fewer are timed where one round of them would not fit into `seconds`.
        dtype: of the products' inputs.
        seconds: about how long to measure, after one warm-up round.

    Raises:
        ValueError: the model has no linear layer.
    """
    counts: dict[tuple[int, int], float] = {}
    for matrix in matrices(model):
        shape = (matrix.outputs, matrix.inputs)
        counts[shape] = counts.get(shape, 0.0) + matrix.used
    work = {shape: shape[0] * shape[1] * count for shape, count in counts.items() if count}
    if not work:
        raise ValueError("the model has no linear layer to time")
    total = sum(work.values())
    device = next(model.parameters()).device
    time_share = 0.0
    for shape, size in work.items():
        rate = _shape_rate(shape, rows=rows, dtype=dtype, device=device, seconds=seconds * size / total)
        time_share += size / total / rate
    return 1.0 / time_share


def _shape_rate(
    shape: tuple[int, int], *, rows: int, dtype: torch.dtype, device: torch.device, seconds: float
) -> float:
    outputs, inputs = min(shape[0], _COLUMNS), shape[1]
    few = min(rows, _LEAST_ROWS)
    first = _Product(few, outputs, inputs, dtype, device)
    first.seconds()
    # At least two repetitions have to fit.
    fitting = int(few * seconds / 2 / first.seconds())
    product = first if fitting <= few else _Product(min(rows, fitting), outputs, inputs, dtype, device)
    times = [product.seconds(), product.seconds()]
    while sum(times) < seconds:
        times.append(product.seconds())
    return product.flops / min(times)


class _Product:
    """One linear layer with inputs and an output gradient, ready to be timed."""

    def __init__(
        self, rows: int, outputs: int, inputs: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        noise = torch.Generator(device).manual_seed(0)
        self.flops = 6.0 * rows * outputs * inputs
        self.x, self.weight, self.grad = (
            torch.randn(*size, generator=noise, device=device).to(dtype)
            for size in ((rows, inputs), (outputs, inputs), (rows, outputs))
        )

    def seconds(self) -> float:
        """Of one forward and both gradients."""
        _synchronize(self.x.device)
        begun = time.perf_counter()
        with torch.no_grad():
            F.linear(self.x, self.weight)
            torch.mm(self.grad, self.weight)
            torch.mm(self.grad.T, self.x)
        _synchronize(self.x.device)
        return time.perf_counter() - begun


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _shapes(module: nn.Module) -> Iterator[tuple[int, int, Tensor, int]]:
    """`(outputs, inputs, parameter, how many)` of a module's own matrices, quantised or not."""
    # The weight must be the module's own: an adapter's layer shows that of the layer it wraps.
    weight = module._parameters.get("weight")
    if hasattr(module, "in_features") and hasattr(module, "out_features") and weight is not None:
        yield int(module.out_features), int(module.in_features), weight, 1  # type: ignore[arg-type]
    elif isinstance(module, Conv1D):
        yield module.weight.shape[1], module.weight.shape[0], module.weight, 1
    else:
        for parameter in module.parameters(recurse=False):
            if parameter.dim() == 2:
                yield parameter.shape[0], parameter.shape[1], parameter, 1
            elif parameter.dim() == 3:
                yield parameter.shape[1], parameter.shape[2], parameter, parameter.shape[0]


def _experts(model: nn.Module) -> tuple[int, float]:
    """The number of experts, and the share of them that a token goes through; (0, 1) without a mixture."""
    config = text_config(model)
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    experts = next((int(getattr(config, name)) for name in names if getattr(config, name, None)), 0)
    active = getattr(config, "num_experts_per_tok", None)
    return (experts, int(active) / experts) if experts and active else (0, 1.0)


def text_config(model: nn.Module) -> Any:
    """The configuration of the language model; None for a module without one."""
    config = getattr(_inner(model), "config", None)
    return config.get_text_config() if config is not None else None


def _inner(model: nn.Module) -> nn.Module:
    """Without the wrapper of an adapter."""
    get_base = getattr(model, "get_base_model", None)
    return get_base() if get_base is not None else model


def _attention_flops(model: nn.Module, trees: Sequence[Tree]) -> float:
    """Of queries times keys and weights times values in one forward: 2 (d_k + d_v) per head and key seen."""
    config = text_config(model)
    heads = getattr(config, "num_attention_heads", None)
    if not heads:
        return 0.0
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    wide = (getattr(config, "qk_head_dim", None) or dim) + (getattr(config, "v_head_dim", None) or dim)
    layers: dict[int | None, int] = {}
    for window in _windows(config):
        layers[window] = layers.get(window, 0) + 1
    seen = sum(count * _keys_seen(trees, window) for window, count in layers.items())
    return float(2 * heads * wide * seen)


def _windows(config: Any) -> list[int | None]:
    """Per attention layer the tokens that a query sees at most; None is all before it."""
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    if kinds is None:
        return [window] * int(config.num_hidden_layers)
    return [None if kind == "full_attention" else window for kind in kinds if kind in _ATTENTION]


def _keys_seen(trees: Sequence[Tree], window: int | None) -> int:
    """Σ over all tokens of `min(position + 1, window)`."""
    total = 0
    for tree in trees:
        ends: list[int] = []
        for node in tree.nodes:
            start = ends[node.parent] if node.parent >= 0 else 0
            ends.append(start + len(node.tokens))
            total += _ramp(ends[-1], window) - _ramp(start, window)
    return total


def _ramp(length: int, window: int | None) -> int:
    """Σ over the first `length` positions."""
    rising = length if window is None else min(length, window)
    return rising * (rising + 1) // 2 + (length - rising) * rising
