"""Checkpoints: master weights, optimiser state and position, written whole or not at all."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from likelier.errors import UsageError
from likelier.models.folders import written_folder


@dataclass(slots=True)
class Position:
    """Where a run stands. One integer is the place in the data; the rest is bookkeeping of evaluations."""

    step: int = 0
    """Updates done."""
    pairs_seen: int = 0
    tokens_seen: int = 0
    best: float | None = None
    best_step: int | None = None
    evaluations_since_best: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """What a checkpoint belongs to: it is resumed on the same data, from the same start, with the same settings."""

    data: str
    start: str
    settings: dict[str, Any] = field(default_factory=dict)

    def require(self, other: Identity) -> None:
        """Raises `UsageError` naming the first difference from a checkpoint's identity `other`."""
        for name in sorted({*self.settings, *other.settings}):
            mine, theirs = self.settings.get(name), other.settings.get(name)
            if mine != theirs:
                flag = name.rstrip("_").replace("_", "-")
                raise UsageError(
                    f"--resume: --{flag} was {theirs} when this run began and is {mine} now; give the same,"
                    " or start a new run in another --out"
                )
        for what, mine, theirs in (
            ("content of --data", self.data, other.data),
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
        save_file(_distinct(trainable(model)), beside / "weights.safetensors")
        save_file(_optimizer_tensors(optimizer), beside / "optimizer.safetensors")
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
        return Position(**state["position"]), Identity(**state["identity"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(checkpoint, error) from None


def load_checkpoint(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put weights and optimiser state back, bit for bit.

    Raises:
        UsageError: the checkpoint is damaged.
    """
    try:
        load_weights(checkpoint / "weights.safetensors", model)
        _load_optimizer(optimizer, load_file(checkpoint / "optimizer.safetensors"))
    except (SafetensorError, OSError, KeyError) as error:
        raise _damaged(checkpoint, error) from None


def _damaged(checkpoint: Path, error: Exception) -> UsageError:
    return UsageError(
        f"the checkpoint {checkpoint} is damaged ({' '.join(str(error).split())});"
        " delete it and --resume from the one before"
    )


def save_weights(folder: Path, model: nn.Module) -> None:
    """The trained weights alone, whole or not at all: the best so far."""
    with written_folder(folder) as beside:
        save_file(_distinct(trainable(model)), beside / "weights.safetensors")


@torch.no_grad()
def load_weights(file: Path, model: nn.Module) -> None:
    """Copy stored weights into the model's own tensors."""
    stored = load_file(file)
    for name, parameter in trainable(model).items():
        parameter.copy_(stored[name])


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that train, by name, each once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _complete(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first: a folder is renamed into place only when it is whole."""
    found = [path for path in folder.glob("step-*") if (path / "state.json").exists()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def _distinct(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value).detach().cpu().clone()
        for index, values in state.items()
        for name, value in values.items()
        if value is not None
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    own = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": own["param_groups"]})
