"""What a run leaves behind: its settings as resolved, the model with its card, and last of all the manifest."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from likelier.manifest import versions
from likelier.models.adapters import is_adapted
from likelier.models.cards import model_card
from likelier.training.config import TrainingConfig
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


def card(run: Run, settings: Mapping[str, Any], *, policy: Policy, data: Data, method: Method) -> str:
    """The model card: data by hash, settings, and what was measured first and last."""
    return model_card(
        policy.name,
        method=method.name,
        data=data.hashes,
        settings=settings,
        results=_results(run.metrics, method.shown),
        adapter=is_adapted(policy.model) and not settings["merge"],
    )


def manifest(
    run: Run, *, stage: str, policy: Policy, data: Data, reference: bytes, steps: int
) -> dict[str, Any]:
    """What the run was made from, on what, and what came out; `reference` is its digest."""
    return {
        "stage": stage,
        "finished": True,
        "inputs": data.hashes,
        "start": policy.digest.hex(),
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
