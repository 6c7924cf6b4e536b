"""Reward against KL and against compute: every checkpoint a point, every run a curve, all of them an envelope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from likelier.stats import Estimate, mean_interval
from likelier.stats.frontier import Frontier, compute_frontier, kl_frontier

AXES = {
    "steps": "updates",
    "seconds": "seconds of training",
    "tokens": "tokens of training",
    "flop": "FLOP of training",
}


def name_of(run: str, step: int | None, setting: str = "") -> str:
    """Of a point, for people.

    >>> name_of("runs/first", 20), name_of("best-of-N", None, "N = 4")
    ('runs/first, step 20', 'best-of-N, N = 4')
    """
    return ", ".join(filter(None, [run, "" if step is None else f"step {step}", setting]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A policy's answers to the prompts, in numbers."""

    run: str
    step: int | None
    rewards: list[list[float]]
    """`[prompts][answers]`."""
    kl: list[list[float]]
    lengths: Sequence[Sequence[float]]
    """Tokens."""
    cut: float
    """Answers that the length limit cut; of best-of-N how many of the kept ones are expected to be."""
    compute: Mapping[str, float]
    """What training had taken until then, by the name of the axis; empty where it is not known."""
    setting: str = ""
    """What sets it apart from the other points of its run, where that is no step."""
    kl_is: Literal["estimate", "rough estimate", "upper bound"] = "estimate"
    """Of what is rough the interval would be too short."""

    @property
    def name(self) -> str:
        """For people."""
        return name_of(self.run, self.step, self.setting)

    @property
    def reward(self) -> Estimate:
        """The mean, its interval clustered by prompt."""
        return _clustered(self.rewards)

    @property
    def distance(self) -> Estimate:
        """KL(policy ‖ reference), nats per answer; a bound is known, and has no interval, nor what is rough."""
        found = _clustered(self.kl)
        return found if self.kl_is == "estimate" else replace(found, low=None, high=None)

    @property
    def length(self) -> Estimate:
        """Mean tokens."""
        return _clustered(self.lengths)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierReport:
    """What `likelier evaluate frontier` found."""

    points: tuple[Point, ...]
    """The reference first."""
    overall: Frontier
    """Of all points, over KL."""
    by_run: dict[str, Frontier]
    """Of each run's points and the reference, up to the same KL."""
    by_compute: dict[str, dict[str, Frontier]]
    """By axis, then `"all"` or a run; over the points that know that axis."""
    members: dict[str, dict[str, list[int]]]
    """By axis (`"kl"` too), then `"all"` or a run: the points, by number, that a frontier numbers its own by."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "points": [_point(point) for point in self.points],
            "frontier": {
                "all": _told(self.overall, self.members["kl"]["all"]),
                **{run: _told(one, self.members["kl"][run]) for run, one in self.by_run.items()},
            },
            "compute": {
                axis: {name: _told(one, self.members[axis][name]) for name, one in found.items()}
                for axis, found in self.by_compute.items()
            },
        }


def report_frontier(points: Sequence[Point]) -> FrontierReport:
    """The frontiers of points of which the first is the reference, whose KL is 0.

    Areas count up to the highest KL, and the most compute, of any point. No envelope rests on a KL that is rough.
    """
    runs = list(dict.fromkeys(point.run for point in points[1:]))
    members = {"kl": {"all": list(range(len(points)))}}
    members["kl"] |= {run: _of_run(points, run, range(len(points))) for run in runs}
    furthest = max(point.distance.value for point in points if point.kl_is != "rough estimate")
    over_kl = {
        name: _over_kl([points[index] for index in own], furthest) for name, own in members["kl"].items()
    }
    by_compute: dict[str, dict[str, Frontier]] = {}
    for axis in AXES:
        known = [0, *(index for index, point in enumerate(points) if index and axis in point.compute)]
        most = max((points[index].compute.get(axis, 0.0) for index in known), default=0.0)
        if most <= 0.0:
            continue
        members[axis] = {"all": known} | {
            run: own for run in runs if len(own := _of_run(points, run, known)) > 1
        }
        by_compute[axis] = {
            name: _over_compute([points[index] for index in own], axis, most)
            for name, own in members[axis].items()
        }
    return FrontierReport(
        points=tuple(points),
        overall=over_kl.pop("all"),
        by_run=over_kl,
        by_compute=by_compute,
        members=members,
    )


def frontier_table(report: FrontierReport) -> tuple[list[str], list[list[Any]]]:
    """A row for each point: where it lies, with intervals, and who is better."""
    header = [
        *("point", "run", "step", "setting", "answers", "prompts", "reward", "reward_low", "reward_high"),
        *("kl", "kl_low", "kl_high", "kl_is", "length", "cut"),
        *AXES,
        *("on_envelope", "below_envelope", "dominated_by", "surely"),
    ]
    rows = []
    for number, point in enumerate(report.points):
        reward, distance = point.reward, point.distance
        other = report.overall.dominated_by[number]
        rows.append(
            [
                *(point.name, point.run, point.step, point.setting, reward.n, reward.clusters),
                *(reward.value, reward.low, reward.high, distance.value, distance.low, distance.high),
                *(
                    point.kl_is,
                    point.length.value,
                    point.cut,
                    *(point.compute.get(axis, "") for axis in AXES),
                ),
                *(number in report.overall.corners, report.overall.below[number]),
                *("" if other is None else report.points[other].name, report.overall.surely[number]),
            ]
        )
    return header, rows


def _clustered(values: Sequence[Sequence[float]]) -> Estimate:
    clusters = [prompt for prompt, own in enumerate(values) for _ in own]
    return mean_interval([value for own in values for value in own], clusters=clusters)


def _of_run(points: Sequence[Point], run: str, among: Sequence[int]) -> list[int]:
    """The reference, and the run's own."""
    return [0, *(index for index in among if index and points[index].run == run)]


