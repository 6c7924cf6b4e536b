"""What is said before step 0: one paragraph, and a plain warning where the settings cannot move the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor, log2
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from likelier.data.grouping import num_pairs
from likelier.data.trees import Tree
from likelier.scoring.forward import Way
from likelier.training.memory import gigabytes

_WAYS: Mapping[Way, str] = {
    "tree": "tree attention (each prompt is read once)",
    "mask": "trees as a dense mask over one row",
    "rows": "ordinary rows (this model takes no trees)",
}
_SAMPLE = 1 << 12
"""Entries of a matrix that are looked at."""
_LEAST_CHANGE = 2e-4
"""Of a layer's output. With SmolLM2-135M in float32, AdamW over the same four pairs again and again moved their
margin by 1.2 nats at 1.5e-4; over ever new pairs about a tenth of that is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is known of a run before its first step."""

    steps: int
    unit: str
    """`pairs`, or whatever else is trained on."""
    batch_size: int
    """Of them, per step."""
    epochs: float
    """Passes over the trees that the steps make."""
    trees: Sequence[Tree]
    """Of one epoch."""
    at_most: bool = False
    """Whether they may turn out smaller."""
    model: nn.Module
    lora_rank: int | None
    reference: str | None
    """In words: `the policy before its first update`, or a name; None where there is none."""
    precision: str
    way: Way
    max_tokens: int
    work: float
    """FLOP of the whole run, the reference's and the evaluations' passes included."""
    rate: float
    """FLOP/s of matrix products here."""
    seconds: float
    """What runs like this one took: an experience, not a measurement of this run."""
    memory: Mapping[str, int]
    """From `memory.memory`."""


def paragraph(outlook: Outlook) -> str:
    """The run in one paragraph: what is read, what is trained, against what, how long it takes, in what memory.

    Returns:
        One line of plain text.
    """
    return " ".join([_what_is_read(outlook), _what_is_trained(outlook), _what_it_takes(outlook)])


def cannot_move(model: nn.Module, *, learning_rates: Sequence[float], dtype: torch.dtype) -> str | None:
    """A warning where updates × learning rate cannot change what the model computes; None where they can.

    AdamW and RMSprop move a weight by about the learning rate per update, so after all updates by at most
    `T = Σ lr`. A layer of `K` inputs whose weights all moved by `T` in concert changes its output by at most
    `T √K / rms(W)` of it. Of that, products in bfloat16 see what is left after rounding: for a weight that lies
    on a bfloat16 number, nothing until `T` is half the spacing. Both are measured on the model's own weights.

    Args:
        model: as it stands before the first update, trained parameters with `requires_grad`.
        learning_rates: of every update.
        dtype: of matrix products.

    >>> layer = nn.Linear(100, 100)
    >>> cannot_move(layer, learning_rates=[1e-10] * 10, dtype=torch.float32).split(":")[0]
    'these updates cannot move the model'
    >>> cannot_move(layer, learning_rates=[1e-4] * 100, dtype=torch.float32) is None
    True
    """
    steps, total = len(learning_rates), sum(learning_rates)
    found = list(_trained_layers(model))
    if not steps or not found:
        return None
    seen = median(layer.change(total, steps, dtype) for layer in found)
    if seen >= _LEAST_CHANGE:
        return None
    size = median(layer.size for layer in found)
    start = (
        f"these updates cannot move the model: {steps} updates at a mean learning rate of {total / steps:.2g} "
        f"move a weight by at most {total:.2g}, typical weights are {size:.2g} in size, and "
    )
    remedy = f"raise --learning-rate (try {_enough(found, total, steps, dtype):.0e}), or take more --epochs"
    unrounded = median(layer.gain for layer in found) * total
    if unrounded >= _LEAST_CHANGE:
        coarse = max(dtype, found[0].master, key=lambda kind: torch.finfo(kind).eps)
        apart = torch.finfo(coarse).eps * 2.0 ** floor(log2(size))
        name = str(coarse).removeprefix("torch.")
        return f"{start}{name} rounds most of that away (its numbers lie {apart:.2g} apart there); {remedy}"
    return f"{start}a layer's output changes by at most {unrounded:.1g} of itself; {remedy}"


@dataclass(frozen=True, slots=True)
class _Layer:
    """A sample of a trained layer's weights, and what one unit of movement does to its output."""

    weights: Tensor
    """`[n]` float64."""
    gain: float
    """Relative change of the output per unit of mean movement of the weights."""
    master: torch.dtype

    @property
    def size(self) -> float:
        """Their root mean square."""
        return float(self.weights.square().mean().sqrt())

    def change(self, total: float, steps: int, dtype: torch.dtype) -> float:
        """The largest relative change of the output after updates that sum to `total`, as `dtype` sees it."""
        by = total / steps
        kept = (self.weights + by).to(self.master).double() != self.weights
        # A weight grows until its own precision swallows the next update.
        moved = min(total, 2 * by / torch.finfo(self.master).eps) * kept
        after = (self.weights + moved).to(self.master).to(dtype).double()
        return self.gain * float((after - self.weights.to(dtype).double()).abs().mean())


