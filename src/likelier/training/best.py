"""The best weights so far: kept beside the checkpoints, one folder for each step that a resumed run may ask for.

A run that is killed after a better evaluation goes on from a checkpoint before it, whose best is an older one:
that one stays until a checkpoint no longer names it.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from likelier.config import nearest
from likelier.errors import UsageError
from likelier.models.folders import written_folder
from likelier.training.checkpoint import (
    Position,
    distinct,
    latest_checkpoint,
    load_weights,
    read_state,
    trainable,
)


def improved(position: Position, metrics: Mapping[str, Any], figure: str, *, rows: str = "") -> bool:
    """Whether an evaluation is the best so far; notes it in `position`.

    Losses and perplexities want to be small, the rest large.

    Args:
        rows: hash of the held-out rows. What was best by another figure or on other rows is forgotten.

    Raises:
        UsageError: the run has no such figure.
    """
    value = metrics.get(figure)
    if not isinstance(value, int | float):
        known = [name for name, found in metrics.items() if isinstance(found, int | float) and name != "step"]
        raise UsageError(
            f"--keep-best {figure}: this run has no such figure{nearest(figure, known)};"
            f" it has {', '.join(sorted(known))}"
        )
    by = f"{figure} {rows}"
    if position.best_by != by:
        position.best, position.best_step, position.best_by = None, None, by
    small = "loss" in figure or "perplexity" in figure
    better = position.best is None or (value < position.best if small else value > position.best)
    if better and math.isfinite(value):
        position.best, position.best_step, position.evaluations_since_best = value, position.step, 0
        return True
    position.evaluations_since_best += 1
    return False


def save_best(checkpoints: Path, model: nn.Module, position: Position) -> None:
    """The trained weights of the best step, which is now, whole or not at all.

    Raises:
        WorkError: the disk is full or the folder cannot be written.
    """
    with written_folder(_folder(checkpoints, position.step)) as beside:
        save_file(distinct(trainable(model)), beside / "weights.safetensors")
    drop_others(checkpoints, position)


def drop_others(checkpoints: Path, position: Position) -> None:
    """Delete what neither `position` nor the latest checkpoint calls the best."""
    latest = latest_checkpoint(checkpoints)
    named = {position.best_step, read_state(latest)[0].best_step if latest is not None else None}
    kept = {_folder(checkpoints, step) for step in named if step is not None}
    for old in set(checkpoints.glob("best-*")) - kept:
        shutil.rmtree(old, ignore_errors=True)


def load_best(checkpoints: Path, model: nn.Module, position: Position) -> None:
    """Put the best step's weights into the model.

    Raises:
        UsageError: they are damaged.
    """
    assert position.best_step is not None
    folder = _folder(checkpoints, position.best_step)
    try:
        load_weights(folder / "weights.safetensors", model)
    except (SafetensorError, OSError, ValueError) as error:
        raise UsageError(
            f"the best weights in {folder} are damaged ({' '.join(str(error).split())});"
            " --resume without --keep-best takes the last step's instead"
        ) from None


def _folder(checkpoints: Path, step: int) -> Path:
    return checkpoints / f"best-{step}"
