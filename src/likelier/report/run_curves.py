"""Curves of runs: a panel for each figure, a line for each run, told apart by colour, dashes and mark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log, nan
from statistics import fmean
from typing import Any, Literal, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from likelier.report.past_runs import PastRun, finite
from likelier.report.pictures import FAINT, STYLE, as_svg

POINTS = 160
"""Of a curve; a longer one is drawn as means over steps that follow each other."""
_BANDS = 4
"""Runs whose intervals are drawn as bands; those of more would hide each other."""
_COLORS = 7
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.2, 1.5)), (0, (6, 1.5, 1.2, 1.5)))
_MARKS = "osD^vPX"
_RATIOS = "losses with reference"


class Look(NamedTuple):
    """How the n-th run is drawn: 7 colours by 4 kinds of dashes are 28 lines, and marks besides."""

    color: str
    """A stand-in that becomes `var(--run-N)`."""
    dashes: Any
    mark: str
    variable: str
    number: int


def look(number: int) -> Look:
    """
    >>> look(0).variable, look(8).variable, look(8).number
    ('run-0', 'run-1', 9)
    """
    color = number % _COLORS
    dashes = _DASHES[number // _COLORS % len(_DASHES)]
    # Beside another line of its colour a run has another mark too.
    mark = _MARKS[(number + number // _COLORS) % len(_MARKS)]
    return Look(f"#0b0b{color:02x}", dashes, mark, f"run-{color}", number + 1)


_VARIABLES = {f"#0b0b{number:02x}": f"run-{number}" for number in range(_COLORS)}


@dataclass(frozen=True, slots=True)
class Figures:
    """What a panel shows."""

    key: str
    title: str
    meaning: str
    start: float | None = None
    """Where a dotted line goes: the value of a policy that is the reference."""
    apart: Literal["", "loss", "unit"] = ""
    """What gives runs panels of their own: another stage or loss, or rewards in another unit."""


PANELS = (
    Figures("loss", "Loss", "of the step's rows before its update", apart="loss"),
    Figures(
        "rewards/margins", "Margin", "reward of the chosen answer less that of the rejected", 0.0, "unit"
    ),
    Figures("rewards/accuracies", "Accuracy", "share of pairs ranked rightly, an exact tie one half", 0.5),
    Figures(
        "rewards/chosen",
        "Reward of chosen answers",
        "the loss's own: β log π/π_ref, without a reference of log π, or a reward model's",
        0.0,
        "unit",
    ),
    Figures("rewards/rejected", "Reward of rejected answers", "as the chosen answers'", 0.0, "unit"),
    Figures("reward/mean", "Reward", "mean over the step's own answers"),
    Figures("kl", "KL to the reference", "nats per answer, over the step's own answers", 0.0),
    Figures("objective", "Objective", "reward less β KL, what PPO maximises"),
    Figures("entropy", "Entropy", "nats per token"),
    Figures("length/mean", "Answer length", "tokens"),
    Figures("approx_kl", "Approximate KL of the update", "between the policy before and after"),
    Figures("clip_fraction", "Clipped tokens", "share whose ratio left the range"),
    Figures("explained_variance", "Explained variance", "of the returns by the value head"),
    Figures("eval/loss", "Held-out loss", "95 % intervals where the run has them", apart="loss"),
    Figures("eval/rewards/accuracies", "Held-out accuracy", "with 95 % intervals", 0.5),
    Figures("eval/rewards/margins", "Held-out margin", "with 95 % intervals", 0.0, "unit"),
    Figures("eval/reward/mean", "Held-out reward", "with 95 % intervals"),
    Figures("eval/kl", "Held-out KL to the reference", "nats per answer, with 95 % intervals", 0.0),
    Figures("eval/perplexity", "Held-out perplexity", "per scored token"),
    Figures("samples/length", "Length of sampled answers", "tokens"),
    Figures("samples/repetition", "Repetition in sampled answers", "share of 3-grams that came before"),
    Figures("grad_norm", "Gradient norm", "before clipping"),
    Figures("learning_rate", "Learning rate", "of the step"),
)


@dataclass(frozen=True, slots=True)
class Curve:
    """A run's values of a figure: None breaks the line."""

    steps: Sequence[float]
    values: Sequence[float | None]
    low: Sequence[float | None]
    high: Sequence[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A drawn panel."""

    title: str
    caption: str
    svg: str


def panels(runs: Sequence[PastRun]) -> list[Panel]:
    """Every panel for which a run has figures."""
    made: list[Panel] = []
    for number, shown in enumerate(PANELS):
        found = {place: curve_of(run, shown.key) for place, run in enumerate(runs)}
        curves = {place: curve for place, curve in found.items() if curve.steps}
        for group, members in _groups(shown, {place: runs[place] for place in curves}):
            own = {place: curves[place] for place in members}
            made.append(_panel(shown, group, own, runs, name=f"curves{number}x{len(made)}"))
    return made


def _groups(shown: Figures, runs: Mapping[int, PastRun]) -> list[tuple[str, list[int]]]:
    """Runs whose figures share an axis, by number, with what to call them."""
    if not runs:
        return []
    if not shown.apart:
        return [("", list(runs))]
    kind_of = _loss if shown.apart == "loss" else _unit
    kinds = {place: kind_of(run) for place, run in runs.items()}
    named = dict.fromkeys(kinds.values())
    return [
        (kind if len(named) > 1 else "", [place for place, own in kinds.items() if own == kind])
        for kind in named
    ]


def _loss(run: PastRun) -> str:
    return run.stage if "loss" not in run.settings else f"{run.stage}, {run.settings['loss']}"


def _unit(run: PastRun) -> str:
    """Of rewards: a log-ratio's, a log-probability's where the loss has no reference, or what a model learned."""
    if run.stage == "reward":
        return "reward models"
    # Of a run that is under way the manifest is not written: it says nothing of a reference.
    alone = run.stage == "dpo" and (run.manifest or {}).get("reference") == ""
    return "losses without reference" if alone else _RATIOS


def curve_of(run: PastRun, key: str) -> Curve:
    """A run's values of `key`; where a step is missing, or its value, stands None.

    Of more than `POINTS` values each point is the mean of as many neighbours as it takes.
    """
    of_evaluation = key.startswith(("eval/", "samples/"))
    lines = [line for line in run.metrics if key in line]
    steps: list[float] = []
    rows: list[tuple[float | None, ...]] = []
    for line in lines:
        if steps and not of_evaluation and line["step"] > steps[-1] + 1:
            steps.append(steps[-1] + 1.0)
            rows.append((None, None, None))
        steps.append(float(line["step"]))
        rows.append(tuple(finite(line.get(name)) for name in (key, f"{key}/low", f"{key}/high")))
    if all(value is None for value, *_ in rows):
        return Curve([], [], [], [])
    size = -(-len(steps) // POINTS)
    bins = range(0, len(steps), size)
    columns = [[_mean([row[n] for row in rows[at : at + size]]) for at in bins] for n in range(3)]
    return Curve([fmean(steps[at : at + size]) for at in bins], *columns)


def _mean(values: Sequence[float | None]) -> float | None:
    """A gap breaks the line, also among values that are drawn as one."""
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _panel(
    shown: Figures, group: str, curves: dict[int, Curve], runs: Sequence[PastRun], *, name: str
) -> Panel:
    title = f"{shown.title} ({group})" if group else shown.title
    # Every run's loss begins at log 2 under the sigmoid loss alone.
    plain = all(runs[place].settings.get("loss") == "sigmoid" for place in curves)
    start = log(2) if shown.key in ("loss", "eval/loss") and plain else shown.start
    if shown.apart == "unit" and any(_unit(runs[place]) != _RATIOS for place in curves):
        start = None
    with rc_context(STYLE):
        figure = Figure(figsize=(4.8, 2.9), layout="constrained")
        axes = figure.subplots()
        if start is not None:
            axes.axhline(start, color=FAINT, linewidth=1, linestyle=":")
        for place, curve in curves.items():
            _draw(axes, look(place), curve, sparse=len(curves) > 1, bands=len(curves) <= _BANDS)
        axes.set(xlabel="step", ylabel=shown.title)
        axes.locator_params(axis="x", integer=True)
        axes.margins(x=0.03)
        label = f"{title} over steps, {len(curves)} of {len(runs)} runs; the last values stand in the table of runs"
        svg = as_svg(figure, name, label, variables=_VARIABLES)
    return Panel(title=title, caption=_caption(shown, curves, start), svg=svg)


def _caption(shown: Figures, curves: dict[int, Curve], start: float | None) -> str:
    parts = [shown.meaning]
    if start is not None:
        parts.append(f"dotted: {start:.3g}, where the policy is its reference")
    if len(curves) > _BANDS and any(any(v is not None for v in one.low) for one in curves.values()):
        parts.append("intervals of so many runs stand in the table alone")
    return "; ".join(parts)


def _draw(axes: Axes, own: Look, curve: Curve, *, sparse: bool, bands: bool) -> None:
    """One run: its line, marks at some points, and its interval."""
    values = [nan if value is None else value for value in curve.values]
    every = max(1, len(values) // 6)
    style: dict[str, Any] = {"color": own.color, "linestyle": own.dashes, "linewidth": 1.5}
    # A single point, or one between two gaps, has no line to be seen by.
    if sparse or len(values) < 12:
        style |= {"marker": own.mark, "markersize": 4.5, "markevery": (own.number % every, every)}
    (line,) = axes.plot(curve.steps, values, **style)
    line.set_gid(f"line-{own.number}")
    known = [v for v in zip(curve.steps, curve.low, curve.high, strict=True) if None not in v[1:]]
    if bands and known:
        steps, low, high = zip(*known, strict=True)
        band = axes.fill_between(steps, low, high, color=own.color, alpha=0.15, linewidth=0)
        band.set_gid(f"band-{own.number}")
