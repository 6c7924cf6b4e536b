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

_STATE: dict[type, tuple[str, ...]] = {
    torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.RMSprop: ("step", "square_avg"),
}
"""What an optimiser keeps for each parameter."""


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
    best_by: str | None = None
    """The figure and the held-out rows that `best` was measured by: on others it says nothing."""


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
                flag = name.rstrip("_").replace("_", "-")
                raise UsageError(
                    f"--resume: --{flag} was {theirs} when this run began and is {mine} now; give the same,"
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
        stored = load_file(checkpoint / "optimizer.safetensors")
        _require_whole(optimizer, stored)
        load_weights(checkpoint / "weights.safetensors", model)
        _load_optimizer(optimizer, stored)
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
    """As safetensors stores them."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value).detach().cpu().clone()
        for index, values in state.items()
        for name, value in values.items()
        if value is not None
    }


def _require_whole(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Every parameter has its state, of its own shape: torch would take less in silence."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, parameter in enumerate(parameters):
        for name in _STATE[type(optimizer)]:
            found = tensors.get(f"{index}.{name}")
            if found is None or (found.dim() and found.shape != parameter.shape):
                raise ValueError(f"optimizer.safetensors lacks {name} of parameter {index}")


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    own = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": own["param_groups"]})
