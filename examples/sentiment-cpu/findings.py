"""The figures of the experiment over all seeds that are done, each with an interval over prompts and one over seeds.

Over prompts: the chance of the questions, with the trained models taken as they are; seeds pooled, clustered by prompt.
Over seeds: the chance of answers, order and adapters, by the seeds' means; of three it is wide, of one there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from experiment import DIALLED, SWEEP, WHOLE
from seeds import BEST_OF, METHODS, WAYS, Floats, Point, Seed

from likelier.stats import Estimate, mean_interval, rate_interval, wilson
from likelier.stats.best import drops_from_best
from likelier.stats.frontier import area_shares

TO = 10.0
"""Nats: areas count up to here, a flat line where a method's own points end before."""
BANDS = ((0.0, 2.0), (2.0, 5.0), (5.0, TO))
"""Nats, between which envelopes are compared by their mean height."""
FAR = 24.0
"""Nats, one for each of an answer's tokens: a run that ends beyond is a collapsed one, whatever its reward."""
PRIMARY = "mixed"
"""The way of the dial that answers whether a sweep is needed, chosen before any was measured: what `sample` draws."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    """A figure with both of its intervals; the value is the same."""

    over_prompts: Estimate
    over_seeds: Estimate

    @property
    def value(self) -> float:
        """Over all seeds and prompts."""
        return self.over_prompts.value


def both(values: Sequence[Floats], seeds: Sequence[Seed]) -> Both:
    """Of `values`, a row of prompts for each seed."""
    prompts = [prompt for seed in seeds for prompt in seed.prompts]
    return Both(
        over_prompts=mean_interval(np.concatenate(values).tolist(), clusters=prompts),
        over_seeds=mean_interval([float(value.mean()) for value in values]),
    )


def rate_of(values: Sequence[Floats], seeds: Sequence[Seed]) -> Both:
    """The same of win rates: no interval reaches beyond 0 or 1, and that of a rate of 1 is no point."""
    prompts = [prompt for seed in seeds for prompt in seed.prompts]
    return Both(
        over_prompts=rate_interval(np.concatenate(values).tolist(), clusters=prompts),
        over_seeds=rate_interval([float(value.mean()) for value in values]),
    )


def found_in(seeds: Sequence[Seed]) -> dict[str, Any]:
    """Every figure of the page."""
    return {
        "seeds": [seed.name for seed in seeds],
        "prompts": len(seeds[0].prompts),
        "to": TO,
        "start": both([seed.start.rewards for seed in seeds], seeds),
        "areas": {method: _area(seeds, method) for method in METHODS},
        "points": {method: _points(seeds, lambda seed, m=method: seed.points[m]) for method in METHODS},
        "temperatures": {method: _temperatures(seeds, method) for method in _swept(seeds)},
        "costs": {method: _costs(seeds, method) for method in METHODS},
        "different": {method: _different(seeds, method) for method in SWEEP},
        "spread": {method: _spread(seeds, method) for method in SWEEP},
        "collapsed": {method: _collapsed(seeds, method) for method in SWEEP},
        "dial": _dial([seed for seed in seeds if seed.dial]),
    }


def shares(seed: Seed, points: Sequence[Point], band: tuple[float, float] = (0.0, TO)) -> Floats:
    """What each prompt adds to the area under the points' envelope and above the reward before training, in a band."""
    every = [seed.start, *points]

    def below(to: float) -> Floats:
        if to <= 0.0:
            return np.zeros(len(seed.prompts))
        return area_shares([one.rewards for one in every], [one.kl for one in every], to=to)

    return below(band[1]) - below(band[0])


def _compared(
    seeds: Sequence[Seed],
    first: Callable[[Seed], Sequence[Point]],
    second: Callable[[Seed], Sequence[Point]],
) -> dict[str, Any]:
    """The first's envelope less the second's: the area, and the mean height by band of KL."""

    def less(band: tuple[float, float]) -> Both:
        gaps = [shares(seed, first(seed), band) - shares(seed, second(seed), band) for seed in seeds]
        return both([gap / (band[1] - band[0]) for gap in gaps], seeds)

    return {"mean_height": less((0.0, TO)), "by_band": {f"{a:g} to {b:g}": less((a, b)) for a, b in BANDS}}


def _area(seeds: Sequence[Seed], method: str) -> dict[str, Any]:
    own = [shares(seed, seed.points[method]) for seed in seeds]
    found: dict[str, Any] = {"area": both(own, seeds), "by_seed": [float(one.mean()) for one in own]}
    if method != "dpo":
        found["dpo_less_this"] = _compared(
            seeds, lambda seed: seed.points["dpo"], lambda seed: seed.points[method]
        )
    return found


def _points(seeds: Sequence[Seed], of: Callable[[Seed], Sequence[Point]]) -> list[dict[str, Any]]:
    """Each setting and step over the seeds that have it."""
    found = []
    for first in of(seeds[0]):
        same = [one for seed in seeds for one in of(seed) if (one.setting, one.step) == _key(first)]
        having = [seed for seed in seeds if any(_key(one) == _key(first) for one in of(seed))]
        found.append(
            {
                "setting": first.setting,
                "step": first.step,
                "reward": both([one.rewards for one in same], having),
                "kl": both([one.kl for one in same], having),
                "reward_by_seed": [float(one.rewards.mean()) for one in same],
                "kl_by_seed": [float(one.kl.mean()) for one in same],
            }
        )
    return found


def _key(point: Point) -> tuple[str, int | None]:
    return point.setting, point.step


def _swept(seeds: Sequence[Seed]) -> list[str]:
    """What was compared at each temperature in every seed."""
    return [name for name in seeds[0].sweeps if all(name in seed.sweeps for seed in seeds)]


