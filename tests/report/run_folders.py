"""Run and result folders as the stages leave them, written by hand so that what a page must say of them is known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

SETTINGS: dict[str, Any] = {
    "data": ["pairs.jsonl"],
    "model": "smollm2",
    "eval_share": 0.1,
    "out": "runs/a",
    "learning_rate": 1e-6,
    "clip": 1.0,
    "batch_size": 4,
    "seed": 0,
    "resume": False,
    "reference": None,
    "loss": "sigmoid",
    "beta": 0.1,
}
VERSIONS = {"python": "3.11.7", "platform": "Linux", "torch": "2.13.0"}


def step(number: int, **more: Any) -> dict[str, Any]:
    """A line of dpo's metrics."""
    return {
        "step": number,
        "epoch": number / 10,
        "pairs_seen": 4 * number,
        "loss": 0.7 - 0.01 * number,
        "rewards/margins": 0.02 * number,
        "rewards/accuracies": 0.5,
        "learning_rate": 1e-6,
        **more,
    }


def evaluation(number: int, **more: Any) -> dict[str, Any]:
    """A held-out line of dpo's metrics."""
    accuracy = {
        "eval/rewards/accuracies": 0.6,
        "eval/rewards/accuracies/low": 0.5,
        "eval/rewards/accuracies/high": 0.7,
    }
    return {"step": number, "eval/loss": 0.69, **accuracy, "eval/pairs": 12, "eval/prompts": 11, **more}


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def write_run(
    folder: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    metrics: Sequence[Mapping[str, Any]] | None = None,
    manifest: Mapping[str, Any] | None = None,
    samples: Sequence[Mapping[str, Any]] = (),
    finished: bool = True,
) -> Path:
    """A run of dpo, but for what is said otherwise."""
    folder.mkdir(parents=True)
    config = SETTINGS | dict(settings or {})
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    lines = [*map(step, range(1, 6)), evaluation(5)] if metrics is None else metrics
    write_lines(folder / "metrics.jsonl", lines)
    if samples:
        write_lines(folder / "samples.jsonl", samples)
    if finished:
        made = {
            "stage": "dpo",
            "finished": True,
            "inputs": {"train": "aa" * 32, "eval": "bb" * 32},
            "start": "11" * 32,
            "reference": "11" * 32,
            "result": {"step": 5, "stopped": None},
            "notes": ["left out as unusable: chosen equals rejected 2", "answers grow: 90 tokens"],
            "versions": VERSIONS,
            "command": ["/usr/bin/likelier", "dpo", "--data", "my pairs.jsonl", "--out", "runs/a"],
        }
        (folder / "manifest.json").write_text(json.dumps(made | dict(manifest or {})), encoding="utf-8")
    return folder


def estimate(value: float) -> dict[str, Any]:
    """As an evaluation's JSON has it."""
    return {"value": value, "low": value - 0.125, "high": value + 0.125, "n": 8, "clusters": 4, "level": 0.95}


def write_winrate(folder: Path, *, runs: Sequence[str], words: str = "a wins", who: str = "a") -> Path:
    """What `likelier evaluate winrate` leaves, as far as a report reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    win = {
        "first": who,
        "second": "b",
        "win_rate": estimate(0.75),
        "controlled": {"win_rate": None},
        "wins": 5,
        "ties": 2,
        "losses": 1,
        "unjudged": {"timeout": 3},
    }
    (folder / "winrate.json").write_text(
        json.dumps({"comparisons": [win], "words": [words]}), encoding="utf-8"
    )
    (folder / "winrate.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>", encoding="utf-8")
    answers = [{"id": "1", "prompt": "Go on:", "completions": [{"text": "Gladly."}], "model": runs[0]}]
    write_lines(folder / "winrate.answers.jsonl", answers)
    made = {"config": {"runs": [*runs]}, "command": ["likelier", "evaluate", "winrate", *runs]}
    (folder / "winrate.manifest.json").write_text(json.dumps(made), encoding="utf-8")
    return folder
