"""What a run keeps in memory, before it runs: on a Linux CPU running out is a kill without a word."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from likelier.data.trees import Tree
from likelier.errors import UsageError
from likelier.training.estimate import Matrix, matrices, text_config

_STATES = {"adamw": 2, "rmsprop": 1}
"""Numbers that the optimiser keeps per trained one."""
_HEAD_ROWS = 128
_HEAD_BLOCK = 1 << 26
"""Bytes of logits that the head holds at once (`scoring/head.py`)."""
_MOST_TOKENS = {"cpu": 1536, "cuda": 16384}
"""Past that a forward is no faster."""
_STEP = 256
"""Forwards run in blocks of so many rows."""
_ROOM = 0.5
"""The share of free memory that activations may be estimated to take: the estimate is rough."""


def memory(
    model: nn.Module,
    *,
    dtype: torch.dtype,
    optimizer: Literal["adamw", "rmsprop"],
    trainable: Iterable[Tensor],
    checkpointing: bool = False,
) -> dict[str, int]:
    """Bytes of a training run by what they are for.

    Args:
        model: with its weights.
        dtype: of matrix products; in another precision than the weights they read working copies.
        optimizer: which states it keeps.
        trainable: the parameters that it updates.
        checkpointing: activations are recomputed layer by layer.

    Returns:
        `weights`, `gradients`, `optimizer`, `working_copies` and `head` (its logits and its weight's gradient
        while they are made), which are fixed, their sum `fixed`, and a rough `per_token` of activations.

    >>> found = memory(nn.Linear(8, 4, bias=False), dtype=torch.float32, optimizer="adamw", trainable=[])
    >>> found["weights"], found["gradients"], found["fixed"]
    (128, 0, 128)
    """
    trained = sum(parameter.numel() * parameter.element_size() for parameter in trainable)
    found = matrices(model)
    fixed = {
        "weights": sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()),
        "gradients": trained,
        "optimizer": trained * _STATES[optimizer],
        "working_copies": _working_copies(model, found, dtype),
        "head": sum(_head_bytes(matrix) for matrix in found if matrix.is_head),
    }
    per_token = _per_token(model, found, dtype.itemsize, checkpointing=checkpointing)
    return {**fixed, "fixed": sum(fixed.values()), "per_token": per_token}


def choose_max_tokens(
    needed: Mapping[str, int], *, longest: int, device: torch.device, available: int | None
) -> int:
    """Tokens per forward: 1536 on a CPU and 16384 on CUDA, fewer where memory is short.

    Called once the model stands with its working copies; gradients, the optimiser's state, the head's logits
    and the activations are what is still to come.

    Args:
        needed: from `memory`.
        longest: tokens of the longest path of a tree (`longest_path`): never less than that.
        device: where the model runs.
        available: bytes free there (`available_memory`); None where that is unknown.

    Raises:
        UsageError: what is fixed exceeds the memory, before a single token is read.

    >>> needed = {"gradients": 400, "optimizer": 800, "head": 0, "fixed": 1600, "per_token": 1}
    >>> choose_max_tokens(needed, longest=300, device=torch.device("cpu"), available=3000)
    768
    """
    most = _MOST_TOKENS.get(device.type, _MOST_TOKENS["cpu"])
    if available is None:
        return max(most, longest)
    to_come = needed["gradients"] + needed["optimizer"] + needed["head"]
    if to_come > available:
        raise UsageError(
            f"not enough memory: gradients and optimiser need {gigabytes(to_come)} and {gigabytes(available)} "
            f"are free ({gigabytes(needed['fixed'])} with the weights); train an adapter (--lora-rank 16), "
            "take --optimizer rmsprop, or a smaller model"
        )
    fitting = int(_ROOM * (available - to_come)) // max(1, needed["per_token"])
    return max(min(most, fitting // _STEP * _STEP), longest)


def longest_path(trees: Iterable[Tree]) -> int:
    """Tokens of the longest answer with all that it continues.

    >>> from likelier.data.trees import tree_of
    >>> longest_path([tree_of([1, 2], [[3], [4, 5, 6]]), tree_of([1], [[2]])])
    5
    """
    return max((sum(_path_lengths(tree, branch)) for tree in trees for branch in tree.branches), default=0)


def available_memory(device: torch.device) -> int | None:
    """Bytes that can still be had on `device`; None where the system does not say.

    On Linux what the kernel calls available, or what the process's group may still take, if that is less; on
    other systems the whole of the memory, where it is known.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + cached)
    rooms = [_linux_available(Path("/proc/meminfo")), *_group_rooms(Path("/sys/fs/cgroup"))]
    known = [room for room in rooms if room is not None]
    return min(known) if known else _physical_memory()


