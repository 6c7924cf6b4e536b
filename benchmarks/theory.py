"""All algorithms of preference learning in small worlds, from the same samples: a larger run than the page of
`likelier theory` has time for.

    python -m benchmarks.theory                  # minutes on one core; writes docs/theory/
    python -m benchmarks.theory --small --out /tmp/theory

Writes `results.json`, the pictures, and `README.md`, whose sentences are made of the numbers. Everything is seeded: a
second run on the same machine and versions writes the same files but for the time.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from likelier.report.theory_pictures_algorithms import (
    WITHOUT_BETA,
    distance_picture,
    frontier_picture,
    stability_picture,
)
from likelier.stats import Estimate
from likelier.theory.frontiers import Distances, Frontiers, Plan, distances, frontiers
from likelier.theory.stability import REWARD_RATE, Stability, stability
from likelier.theory.world import World

COLOURS = {"ink": "#1d2129", "faint": "#b9bec8", "before": "#a86400", "after": "#0067a8", "down": "#c2500b"}
"""Of the page by daylight."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How large the run is."""

    worlds: tuple[int, ...] = (21, 22, 23)
    """Seeds of the worlds; the pictures show the first."""
    prompts: int = 3
    completions: int = 6
    comparisons: int = 500
    seeds: int = 48
    steps: int = 200
    rate: float = 0.05
    betas: tuple[float, ...] = (0.1, 0.3, 1.0)
    counts: tuple[int, ...] = (100, 300, 1000, 3000, 10_000)
    distance_seeds: int = 16
    trials: tuple[tuple[float, int, int, int], ...] = (
        (0.3, 500, 16, 200),
        (0.1, 500, 16, 200),
        (1.0, 500, 16, 200),
        (0.3, 150, 16, 200),
        (0.3, 500, 4, 200),
        (0.3, 500, 16, 600),
    )
    """Of stability: β, comparisons, batch, steps."""


SMALL = Settings(
    worlds=(21,),
    prompts=1,
    completions=3,
    comparisons=50,
    seeds=3,
    steps=10,
    betas=(0.3, 1.0),
    counts=(30, 100),
    distance_seeds=3,
    trials=((0.3, 50, 4, 10),),
)


@dataclass(frozen=True, kw_only=True)
class Results:
    """All that was measured, world by world."""

    frontiers: list[Frontiers]
    distances: list[list[Distances]]
    """For each world, each β."""
    stability: list[list[Stability]]
    """For each world, each trial."""


def run(settings: Settings) -> Results:
    """Everything, with a word on stderr for each part."""
    worlds = [
        World.random(seed, prompts=settings.prompts, completions=settings.completions)
        for seed in settings.worlds
    ]
    return Results(
        frontiers=[_told("frontiers", lambda world=world: _frontiers(world, settings)) for world in worlds],
        distances=[
            [
                _told(f"distances β {beta:g}", lambda b=beta, w=world: _distances(w, b, settings))
                for beta in settings.betas
            ]
            for world in worlds
        ],
        stability=[
            [
                _told(f"stability {trial}", lambda t=trial, w=world: _stability(w, t, settings))
                for trial in settings.trials
            ]
            for world in worlds
        ],
    )


def _told(what: str, work: Any) -> Any:
    start = time.perf_counter()
    found = work()
    print(f"{what}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
    return found


def _frontiers(world: World, settings: Settings) -> Frontiers:
    plan = Plan(world=world, comparisons=settings.comparisons, seeds=settings.seeds, betas=settings.betas)
    return frontiers(replace(plan, steps=settings.steps, rate=settings.rate))


def _distances(world: World, beta: float, settings: Settings) -> Distances:
    return distances(
        world,
        beta=beta,
        counts=settings.counts,
        seeds=settings.distance_seeds,
        steps=settings.steps,
        rate=settings.rate,
    )


def _stability(world: World, trial: tuple[float, int, int, int], settings: Settings) -> Stability:
    beta, comparisons, batch, steps = trial
    return stability(
        world,
        beta=beta,
        comparisons=comparisons,
        seeds=settings.distance_seeds,
        repeats=3,
        steps=steps,
        batch=batch,
    )


def finding(trials: Sequence[Stability]) -> str:
    """The claim that DPO is the stabler one, held against all trials: sentences made of their numbers."""
    better = sum(trial.difference.excludes(0.0) and trial.difference.value > 0 for trial in trials)
    worse = sum(trial.difference.excludes(0.0) and trial.difference.value < 0 for trial in trials)
    quieter = sum(
        trial.own_noise["DPO"][trial.best("DPO")] < trial.own_noise["PPO"][trial.best("PPO")]
        for trial in trials
    )
    widths = [(_width(trial, "DPO"), _width(trial, "PPO")) for trial in trials]
    wider = sum(dpo > ppo for dpo, ppo in widths)
    narrower = sum(dpo < ppo for dpo, ppo in widths)
    return (
        f"In {len(trials)} trials (worlds × settings), each algorithm at its own best learning rate: DPO gains more "
        f"than PPO in {better}, less in {worse}, and in {len(trials) - better - worse} the difference is within "
        f"chance. DPO's own random numbers move its result less than PPO's in {quieter}. The learning rates at which "
        f"it gains half of what can be gained are more than PPO's in {wider}, fewer in {narrower}. "
        + _verdict(better - worse, 2 * quieter - len(trials), wider - narrower)
    )


def _width(trial: Stability, algorithm: str) -> int:
    usable = trial.usable(algorithm)
    return 0 if usable is None else sum(usable[0] <= rate <= usable[1] for rate in trial.rates)


def _verdict(*leans: int) -> str:
    """By three measures: gain, own noise, usable rates; above 0 is for DPO."""
    if all(lean > 0 for lean in leans):
        return "In these worlds DPO is the stabler one, by all three measures."
    if all(lean <= 0 for lean in leans):
        return "In these worlds no measure shows DPO to be the stabler one."
    return "In these worlds DPO is the stabler one by some measures and not by others."


def write(results: Results, settings: Settings, out: Path) -> None:
    """`results.json`, the pictures, and the page that shows them."""
    out.mkdir(parents=True, exist_ok=True)
    whole = {"settings": asdict(settings), "torch": torch.__version__, **asdict(results)}
    (out / "results.json").write_text(
        json.dumps(_rounded(whole), ensure_ascii=False) + "\n", encoding="utf-8"
    )
    first = results.frontiers[0]
    pictures = {
        "frontiers": frontier_picture(first),
        "frontiers-without-beta": frontier_picture(first, WITHOUT_BETA, name="frontiers-without-beta"),
        "stability": stability_picture(results.stability[0][0]),
        **{f"distances-{found.beta:g}": distance_picture(found) for found in results.distances[0]},
    }
    for name, svg in pictures.items():
        (out / f"{name}.svg").write_text(_by_daylight(svg) + "\n", encoding="utf-8")
    (out / "README.md").write_text(page(results, settings, list(pictures)), encoding="utf-8")


def _rounded(value: Any) -> Any:
    """Seven digits: a file that can be read, and that another processor's last bits leave as it is."""
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list | tuple) else value


