"""What `experiment.py` found, over all seeds that are done: a page of tables and sentences, a picture, the numbers.

python examples/sentiment-cpu/results.py --runs runs/sentiment-cpu --out docs/experiments/sentiment-cpu
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from experiment import SWEEP, WHOLE
from matplotlib.figure import Figure

from likelier.report.charts import FAINT, crosses, drawn, errors_of, look
from likelier.stats import Estimate, mean_interval
from likelier.stats.best_of import kept_weights
from likelier.stats.frontier import area_shares
from likelier.theory.best_of_n import kl_bound

Floats = npt.NDArray[np.float64]
TO = 10.0
"""Nats: areas count up to here, a flat line where a method's own points end before."""
FAR = 24.0
"""Nats, one for each of an answer's tokens: a run that ends beyond is a collapsed one, whatever its reward."""
BEST_OF = "best-of-n"
METHODS = (*SWEEP, BEST_OF)


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
class Seed:
    """What one seed's evaluation holds."""

    prompts: list[str]
    start: Point
    points: dict[str, list[Point]]
    costs: dict[str, dict[str, float]]
    """By run, `seconds` and `flop` of its training."""
    sweeps: dict[str, Any]
    """By method, its middle setting at each temperature."""


def read_seed(folder: Path) -> Seed:
    """The frontier's answers, point by point, best-of-N from those of the reference, and the temperatures."""
    rows: dict[tuple[str, int | None], list[dict[str, Any]]] = {}
    for line in (folder / "frontier" / "frontier.answers.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows.setdefault((Path(row["run"]).name, row["step"]), []).append(row)
    drawn_from = rows.pop(("reference", None))
    told = json.loads((folder / "frontier" / "frontier.json").read_text(encoding="utf-8"))
    points: dict[str, list[Point]] = {
        BEST_OF: [_best_of(n, drawn_from) for n in WHOLE.chosen_from if n <= _draws(drawn_from)]
    }
    for method, settings in SWEEP.items():
        points[method] = []
        for setting in settings:
            run = f"{method}-{setting}"
            steps = sorted(step for name, step in rows if name == run and step is not None)
            points[method] += [
                _point(rows[run, step], setting=setting, step=step, last=step == steps[-1]) for step in steps
            ]
    return Seed(
        prompts=[row["id"] for row in drawn_from],
        start=_point(drawn_from, setting="", step=None),
        points=points,
        costs={Path(one["run"]).name: one["compute"] for one in told["points"] if one["compute"]},
        sweeps=_sweeps(folder / "temperature" / "temperature.json"),
    )


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


def _sweeps(path: Path) -> dict[str, Any]:
    found = {}
    for sweep in json.loads(path.read_text(encoding="utf-8"))["sweeps"]:
        name = Path(sweep["run"]).name
        method = next(
            (one for one, own in SWEEP.items() if name in {f"{one}-{setting}" for setting in own}), "start"
        )
        found[method] = {one["temperature"]: one["per_prompt"] for one in sweep["temperatures"]}
    return found


def shares(seed: Seed, method: str) -> Floats:
    """What each prompt adds to the area under a method's envelope, above the reference's reward."""
    points = [seed.start, *seed.points[method]]
    return area_shares([one.rewards for one in points], [one.kl for one in points], to=TO)


def pooled(values: Sequence[Floats], seeds: Sequence[Seed]) -> Estimate:
    """The mean over seeds and prompts, clustered by prompt: chance in the prompts, not in the training."""
    prompts = [prompt for seed in seeds for prompt in seed.prompts]
    return mean_interval(np.concatenate(values).tolist(), clusters=prompts)


def over_seeds(values: Sequence[Floats]) -> Estimate:
    """The mean of the seeds' means: chance in answers, order and adapters."""
    return mean_interval([float(value.mean()) for value in values])


def collapsed(seed: Seed, point: Point) -> bool:
    """Whether a run ended with surely less reward than it began with, or further than `FAR` from it."""
    high = mean_interval((point.rewards - seed.start.rewards).tolist()).high
    return float(point.kl.mean()) > FAR or (high is not None and high < 0.0)


def found_in(seeds: Sequence[Seed]) -> dict[str, Any]:
    """Every figure of the page."""
    areas = {method: [shares(seed, method) for seed in seeds] for method in METHODS}
    dpo = areas["dpo"]
    ends = {m: [(s, p) for s in seeds for p in s.points[m] if p.last] for m in SWEEP}
    return {
        "to": TO,
        "seeds": len(seeds),
        "prompts": len(seeds[0].prompts),
        "start": pooled([seed.start.rewards for seed in seeds], seeds),
        "areas": {
            method: {
                "area": pooled(own, seeds),
                "by_seed": [float(one.mean()) for one in own],
                "dpo_less_this": pooled([a - b for a, b in zip(dpo, own, strict=True)], seeds),
                "dpo_less_this_over_seeds": over_seeds([a - b for a, b in zip(dpo, own, strict=True)]),
            }
            for method, own in areas.items()
        },
        "points": {method: _points(seeds, method) for method in METHODS},
        "collapsed": {m: [sum(collapsed(*one) for one in own), len(own)] for m, own in ends.items()},
        "costs": {method: _costs(seeds, method) for method in SWEEP},
        "temperatures": {method: _temperatures(seeds, method) for method in seeds[0].sweeps},
    }


def _points(seeds: Sequence[Seed], method: str) -> list[dict[str, Any]]:
    """Each setting and step over all seeds."""
    found = []
    for number, first in enumerate(seeds[0].points[method]):
        same = [seed.points[method][number] for seed in seeds]
        assert {(one.setting, one.step) for one in same} == {(first.setting, first.step)}
        found.append(
            {
                "setting": first.setting,
                "step": first.step,
                "reward": pooled([one.rewards for one in same], seeds),
                "kl": pooled([one.kl for one in same], seeds),
                "reward_by_seed": [float(one.rewards.mean()) for one in same],
                "kl_by_seed": [float(one.kl.mean()) for one in same],
            }
        )
    return found


def _costs(seeds: Sequence[Seed], method: str) -> dict[str, float]:
    """Medians over runs of what training took."""
    runs = [seed.costs[f"{method}-{setting}"] for seed in seeds for setting in SWEEP[method]]
    return {name: float(np.median([run[name] for run in runs])) for name in ("seconds", "flop")}


def _temperatures(seeds: Sequence[Seed], method: str) -> dict[str, Any]:
    """The win rate at each temperature, and how far it lies below the best one's, paired over prompts."""
    rates: dict[str, list[Floats]] = {}
    for seed in seeds:
        for temperature, own in seed.sweeps[method].items():
            rates.setdefault(str(temperature), []).append(np.array([own[key] for key in sorted(own)]))
    means = {temperature: float(np.concatenate(own).mean()) for temperature, own in rates.items()}
    best = max(means, key=lambda temperature: means[temperature])
    return {
        temperature: {
            "win_rate": _by_prompt(own),
            "below_the_best": _by_prompt([a - b for a, b in zip(rates[best], own, strict=True)]),
        }
        for temperature, own in rates.items()
    }


def _by_prompt(values: Sequence[Floats]) -> Estimate:
    return mean_interval(np.concatenate(values).tolist(), clusters=[*range(len(values[0]))] * len(values))


def picture(found: Mapping[str, Any]) -> Figure:
    """Reward against KL, and win rates over temperature."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.axhline(found["start"].value, color=FAINT, linewidth=1, zorder=0)
    for number, (method, points) in enumerate(found["points"].items()):
        style = look(number, method)
        crosses(
            left,
            [p["kl"] for p in points],
            [p["reward"] for p in points],
            linestyle="none",
            markersize=4,
            **style,
        )
    left.set(xlabel="KL to the reference, nats per answer", ylabel="mean true reward (VADER)")
    for method, own in found["temperatures"].items():
        at, rates = [float(one) for one in own], [one["win_rate"] for one in own.values()]
        number = METHODS.index(method) if method in METHODS else len(METHODS)
        style = (
            look(number, method)
            if method in METHODS
            else {"color": FAINT, "marker": ".", "label": "before training"}
        )
        right.errorbar(
            at, [one.value for one in rates], yerr=errors_of(rates), capsize=2, linewidth=1, **style
        )
    right.axhline(0.5, color=FAINT, linewidth=1, zorder=0)
    right.set(xlabel="sampling temperature", ylabel="win rate against the likeliest answer before")
    right.legend(fontsize=8)
    left.legend(fontsize=8)
    return figure


def page(found: Mapping[str, Any]) -> str:
    """The tables."""
    areas = "\n".join(
        f"| {method} | {own['area']} | {', '.join(f'{one:.2f}' for one in own['by_seed'])} | "
        + ("" if method == "dpo" else f"{own['dpo_less_this']} | {own['dpo_less_this_over_seeds']}")
        + (" | |" if method == "dpo" else " |")
        for method, own in found["areas"].items()
    )
    points = "\n".join(
        f"| {method} | {one['setting']} | {one['step'] or ''} | {one['reward']} | {one['kl']} |"
        for method, own in found["points"].items()
        for one in own
    )
    costs = "\n".join(
        f"| {method} | {own['seconds']:.0f} | {own['flop']:.2g} | {found['collapsed'][method][0]} of"
        f" {found['collapsed'][method][1]} |"
        for method, own in found["costs"].items()
    )
    temperatures = "\n".join(
        f"| {method} | {temperature} | {one['win_rate']} | {one['below_the_best']} |"
        for method, own in found["temperatures"].items()
        for temperature, one in own.items()
    )
    return (
        f"Seeds {found['seeds']}, held-out prompts {found['prompts']}; reward before training {found['start']}.\n\n"
        f"| method | area up to {TO:g} nats | by seed | DPO less this, over prompts | over seeds |\n"
        f"|---|---|---|---|---|\n{areas}\n\n"
        f"| method | setting | step | reward | KL |\n|---|---|---|---|---|\n{points}\n\n"
        f"| method | seconds | FLOP | collapsed |\n|---|---|---|---|\n{costs}\n\n"
        f"| method | temperature | win rate | below its best |\n|---|---|---|---|\n{temperatures}\n"
    )


def main() -> None:
    """Reads the seeds that are done, and writes the page."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--runs", type=Path, default=Path("runs/sentiment-cpu"))
    made.add_argument("--out", type=Path, default=Path("runs/sentiment-cpu/results"))
    options = made.parse_args()
    done = sorted(options.runs.glob("seed-*/temperature/temperature.json"))
    if not done:
        raise SystemExit(f"{options.runs}: no seed is done yet")
    found = found_in([read_seed(path.parents[1]) for path in done])
    options.out.mkdir(parents=True, exist_ok=True)
    numbers = json.dumps(found, indent=1, default=asdict)
    (options.out / "results.json").write_text(numbers + "\n", encoding="utf-8")
    (options.out / "results.md").write_text(page(found), encoding="utf-8")
    for form in ("svg", "png"):
        (options.out / f"results.{form}").write_bytes(drawn(lambda: picture(found), form=form))
    print(page(found))


if __name__ == "__main__":
    main()