def gigabytes(size: float) -> str:
    """As people read it.

    >>> gigabytes(2.52e9), gigabytes(3e7)
    ('2.5 GB', '0.03 GB')
    """
    return f"{size / 1e9:.2g} GB" if size < 1e10 else f"{size / 1e9:.0f} GB"


def _working_copies(model: nn.Module, found: Sequence[Matrix], dtype: torch.dtype) -> int:
    """In the weights' own precision only layers that read one input lie side by side in a copy: an upper bound."""
    parameter = next(iter(model.parameters()), None)
    if parameter is None or parameter.dtype != dtype:
        return dtype.itemsize * sum(matrix.size for matrix in found)
    width = getattr(text_config(model), "hidden_size", None)
    return dtype.itemsize * sum(m.size for m in found if m.inputs == width and not m.is_head)


def _head_bytes(head: Matrix) -> int:
    logits = 2 * 4 * _HEAD_ROWS * head.outputs + _HEAD_BLOCK
    return logits + (4 * head.size if head.trained else 0)


def _per_token(model: nn.Module, found: Sequence[Matrix], itemsize: int, *, checkpointing: bool) -> int:
    """What the backward pass finds: per layer the outputs of products, the residual stream, and attention's inputs.

    The residual stream twice, and queries, keys and values, are float32; fitted to what autograd saves.
    """
    config = text_config(model)
    layers = max(1, int(getattr(config, "num_hidden_layers", 1)))
    width = int(getattr(config, "hidden_size", 0))
    heads = int(getattr(config, "num_attention_heads", 0) or 0)
    groups = int(getattr(config, "num_key_value_heads", None) or heads)
    dim = int(getattr(config, "head_dim", None) or (width // heads if heads else 0))
    outputs = sum(m.outputs * m.used for m in found if not m.is_head) / layers
    layer = 10 * width + 4 * (heads + 2 * groups) * dim + itemsize * outputs
    return int(layer + 4 * width * layers if checkpointing else layer * layers)


def _path_lengths(tree: Tree, node: int) -> list[int]:
    return [len(tree.nodes[step].tokens) for step in tree.path(node)]


def _linux_available(meminfo: Path) -> int | None:
    for line in _lines(meminfo):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _group_rooms(root: Path) -> list[int | None]:
    """What the limits of a container or of a batch system leave, in the second version of control groups."""
    own = next((line[3:].strip("/\n") for line in _lines(Path("/proc/self/cgroup")) if line[:3] == "0::"), "")
    folders = [root / own, *(root / own).parents]
    return [_group_room(folder) for folder in folders if folder == root or root in folder.parents]


def _group_room(folder: Path) -> int | None:
    limit, used = _number(folder / "memory.max"), _number(folder / "memory.current")
    if limit is None or used is None:
        return None
    cached = [
        int(line.split()[1]) for line in _lines(folder / "memory.stat") if line.startswith("inactive_file")
    ]
    return max(0, limit - used + sum(cached))


def _number(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].strip().isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []


def _physical_memory() -> int | None:
    if not hasattr(os, "sysconf") or not {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(os.sysconf_names):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