def _trained_layers(model: nn.Module) -> Iterator[_Layer]:
    """Linear layers under training; of an adapter's pair, B, seen through A and the base's weights."""
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "base_layer"):
            yield from _adapters(module)
        elif "lora_" not in name:
            weight = getattr(module, "weight", None)
            if isinstance(weight, Tensor) and weight.requires_grad and weight.dim() == 2:
                sample = _sample(weight)
                size = float(sample.square().mean().sqrt())
                inputs = weight.shape[0 if isinstance(module, Conv1D) else 1]
                if size > 0 and not isinstance(module, nn.Embedding):
                    yield _Layer(sample, inputs**0.5 / size, weight.dtype)


def _adapters(module: Any) -> Iterator[_Layer]:
    """`W + s B A`: moving B by T changes the output by at most `s r T rms(A) / rms(W)` of it."""
    size = float(_sample(module.base_layer.weight).square().mean().sqrt())
    for name, into in module.lora_A.items():
        out = module.lora_B[name].weight
        if out.requires_grad and size > 0:
            wide = float(_sample(into.weight).square().mean().sqrt()) * len(into.weight)
            yield _Layer(_sample(out), module.scaling[name] * wide / size, out.dtype)


def _sample(weight: Tensor) -> Tensor:
    flat = weight.detach().flatten()
    return flat[:: max(1, flat.numel() // _SAMPLE)].double().cpu()


def _enough(found: Sequence[_Layer], total: float, steps: int, dtype: torch.dtype) -> float:
    """A mean learning rate that would change outputs ten times as much as the least that matters."""
    factor = 1.0
    while (
        factor < 1e9
        and median(one.change(factor * total, steps, dtype) for one in found) < 10 * _LEAST_CHANGE
    ):
        factor *= 2
    return factor * total / steps


def _what_is_read(outlook: Outlook) -> str:
    trees = outlook.trees
    count = sum(len(tree.comparisons) or num_pairs(tree) for tree in trees)
    read = sum(tree.num_tokens for tree in trees)
    scored = sum(tree.branch_length(branch) for tree in trees for branch in range(len(tree.branches)))
    bound = "up to " if outlook.at_most else ""
    passes = "one epoch" if outlook.epochs == 1 else f"{outlook.epochs:.3g} epochs"
    return (
        f"{outlook.steps:,} steps of {outlook.batch_size} {outlook.unit}, {passes} of {count:,} {outlook.unit} in "
        f"{len(trees):,} trees; an epoch reads {bound}{read:,} tokens and scores {bound}{scored:,} of them."
    )


def _what_is_trained(outlook: Outlook) -> str:
    total = sum(parameter.numel() for parameter in outlook.model.parameters())
    trained = sum(parameter.numel() for parameter in outlook.model.parameters() if parameter.requires_grad)
    if outlook.lora_rank is not None:
        how = f"LoRA of rank {outlook.lora_rank}: {_count(trained)} of {_count(total)} parameters"
        how += f" ({trained / total:.2g} of them)" if trained < 0.001 * total else f" ({trained / total:.1%})"
    elif trained == total:
        how = f"Full training of {_count(total)} parameters"
    else:
        how = f"Training of {_count(trained)} of {_count(total)} parameters ({trained / total:.1%})"
    how += f", against {outlook.reference}" if outlook.reference else ""
    return (
        f"{how}; products in {outlook.precision}, {_WAYS[outlook.way]}, "
        f"{outlook.max_tokens:,} tokens per forward."
    )


def _what_it_takes(outlook: Outlook) -> str:
    share = outlook.work / (outlook.rate * outlook.seconds)
    memory = outlook.memory
    activations = memory["per_token"] * outlook.max_tokens
    parts = ", ".join(
        f"{name.replace('_', ' ')} {gigabytes(memory[name])}"
        for name in ("weights", "gradients", "optimizer", "working_copies", "head")
    )
    return (
        f"Expected: about {duration(outlook.seconds)} ({outlook.work:.2g} FLOP at {share:.0%} of the "
        f"{outlook.rate / 1e9:,.0f} GFLOP/s measured here), {gigabytes(memory['fixed'] + activations)} of memory "
        f"({parts}, activations {gigabytes(activations)})."
    )


def duration(seconds: float) -> str:
    """As people say it.

    >>> duration(42), duration(200), duration(5400), duration(200_000)
    ('42 s', '3 min', '1 h 30 min', '2 d 7 h')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def _count(parameters: int) -> str:
    if parameters >= 1e9:
        return f"{parameters / 1e9:.3g} B"
    return f"{parameters / 1e6:.3g} M" if parameters >= 1e5 else f"{parameters:,}"
