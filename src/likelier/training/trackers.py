"""`--track`: the same figures that `metrics.jsonl` gets, sent where somebody likes to look. Only when asked."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from likelier.errors import UsageError, WorkError


class Tracker(Protocol):
    """Takes metrics lines."""

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """The finite numbers of a line, at a step."""

    def close(self) -> None:
        """Everything is written out."""


def open_tracker(name: str, folder: Path, config: Mapping[str, Any], *, start: int = 0) -> Tracker:
    """The tracker called `name`, for the run in `folder`.

    Args:
        name: `"tensorboard"` writes event files into `folder/tensorboard`; `"wandb"` sends to Weights & Biases as
            its own settings say (`WANDB_MODE=offline` keeps everything here).
        folder: the run folder; its name is the run's.
        config: the resolved settings, shown beside the curves.
        start: steps done before, of a resumed run: what an earlier process logged after them is hidden.

    Raises:
        UsageError: the package is not installed, or wandb is not logged in.
    """
    if name == "tensorboard":
        return TensorBoard(folder, config, start=start)
    return WeightsAndBiases(folder, config)


class TensorBoard:
    """Event files in `folder/tensorboard`."""

    def __init__(self, folder: Path, config: Mapping[str, Any], *, start: int) -> None:
        _require("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        path = folder / "tensorboard"
        try:
            self._writer: Any = SummaryWriter(str(path), purge_step=start + 1 if start else None)
        except OSError as error:
            raise WorkError(f"cannot write {path}: {error.strerror or error}") from None
        # Four blanks make it a block of code.
        text = "\n".join(f"    {line}" for line in json.dumps(config, indent=2, default=str).splitlines())
        self._writer.add_text("config", text, global_step=start)

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """The finite numbers of a line."""
        for name, value in numbers(metrics).items():
            self._writer.add_scalar(name, value, global_step=step)

    def close(self) -> None:
        """Flushes and closes the file."""
        self._writer.close()


class WeightsAndBiases:
    """A run of wandb, named as the folder."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        wandb = _require("wandb")
        try:
            self._run = wandb.init(
                project="likelier", name=folder.name, dir=str(folder), config=dict(config), save_code=False
            )
        except wandb.Error as error:
            reason = " ".join(str(error).split())[:200]
            raise UsageError(
                f"--track wandb: {reason}; log in with `wandb login`, or set WANDB_MODE=offline"
            ) from None

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """The finite numbers of a line."""
        self._run.log(numbers(metrics), step=step)

    def close(self) -> None:
        """Uploads what is left."""
        self._run.finish()


def require_tracker(name: str | None) -> None:
    """Raises `UsageError` where the tracker's package is not installed, before a run has cost anything."""
    if name is not None:
        _require(name)


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What of a line can be drawn: finite numbers, without the step itself.

    >>> numbers({"step": 3, "loss": 0.5, "eval/low": None, "note": "x", "bad": math.inf})
    {'loss': 0.5}
    """
    return {
        name: float(value)
        for name, value in metrics.items()
        if name != "step" and isinstance(value, int | float) and math.isfinite(value)
    }


def _require(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise UsageError(
            f"--track {package} needs the package {package}: pip install 'likelier[{package}]'"
        ) from None
