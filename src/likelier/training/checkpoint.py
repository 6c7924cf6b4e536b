"""Checkpoints: master weights, optimiser state and position, written whole or not at all."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from likelier.errors import UsageError
from likelier.flags import flag
from likelier.models.folders import written_folder
from likelier.training.optimizer import reserve_state, state_tensors


@dataclass(slots=True)
class Position:
    """Where a run stands. One integer is the place in the data; the rest is bookkeeping of evaluations."""

    step: int = 0
    """Updates done."""
    pairs_seen: int = 0
    tokens_seen: int = 0
    flop: float = 0.0
    """Of the updates and of the reference's pass over their trees (`estimate.flops`), whether or not it was cached."""
    best: float | None = None
    best_step: int | None = None
    evaluations_since_best: int = 0
    best_by: str | None = None
    """The figure and the held-out rows that `best` was measured by: on others it says nothing."""
    carried: dict[str, float] = field(default_factory=dict)
    """What a method hands on from step to step besides the weights: a coefficient that it steers, running means."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a checkpoint belongs to: it is resumed on the same data, from the same start, with the same settings."""

    data: str
    """Hash of the trees, so of the rows, of the tokenizer and its template, and of what was cut."""
    start: str
    settings: dict[str, Any] = field(default_factory=dict)
    machine: str = ""
    """What the last bits depend on besides: processor, threads, versions. Another one is told of, not refused."""

    def require(self, other: Identity) -> None:
        """Raises `UsageError` naming the first difference from a checkpoint's identity `other`."""
        # The learning rate last: its default follows other settings, which then are what was changed.
        for name in sorted(
            {*self.settings, *other.settings}, key=lambda name: (name == "learning_rate", name)
        ):
            mine, theirs = self.settings.get(name), other.settings.get(name)
            if mine != theirs:
                raise UsageError(
                    f"--resume: {flag(name)} was {theirs} when this run began and is {mine} now; give the same,"
                    " or start a new run in another --out"
                )
        for what, mine, theirs in (
            ("content of --data (or how it is tokenised)", self.data, other.data),
            ("content of --model or --reference", self.start, other.start),
        ):
            if mine != theirs:
                raise UsageError(
                    f"--resume: the {what} has changed since this run began; start a new run in another --out"
                )


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    position: Position,
    identity: Identity,
    *,
    keep: int,
) -> Path:
    """Write `step-N` and drop the oldest beyond `keep`.

    Raises:
        WorkError: the disk is full or the folder cannot be written; the checkpoint before is intact.
    """
    target = folder / f"step-{position.step}"
    with written_folder(target) as beside:
        save_file(distinct(trainable(model)), beside / "weights.safetensors")
        save_file(distinct(state_tensors(optimizer)), beside / "optimizer.safetensors")
        state = {"position": asdict(position), "identity": asdict(identity)}
        (beside / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
    for old in _complete(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """The last complete checkpoint, or None."""
    complete = _complete(folder)
    return complete[-1] if complete else None


def read_state(checkpoint: Path) -> tuple[Position, Identity]:
    """Position and identity of a checkpoint.

    Raises:
        UsageError: the checkpoint is damaged.
    """
    try:
        state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        position, identity = Position(**state["position"]), Identity(**state["identity"])
        if position.step != _number(checkpoint):
            raise ValueError(f"it says that it is of step {position.step}")
        return position, identity
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(checkpoint, error) from None


def load_checkpoint(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put weights and optimiser state back, bit for bit.

    Raises:
        UsageError: the checkpoint is damaged.
    """
    try:
        state = checkpoint / "optimizer.safetensors"
        _require_whole(state, optimizer)
        load_weights(checkpoint / "weights.safetensors", model)
        _load_optimizer(state, optimizer)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise _damaged(checkpoint, error) from None


def _damaged(checkpoint: Path, error: Exception) -> UsageError:
    return UsageError(
        f"the checkpoint {checkpoint} is damaged ({' '.join(str(error).split())});"
        " delete it and --resume from the one before"
    )


@torch.no_grad()
def load_weights(file: Path, model: nn.Module) -> None:
    """Copy stored weights into the model's own tensors.

    Raises:
        ValueError: they are not those of this model; none has been copied then.
    """
    stored, own = load_file(file), trainable(model)
    for name, parameter in own.items():
        found = stored.get(name)
        if found is None or found.shape != parameter.shape or found.dtype != parameter.dtype:
            raise ValueError(f"{file.name} lacks {name} as {list(parameter.shape)} {parameter.dtype}")
    for name, parameter in own.items():
        parameter.copy_(stored[name])


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that train, by name, each once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _complete(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first: a folder is renamed into place only when it is whole."""
    numbered = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal()]
    return sorted([path for path in numbered if (path / "state.json").exists()], key=_number)


def _number(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def distinct(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As safetensors stores them; those that lie whole in main memory are not copied."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _require_whole(file: Path, optimizer: torch.optim.Optimizer) -> None:
    """Every parameter has its state, of its own shape: torch would take less in silence."""
    if not optimizer.state:
        reserve_state(optimizer)
    with safe_open(file, "pt") as stored:
        known = set(stored.keys())
        for name, own in state_tensors(optimizer).items():
            if name not in known or stored.get_slice(name).get_shape() != list(own.shape):
                raise ValueError(f"{file.name} lacks {name} as {list(own.shape)}")


@torch.no_grad()
def _load_optimizer(file: Path, optimizer: torch.optim.Optimizer) -> None:
    """Into the memory that the state has already: one tensor at a time is held twice."""
    with safe_open(file, "pt") as stored:
        for name, own in state_tensors(optimizer).items():
            own.copy_(stored.get_tensor(name))