def _by_daylight(svg: str) -> str:
    """The page's colours and its paper written into the file, which stands alone."""
    coloured = re.sub(r"var\(--(\w+)\)", lambda found: COLOURS[found[1]], svg)
    return re.sub(r"(<svg[^>]*>)", r'\1<rect width="100%" height="100%" fill="#fbfaf7"/>', coloured, count=1)


def page(results: Results, settings: Settings, pictures: Sequence[str]) -> str:
    """What was found, in words and pictures."""
    trials = [trial for world in results.stability for trial in world]
    lines = [
        "# Algorithms against the exact frontier",
        "",
        "Made by `make theory` (`python -m benchmarks.theory`). Every number is an exact expectation under a learned",
        f"policy, in {len(settings.worlds)} random worlds of {settings.prompts} prompts with {settings.completions} "
        "completions; policies are softmax tables.",
        "All numbers are in [results.json](results.json). Pictures show the first world; bars are 95 % intervals over",
        "samples.",
        "",
        "## Reward against KL",
        "",
        *(
            f"World {seed}: {found.words}" + "\n"
            for seed, found in zip(settings.worlds, results.frontiers, strict=True)
        ),
        *_images([name for name in pictures if name.startswith("frontiers")]),
        "## Sample size and β",
        "",
        *(f"World {settings.worlds[0]}. {found.words}" + "\n" for found in results.distances[0]),
        *_images([name for name in pictures if name.startswith("distances")]),
        "## Is DPO the stabler one?",
        "",
        finding(trials),
        "",
        "What this does not show: policies are tables, so nothing is shared between answers. PPO's reward was fitted",
        f"before, in as many steps on batches of the same size, at a rate of {REWARD_RATE:g}, at no charge; its",
        "baseline is the batch's mean, with one pass over each batch. Adam for all.",
        "",
        *_table(settings, results),
        *_images(["stability"]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _table(settings: Settings, results: Results) -> list[str]:
    """A row for each trial: both algorithms at their best rates."""
    columns = (
        "world",
        "β",
        "comparisons",
        "batch",
        "steps",
        "DPO gains, %",
        "PPO gains, %",
        "DPO less PPO",
        "rates",
    )
    rows = [
        f"| {seed} | {trial.beta:g} | {trial.comparisons} | {trial.batch} | {trial.steps} | {_gain(trial, 'DPO')} | "
        f"{_gain(trial, 'PPO')} | {_points(trial.difference)} | {_width(trial, 'DPO')}, {_width(trial, 'PPO')} |"
        for seed, trials in zip(settings.worlds, results.stability, strict=True)
        for trial in trials
    ]
    note = (
        f"± over samples, ± by the algorithm's own random numbers, @ its best rate. DPO less PPO: points of per cent, "
        f"95 % interval paired over samples. Rates, of DPO and of PPO: how many of the "
        f"{len(results.stability[0][0].rates)} tried ({results.stability[0][0].rates[0]:g} to "
        f"{results.stability[0][0].rates[-1]:g}) lie where half or more is gained."
    )
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *rows, "", note, ""]


def _gain(trial: Stability, algorithm: str) -> str:
    best = trial.best(algorithm)
    spread, noise = 100 * trial.spread[algorithm][best], 100 * trial.own_noise[algorithm][best]
    return f"{100 * trial.gained[algorithm][best].value:.1f} ± {spread:.1f} ± {noise:.1f} @ {trial.rates[best]:g}"


def _points(difference: Estimate) -> str:
    interval = (
        ""
        if difference.interval is None
        else " [{:.1f}, {:.1f}]".format(*(100 * x for x in difference.interval))
    )
    return f"{100 * difference.value:.1f}{interval}"


def _images(names: Sequence[str]) -> list[str]:
    return [f"![{name.replace('-', ' ')}]({name}.svg)" for name in names] + [""]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/theory"))
    parser.add_argument("--small", action="store_true", help="seconds: to see that it runs")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    settings = SMALL if chosen.small else Settings()
    start = time.perf_counter()
    results = run(settings)
    write(results, settings, chosen.out)
    print(f"{chosen.out}: written after {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
