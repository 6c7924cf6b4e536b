"""What a run leaves behind: its settings as resolved, the model with its card, and last of all the manifest."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from likelier.errors import WorkError
from likelier.manifest import versions
from likelier.models.adapters import is_adapted
from likelier.models.cards import model_card
from likelier.models.saving import save_model
from likelier.training.checkpoint import latest_checkpoint, read_state
from likelier.training.config import TrainingConfig
from likelier.training.folder import RunFolder
from likelier.training.method import Method
from likelier.training.plan import Plan
from likelier.training.policy import Policy
from likelier.training.preparation import Data
from likelier.training.run import Run


def resolved(config: TrainingConfig, policy: Policy, plan: Plan) -> dict[str, Any]:
    """Every setting, with what was chosen for those left open."""
    values = config.model_dump(mode="json")
    chosen = {
        "precision": policy.precision,
        "max_tokens": policy.scorer.max_tokens,
        "warmup_steps": plan.warmup,
        "learning_rate": plan.peak,
    }
    # How this process was started is no part of the run: the file starts the same run anew.
    started = {"resume": False, "overwrite": False, "dry_run": False}
    return {name.rstrip("_"): value for name, value in (values | chosen | started).items()}


def write_result(
    run: Run,
    folder: RunFolder,
    settings: Mapping[str, Any],
    *,
    policy: Policy,
    data: Data,
    method: Method,
    notes: Sequence[str] = (),
    reference: bytes,
    steps: int,
) -> None:
    """The model, then the manifest, which says that all is there; `reference` is its hash, by content.

    Args:
        notes: paragraphs of the stage's own for the card.

    Raises:
        WorkError: the disk is full, or the folder cannot be written; it says where the run's work is kept.
    """
    text = card(run, settings, policy=policy, data=data, method=method, notes=notes)

    def save(place: Path) -> None:
        with policy.scorer.plain() as model:
            save_model(
                *(model, policy.tokenizer, place),
                card=text,
                merge=settings["merge"] or method.merges,
                silenced=policy.silenced,
            )

    try:
        save(folder.path / "model")
    except WorkError as error:
        raise WorkError(f"{error}; {_kept(folder.checkpoints, save, steps)}") from None
    folder.sync()
    made = manifest(run, stage=method.stage, policy=policy, data=data, reference=reference, steps=steps)
    folder.write_json("manifest.json", made)


def _kept(checkpoints: Path, save: Callable[[Path], None], steps: int) -> str:
    """Where the work of `steps` is, now that the model could not be written: hours of it, perhaps."""
    latest = latest_checkpoint(checkpoints)
    if latest is not None and read_state(latest)[0].step == steps:
        return f"{latest.name} is kept, and --resume writes the model without another step"
    try:
        place = Path(tempfile.mkdtemp(prefix="likelier-"))
        try:
            save(place / "model")
        except WorkError:
            place.rmdir()
            raise
    except (OSError, WorkError):
        return f"{tempfile.gettempdir()} does not take the model either, and it is lost"
    return f"the trained model is in {place / 'model'} instead"


def card(
    run: Run,
    settings: Mapping[str, Any],
    *,
    policy: Policy,
    data: Data,
    method: Method,
    notes: Sequence[str],
) -> str:
    """The model card: data by hash, settings, what was measured first and last, and the stage's own paragraphs."""
    return model_card(
        policy.name,
        method=method.name,
        data=data.hashes,
        settings=settings,
        results=_results(run.metrics, method.shown),
        adapter=is_adapted(policy.model) and not (settings["merge"] or method.merges),
        task=method.task,
        notes=notes,
    )


def manifest(
    run: Run, *, stage: str, policy: Policy, data: Data, reference: bytes, steps: int
) -> dict[str, Any]:
    """What the run was made from, on what, and what came out; `reference` is its hash, by content as `start`."""
    return {
        "stage": stage,
        "finished": True,
        "inputs": data.hashes,
        "start": policy.content.hex(),
        "reference": reference.hex(),
        "steps": steps,
        "result": run.result,
        "notes": run.notes,
        "device": str(policy.scorer.device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "command": sys.argv,
    }


def _results(metrics: Sequence[Mapping[str, Any]], shown: Sequence[str]) -> list[dict[str, object]]:
    """The evaluation lines, first and last, as the rows of the card's table."""
    lines = [line for line in metrics if "eval/loss" in line]
    ends = [lines[0], lines[-1]] if len(lines) > 1 else lines
    return [{"step": line["step"], **{name: line.get(f"eval/{name}") for name in shown}} for line in ends]
