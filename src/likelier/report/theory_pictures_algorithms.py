"""Pictures of algorithms on the same samples: against the exact frontier, by sample size, by learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from likelier.report.charts import errors_of
from likelier.report.pictures import AFTER, BEFORE, DOWN, FAINT, INK, STYLE, as_svg
from likelier.stats import Estimate
from likelier.theory.frontiers import Distances, Frontiers
from likelier.theory.stability import Stability

_SIZE = (4.4, 3.6)
_LINES: dict[str, tuple[str, str, str]] = {
    "DPO": (AFTER, "-", "o"),
    "PPO": (BEFORE, "--", "^"),
    "PPO-GT": (BEFORE, ":", "v"),
    "IPO": (DOWN, "-.", "s"),
    "hinge": (AFTER, ":", "D"),
    "cDPO, ε 0.1": (DOWN, "--", "P"),
    "best of N": (INK, "--", "*"),
    "unlikelihood, α 1": (DOWN, "-", ">"),
    "unlikelihood, α 0.5": (DOWN, "-.", "<"),
    "unlikelihood, α 0.1": (DOWN, ":", "d"),
    "Preferred-FT": (BEFORE, "-", "X"),
}
"""Colour, dashes and mark of each algorithm: none is told by colour alone."""
WITH_BETA = ("DPO", "cDPO, ε 0.1", "hinge", "IPO", "PPO", "PPO-GT")
WITHOUT_BETA = (
    "DPO",
    "best of N",
    "unlikelihood, α 1",
    "unlikelihood, α 0.5",
    "unlikelihood, α 0.1",
    "Preferred-FT",
)


def frontier_picture(
    found: Frontiers, algorithms: Sequence[str] = WITH_BETA, *, name: str = "frontiers"
) -> str:
    """Reward against KL, the exact frontier above all, each point with its intervals over seeds."""
    with rc_context(STYLE):
        figure, axes = _figure()
        shown = [point for algorithm in algorithms for point in found.of(algorithm)]
        farthest = 1.08 * max(_high(point.kl) for point in shown)
        within = [place for place in found.exact if place.kl <= farthest]
        axes.plot(*zip(*within, strict=True), color=INK, linewidth=2.4, alpha=0.5, label="exact frontier")
        for algorithm in algorithms:
            points = found.of(algorithm)
            _curve(
                axes,
                algorithm,
                [p.kl.value for p in points],
                [p.reward for p in points],
                [p.kl for p in points],
            )
        axes.set(xlabel="KL to the reference, nats", ylabel="mean true reward")
        _legend(figure, 2 if algorithms == WITHOUT_BETA else 3)
        return as_svg(figure, name, "Reward against KL of each algorithm, beside the exact frontier")


def distance_picture(found: Distances) -> str:
    """What is lost of J as the sample grows."""
    with rc_context(STYLE):
        figure, axes = _figure()
        for algorithm, lost in found.lost.items():
            if algorithm != "PPO-GT":  # it needs no sample
                _curve(axes, algorithm, found.counts, lost)
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="comparisons in the sample",
            ylabel=f"J* − J at β = {found.beta:g}, units of reward",
        )
        _legend(figure, 3)
        return as_svg(figure, f"distances-{found.beta:g}", "Distance to the optimum as the sample grows")


def stability_picture(found: Stability) -> str:
    """The share of what can be gained, at each learning rate, over samples."""
    with rc_context(STYLE):
        figure, axes = _figure()
        axes.axhline(0.0, color=FAINT, linewidth=0.8)
        axes.axhline(100.0, color=FAINT, linewidth=0.8, linestyle=":")
        for algorithm, gained in found.gained.items():
            _curve(axes, algorithm, found.rates, [estimate.scaled(100) for estimate in gained])
        axes.set(
            xscale="log",
            xlabel=f"learning rate of Adam, {found.steps} steps",
            ylabel=f"of J* − J(reference), β = {found.beta:g}, %",
        )
        _legend(figure, 3)
        return as_svg(figure, "stability", "What DPO and PPO gain at each learning rate")


def _curve(
    axes: Axes,
    algorithm: str,
    places: Sequence[float],
    heights: Sequence[Estimate],
    widths: Sequence[Estimate] | None = None,
) -> None:
    color, dashes, mark = _LINES[algorithm]
    style: dict[str, Any] = {"color": color, "linestyle": dashes, "marker": mark, "markersize": 5}
    axes.errorbar(
        places,
        [height.value for height in heights],
        yerr=errors_of(heights),
        xerr=None if widths is None else errors_of(widths),
        capsize=2,
        elinewidth=0.9,
        linewidth=1.4,
        label=algorithm,
        **style,
    )


def _high(estimate: Estimate) -> float:
    return estimate.value if estimate.high is None else estimate.high


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    return figure, figure.subplots()


def _legend(figure: Figure, columns: int) -> None:
    figure.legend(
        loc="outside upper center", ncols=columns, fontsize=8.5, columnspacing=1.0, handlelength=2.6
    )