def _temperatures(seeds: Sequence[Seed], method: str) -> dict[str, Any]:
    """Win rates, how far each lies below the best of all, and what is lost from the lowest to the highest."""
    at = sorted(seeds[0].sweeps[method])
    table = np.concatenate([np.stack([seed.sweeps[method][t] for t in at], axis=1) for seed in seeds])
    prompts = [prompt for seed in seeds for prompt in seed.prompts]
    drops = drops_from_best(table, clusters=prompts)
    rates = [rate_of([seed.sweeps[method][t] for seed in seeds], seeds) for t in at]
    best = max(range(len(at)), key=lambda place: rates[place].value)
    found: dict[str, Any] = {
        "win_rates": {f"{t:g}": rate for t, rate in zip(at, rates, strict=True)},
        "best": f"{at[best]:g}",
        "below_the_best": {f"{t:g}": drop for t, drop in zip(at, drops, strict=True)},
        "ends": [f"{at[0]:g}", f"{at[-1]:g}"],
        "lost": both([_lost(seed, method) for seed in seeds], seeds),
    }
    if method != "dpo" and all("dpo" in seed.sweeps for seed in seeds):
        more = [_lost(seed, method) - _lost(seed, "dpo") for seed in seeds]
        found["lost_more_than_dpo"] = both(more, seeds)
    return found


def _lost(seed: Seed, method: str) -> Floats:
    """From the lowest temperature to the highest: two that nobody chose for their luck."""
    rates = seed.sweeps[method]
    return rates[min(rates)] - rates[max(rates)]


def _costs(seeds: Sequence[Seed], method: str) -> dict[str, float]:
    """Medians over runs of what training took, with the reward model where the method needs one."""
    needs_model = method in ("ppo", BEST_OF)
    runs = [seed.costs[f"{method}-{setting}"] for seed in seeds for setting in SWEEP.get(method, ())]
    models = [seed.costs["reward-model"] for seed in seeds] if needs_model else []
    found: dict[str, float] = {}
    for name in ("seconds", "flop"):
        own = float(np.median([getattr(run, name) for run in runs])) if runs else 0.0
        reward_model = float(np.median([getattr(one, name) for one in models])) if models else 0.0
        found |= {name: own + reward_model, f"{name}_of_reward_model": reward_model}
    labelled = 0 if method == "ppo-gt" else int(np.median([seed.answers for seed in seeds]))
    found["drawn_before"] = labelled
    found["drawn"] = float(np.median([run.drawn for run in runs])) if runs else 0.0
    found["drawn_per_answer"] = float(max(WHOLE.chosen_from)) if method == BEST_OF else 1.0
    return found


def _ends(seed: Seed, method: str) -> list[Point]:
    return [point for point in seed.points[method] if point.last]


def _different(seeds: Sequence[Seed], method: str) -> dict[str, int]:
    """Settings, and how many policies they ended as, in the seed where those are fewest."""
    counts = [
        len({(point.rewards.tobytes(), point.kl.tobytes()) for point in _ends(seed, method)})
        for seed in seeds
    ]
    return {"settings": len(SWEEP[method]), "policies": min(counts)}


def _spread(seeds: Sequence[Seed], method: str) -> dict[str, float] | None:
    """Standard deviations over seeds of where a setting ends, the root of their mean square over settings."""
    if len(seeds) < 2:
        return None
    ends = [_ends(seed, method) for seed in seeds]
    found = {}
    for name in ("rewards", "kl"):
        means = np.array([[getattr(point, name).mean() for point in own] for own in ends])
        found[name] = float(np.sqrt(means.var(axis=0, ddof=1).mean()))
    areas = [float(shares(seed, seed.points[method]).mean()) for seed in seeds]
    return {**found, "area": float(np.std(areas, ddof=1))}


def collapsed(seed: Seed, point: Point) -> bool:
    """Whether a run ended with surely less reward than it began with, or further than `FAR` from it."""
    high = mean_interval((point.rewards - seed.start.rewards).tolist()).high
    return float(point.kl.mean()) > FAR or (high is not None and high < 0.0)


def _collapsed(seeds: Sequence[Seed], method: str) -> dict[str, Any]:
    """Runs, and seeds of which at least one run did."""
    by_seed = [[collapsed(seed, point) for point in _ends(seed, method)] for seed in seeds]
    runs = [one for own in by_seed for one in own]
    return {
        "runs": sum(runs),
        "of": len(runs),
        "share": wilson(sum(runs), len(runs)),
        "seeds": sum(any(own) for own in by_seed),
    }


def _dial(seeds: Sequence[Seed]) -> dict[str, Any] | None:
    """Each way's envelope beside that of the sweep's ends, and beside the one policy mixed by lot with the start."""
    if not seeds:
        return None

    def sweep(seed: Seed) -> list[Point]:
        return _ends(seed, "dpo")

    def alone(seed: Seed) -> list[Point]:
        return [point for point in sweep(seed) if f"dpo-{point.setting}" == DIALLED]

    ways: dict[str, Any] = {}
    for way in WAYS:

        def dialled(seed: Seed, way: str = way) -> list[Point]:
            return seed.dial[way]

        ways[way] = {
            "area": both([shares(seed, dialled(seed)) for seed in seeds], seeds),
            "less_the_sweep": _compared(seeds, dialled, sweep),
            "less_the_one_run": _compared(seeds, dialled, alone),
            "points": _points(seeds, dialled),
        }
    return {
        "seeds": [seed.name for seed in seeds],
        "sweep": both([shares(seed, sweep(seed)) for seed in seeds], seeds),
        "one_run": both([shares(seed, alone(seed)) for seed in seeds], seeds),
        "ways": ways,
    }
