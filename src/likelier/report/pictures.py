"""Pictures as inline SVG: matplotlib draws them, CSS variables of the page colour them, light and dark.

A picture is drawn in stand-in colours, each of which becomes `var(--name)` in the SVG. Blue and orange of the
Okabe-Ito palette stay apart for every kind of colour vision; nothing is said by colour alone.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from likelier.stats import Estimate

if TYPE_CHECKING:
    # What it compares comes from engines that load torch; pictures of runs need none.
    from likelier.report.comparison import Comparison

INK, FAINT, BEFORE, AFTER, DOWN = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {INK: "ink", FAINT: "faint", BEFORE: "before", AFTER: "after", DOWN: "down"}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "likelier",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}
_SIZE = (4.4, 3.1)
Metrics = Sequence[dict[str, Any]]


def rewards_picture(comparison: Comparison, *, reward: str) -> str:
    """The distribution of the answers' rewards before and after, with both means."""
    before = [value for answers in comparison.rewards_before for value in answers]
    after = [value for answers in comparison.rewards_after for value in answers]
    low, high = min(before + after), max(before + after)
    edges = [low + (high - low or 1.0) * step / 20 for step in range(21)]
    with rc_context(STYLE):
        figure, axes = _figure()
        for values, color, name in ((before, BEFORE, "before"), (after, AFTER, "after")):
            weights = [100 / len(values)] * len(values)
            axes.hist(values, edges, weights=weights, color=color, alpha=0.22)
            axes.hist(values, edges, weights=weights, color=color, histtype="step", linewidth=1.6, label=name)
            style = "--" if name == "before" else "-"
            axes.axvline(fmean(values), color=color, linestyle=style, linewidth=1.4)
        axes.set(xlabel=f"reward of an answer ({reward})", ylabel="% of answers")
        figure.legend(loc="outside upper right", ncols=2)
        return as_svg(figure, "rewards", "Rewards of all answers before and after, as a histogram")


def changes_picture(comparison: Comparison, *, reward: str) -> str:
    """The change of each prompt's mean reward, in order of size, with the mean and its interval."""
    pairs = zip(comparison.rewards_before, comparison.rewards_after, strict=True)
    changes = sorted(fmean(after) - fmean(before) for before, after in pairs)
    mean = comparison.reward.change
    with rc_context(STYLE):
        figure, axes = _figure()
        colors = [AFTER if change >= 0 else DOWN for change in changes]
        axes.bar(range(1, len(changes) + 1), changes, color=colors, width=0.8)
        if mean.interval is not None:
            axes.axhspan(*mean.interval, color=INK, alpha=0.16, linewidth=0)
        axes.axhline(mean.value, color=INK, linewidth=1.2)
        axes.axhline(0, color=FAINT, linewidth=0.8)
        label = "mean, 95 % interval" if mean.interval is not None else "mean"
        place = {"xytext": (0, 6), "textcoords": "offset points", "va": "bottom"}
        axes.annotate(label, (1, (mean.interval or (0, mean.value))[1]), **place)  # type: ignore[arg-type]
        axes.set(xlabel="held-out prompts, by their change", ylabel=f"change of mean reward ({reward})")
        axes.margins(x=0.01)
        return as_svg(figure, "changes", "Change of the mean reward of each held-out prompt")


