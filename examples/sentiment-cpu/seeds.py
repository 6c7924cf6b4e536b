"""What the folders of `experiment.py` hold: of each seed policies' rewards and KL, win rates, costs, and the dial."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from experiment import DIALLED, SWEEP, WHOLE

from likelier.stats.best_of import kept_weights
from likelier.theory.best_of_n import kl_bound
from likelier.training.folder import whole_lines
from likelier.training.stored import compute_by_step

Floats = npt.NDArray[np.float64]
BEST_OF, BEFORE = "best-of-n", "before training"
METHODS = (*SWEEP, BEST_OF)
WAYS = ("mixed", "interpolated", "reweighted")
"""Of the dial, as `evaluate frontier --dial` calls them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A policy of one seed; rows are prompts, their means over answers."""

    setting: str
    step: int | None
    rewards: Floats
    kl: Floats
    last: bool = True
    """Whether training ended there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of a training run."""

    seconds: float
    flop: float
    drawn: int
    """Answers that the run drew itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """What one seed's evaluation holds."""

    name: str
    prompts: list[str]
    start: Point
    points: dict[str, list[Point]]
    """By method."""
    dial: dict[str, list[Point]]
    """By way, from the weakest strength on; empty where there is none yet."""
    costs: dict[str, Cost]
    """By run, the reward model's too."""
    answers: int
    """Drawn from the model before training, for all preferences."""
    sweeps: dict[str, dict[float, Floats]]
    """By method and temperature, the win rate of each prompt; of a method its middle setting."""


def seeds_done(runs: Path) -> list[Path]:
    """The folders of the seeds whose frontier and temperatures are there."""
    return [path.parents[1] for path in sorted(runs.glob("seed-*/temperature/temperature.json"))]


def read_seed(folder: Path) -> Seed:
    """Everything of a seed."""
    rows = _rows(folder / "frontier" / "frontier.answers.jsonl")
    reference = rows.pop(("reference", None))
    points = {method: _points(rows, method) for method in SWEEP}
    points[BEST_OF] = [_best_of(n, reference) for n in WHOLE.chosen_from if n <= _draws(reference)]
    prompts = [row["id"] for row in reference]
    for own in rows.values():
        assert [row["id"] for row in own] == prompts, f"{folder}: runs were asked different prompts"
    runs = [f"{method}-{setting}" for method, settings in SWEEP.items() for setting in settings]
    return Seed(
        name=folder.name,
        prompts=prompts,
        start=_point(reference, setting="", step=None),
        points=points,
        dial=_dial(folder / "dial" / "frontier.json", rows),
        costs={run: _cost(folder / run / "metrics.jsonl") for run in (*runs, "reward-model")},
        answers=sum(len(row["completions"]) for row in _lines(folder / "answers.jsonl")),
        sweeps=_sweeps(folder / "temperature" / "temperature.json", len(prompts)),
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _rows(path: Path) -> dict[tuple[str, int | None], list[dict[str, Any]]]:
    """The answers of each policy, prompt by prompt."""
    found: dict[tuple[str, int | None], list[dict[str, Any]]] = {}
    for row in _lines(path):
        found.setdefault((Path(row["run"]).name, row["step"]), []).append(row)
    return found


def _points(rows: Mapping[tuple[str, int | None], Sequence[Mapping[str, Any]]], method: str) -> list[Point]:
    found = []
    for setting in SWEEP[method]:
        run = f"{method}-{setting}"
        steps = sorted(step for name, step in rows if name == run and step is not None)
        found += [
            _point(rows[run, step], setting=setting, step=step, last=step == steps[-1]) for step in steps
        ]
    return found


def _draws(rows: Sequence[Mapping[str, Any]]) -> int:
    return min(len(row["completions"]) for row in rows)


def _point(rows: Sequence[Mapping[str, Any]], *, setting: str, step: int | None, last: bool = True) -> Point:
    rewards, kl = (
        np.array([np.mean([answer[name] for answer in row["completions"]]) for row in rows])
        for name in ("reward", "kl")
    )
    return Point(setting=setting, step=step, rewards=rewards, kl=kl, last=last)


def _best_of(n: int, rows: Sequence[Mapping[str, Any]]) -> Point:
    kept = []
    for row in rows:
        weights = kept_weights([answer["chooser"] for answer in row["completions"]], n)
        kept.append(np.mean(weights * [answer["reward"] for answer in row["completions"]]))
    return Point(setting=f"n-{n}", step=None, rewards=np.array(kept), kl=np.full(len(kept), kl_bound(n)))


def _dial(
    path: Path, rows: Mapping[tuple[str, int | None], Sequence[Mapping[str, Any]]]
) -> dict[str, list[Point]]:
    """Every way's points; at strength 1 they are the trained policy's, by the first of its answers in the frontier.

    Raises:
        SystemExit: they are not.
    """
    if not path.exists():
        return {}
    result = json.loads(path.read_text(encoding="utf-8"))
    found: dict[str, list[Point]] = {way: [] for way in WAYS}
    for one in result["points"]:
        way, strength = one["run"].rpartition(", ")[2], one["setting"].partition(",")[0]
        if way in found:
            rewards, kl = (np.array(one["per_prompt"][name]) for name in ("rewards", "kl"))
            found[way].append(Point(setting=strength, step=None, rewards=rewards, kl=kl))
    last = max(step for name, step in rows if name == DIALLED and step is not None)
    n = result["answers_per_prompt"]
    first = [{"completions": row["completions"][:n]} for row in rows[DIALLED, last]]
    at_1 = next(one for one in found["mixed"] if one.setting == "λ = 1")
    if not np.allclose(at_1.rewards, _point(first, setting="", step=None).rewards):
        raise SystemExit(f"{path}: at strength 1 the rewards are not those of {DIALLED} in the frontier")
    return found


def _cost(metrics: Path) -> Cost:
    """Of all updates, by the run's own metrics: no start of a process, no loading, no evaluation."""
    lines = whole_lines(metrics)
    by_step = compute_by_step(lines)
    taken = by_step[max(by_step)]
    drawn = max(line.get("answers_seen", 0) for line in lines)
    return Cost(seconds=taken["seconds"], flop=taken["flop"], drawn=drawn)


def _sweeps(path: Path, prompts: int) -> dict[str, dict[float, Floats]]:
    found = {}
    for sweep in json.loads(path.read_text(encoding="utf-8"))["sweeps"]:
        found[_method_of(Path(sweep["run"]).name)] = {
            float(one["temperature"]): np.array([one["per_prompt"][str(place)] for place in range(prompts)])
            for one in sweep["temperatures"]
        }
    return found


def _method_of(run: str) -> str:
    """Of what was compared at each temperature: the name of a run, of best-of-N, or of the model before training."""
    for method, settings in SWEEP.items():
        if run in {f"{method}-{setting}" for setting in settings}:
            return method
    return BEST_OF if run.lower().startswith("best-of") else BEFORE