def _rows(points: Sequence[Point], name: str) -> np.ndarray[Any, Any]:
    """`[points, prompts]`, means over a prompt's answers."""
    return np.array([[float(np.mean(own)) for own in getattr(point, name)] for point in points])


def _over_kl(points: Sequence[Point], to: float) -> Frontier:
    rough = [number for number, point in enumerate(points) if point.kl_is == "rough estimate"]
    # Where no policy has moved there is nothing to draw; the width is then any.
    to = to if to > 0.0 else 1.0
    found = kl_frontier(_rows(points, "rewards"), _rows(points, "kl"), start=0, to=to, rough=rough)
    # Whose KL is known by a bound or roughly may lie nearer, out of another's reach.
    known = [point.kl_is == "estimate" for point in points]
    return replace(found, surely=tuple(sure and own for sure, own in zip(found.surely, known, strict=True)))


def _over_compute(points: Sequence[Point], axis: str, to: float) -> Frontier:
    spent = [point.compute.get(axis, 0.0) for point in points]
    return compute_frontier(_rows(points, "rewards"), spent, start=0, to=to)


def _told(frontier: Frontier, members: Sequence[int]) -> dict[str, Any]:
    """With the points' own numbers."""
    return {
        "corners": [members[corner] for corner in frontier.corners],
        "area": asdict(frontier.area),
        "to": frontier.to,
        "below": dict(zip(map(str, members), frontier.below, strict=True)),
        "dominated": {
            str(members[one]): {"by": members[other], "surely": frontier.surely[one]}
            for one, other in enumerate(frontier.dominated_by)
            if other is not None
        },
    }


def _point(point: Point) -> dict[str, Any]:
    return {
        "name": point.name,
        "run": point.run,
        "step": point.step,
        "setting": point.setting,
        "reward": asdict(point.reward),
        "kl": asdict(point.distance),
        "kl_is": point.kl_is,
        "length": asdict(point.length),
        "cut": point.cut,
        "compute": dict(point.compute),
        # Means over a prompt's answers, in the order of the prompts: what pairs one evaluation with another.
        "per_prompt": {name: _rows([point], name)[0].tolist() for name in ("rewards", "kl")},
    }