def training_picture(metrics: Metrics) -> str:
    """Loss, margin and accuracy of each step's pairs before its update."""
    steps = [line["step"] for line in metrics]
    panels = (
        ("rewards/margins", "margin u", 0.0),
        ("loss", "loss, nats", math.log(2)),
        ("rewards/accuracies", "accuracy", 0.5),
    )
    with rc_context(STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        for axes, (key, name, start) in zip(figure.subplots(3, 1, sharex=True), panels, strict=True):
            axes.axhline(start, color=FAINT, linewidth=1, linestyle=":")
            axes.plot(steps, [line[key] for line in metrics], color=AFTER)
            axes.set_ylabel(name)
        axes.set_xlabel("optimiser step (dotted: the value at θ = ref)")
        figure.align_ylabels()
        return as_svg(figure, "training", "Margin, loss and accuracy at each step of training")


def frontier_picture(comparison: Comparison, *, reward: str) -> str:
    """Mean reward against KL to the reference: where training started, where it ended, prompt by prompt."""
    start, end, kl = comparison.reward.before, comparison.reward.after, comparison.kl
    with rc_context(STYLE):
        figure, axes = _figure()
        prompts = [fmean(values) for values in comparison.rewards_after]
        axes.scatter(comparison.kl_per_prompt, prompts, s=10, color=AFTER, alpha=0.35, linewidths=0)
        axes.plot([0, kl.value], [start.value, end.value], color=FAINT, linewidth=1)
        _cross(axes, 0.0, start, None, BEFORE, "s")
        _cross(axes, kl.value, end, kl.interval, AFTER, "o")
        text = {"textcoords": "offset points", "weight": "bold"}
        axes.annotate(r"$\pi_{ref}$", (0, start.value), xytext=(10, -4), color=BEFORE, **text)  # type: ignore[arg-type]
        axes.annotate(r"$\pi_\theta$", (kl.value, end.value), xytext=(8, 8), color=AFTER, **text)  # type: ignore[arg-type]
        axes.set(
            xlabel="KL to the reference, nats per answer (dots: prompts)", ylabel=f"mean reward ({reward})"
        )
        return as_svg(figure, "frontier", "Mean reward against KL to the reference")


class Turned(NamedTuple):
    """A strength's mean reward, and how far it is from the reference."""

    strength: float
    reward: Estimate
    kl: Estimate


def dial_picture(turned: Sequence[Turned], *, reward: str, shown: int) -> str:
    """Mean reward against KL at several strengths; what marks number k of them has the attribute `data-at="k"`.

    Args:
        turned: from the weakest on.
        reward: its name.
        shown: the number of the strength that is marked at first; the other marks are `hidden`.
    """
    with rc_context(STYLE):
        figure, axes = _figure()
        axes.plot(
            [one.kl.value for one in turned], [one.reward.value for one in turned], color=FAINT, linewidth=1
        )
        for number, one in enumerate(turned):
            place = (one.kl.value, one.reward.value)
            color, mark = (AFTER, "o") if number else (BEFORE, "s")
            thin = {"color": color, "marker": mark, "elinewidth": 1, "capsize": 2}
            axes.errorbar(*place, yerr=_reach(one.reward), xerr=_reach(one.kl), **thin)  # type: ignore[arg-type]
            (ring,) = axes.plot(*place, color=INK, marker="o", markersize=15, fillstyle="none", linewidth=0)
            text = {"xytext": (11, -15), "textcoords": "offset points", "weight": "bold"}
            name = axes.annotate(f"λ = {one.strength:g}", place, **text)  # type: ignore[arg-type]
            ring.set_gid(f"ring-{number}")
            name.set_gid(f"name-{number}")
        axes.set(xlabel="KL to the reference, nats per answer", ylabel=f"mean reward ({reward})")
        svg = as_svg(figure, "dial", f"Mean reward against KL to the reference at {len(turned)} strengths")
    marked = re.sub(r'id="dial-(?:ring|name)-(\d+)"', r'\g<0> data-at="\1" hidden', svg)
    return marked.replace(f'data-at="{shown}" hidden', f'data-at="{shown}"')


class Point(NamedTuple):
    """A round's mean reward, and how far it has gone from the start; None is not at all."""

    number: int
    reward: Estimate
    kl: Estimate | None


def rounds_picture(points: Sequence[Point], *, reward: str) -> str:
    """Mean reward against KL to the start, round by round."""
    with rc_context(STYLE):
        figure, axes = _figure()
        distances = [0.0 if point.kl is None else point.kl.value for point in points]
        axes.plot(distances, [point.reward.value for point in points], color=FAINT, linewidth=1)
        for point, distance in zip(points, distances, strict=True):
            color, mark = (AFTER, "o") if point.number else (BEFORE, "s")
            interval = None if point.kl is None else point.kl.interval
            _cross(axes, distance, point.reward, interval, color, mark)
            name = f"round {point.number}" if point.number else "before"
            place = {"textcoords": "offset points", "xytext": (8, -12), "color": color}
            axes.annotate(name, (distance, point.reward.value), **place)  # type: ignore[arg-type]
        axes.set(xlabel="KL to the start, nats per answer", ylabel=f"mean reward ({reward})")
        return as_svg(figure, "rounds", "Mean reward against KL to the start, round by round")


def _reach(estimate: Estimate) -> list[list[float]] | None:
    """How far the interval reaches below and above the value."""
    if estimate.interval is None:
        return None
    return [[estimate.value - estimate.interval[0]], [estimate.interval[1] - estimate.value]]


def _cross(
    axes: Axes, x: float, y: Any, x_interval: tuple[float, float] | None, color: str, mark: str
) -> None:
    """A point with its intervals."""
    x_error = None if x_interval is None else [[x - x_interval[0]], [x_interval[1] - x]]
    axes.errorbar(x, y.value, yerr=_reach(y), xerr=x_error, color=color, marker=mark, capsize=3)


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    return figure, figure.subplots()


def as_svg(figure: Figure, name: str, label: str, *, variables: Mapping[str, str] | None = None) -> str:
    """The figure as an SVG element: without a size of its own, ids that no other has, colours by variable.

    Args:
        figure: what is drawn.
        name: begins every id.
        label: what a screen reader says of it.
        variables: more stand-in colours, each with the name of its variable.
    """
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(url\(|xlink:href=")#', rf"\1#{name}-", svg)
    svg = re.sub(r'^(<svg[^>]*?) width="[^"]*"', r"\1", svg)
    svg = re.sub(r'^(<svg[^>]*?) height="[^"]*"', r"\1", svg)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
    for color, variable in {**_VARIABLES, **(variables or {})}.items():
        svg = svg.replace(color, f"var(--{variable})")
    return svg
