"""The picture of a frontier: reward against KL, and against what training took."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from likelier.report.charts import FAINT, Form, crosses, drawn, legend_names, look, short
from likelier.report.frontier import AXES, FrontierReport, Point

_NAMED_ENDS = 6
"""Runs whose last steps are written beside their points; more would lie upon each other."""


def frontier_picture(report: FrontierReport, *, reward: str, form: Form) -> bytes:
    """Reward against KL on the left; beside it against the FLOP of training and its seconds, where they are known."""
    return drawn(lambda: _figure(report, reward), form=form)


def _figure(report: FrontierReport, reward: str) -> Figure:
    work = "flop" if "flop" in report.by_compute else "steps"
    shown = [axis for axis in (work, "seconds") if axis in report.by_compute]
    figure = Figure(figsize=(4.8 * (1 + len(shown)), 4.2), layout="constrained")
    panels = figure.subplots(1, 1 + len(shown), squeeze=False)[0]
    _over(panels[0], report, "kl")
    panels[0].set(xlabel="KL to the reference, nats per answer", ylabel=f"mean reward ({short(reward)})")
    for axes, axis in zip(panels[1:], shown, strict=True):
        _over(axes, report, axis)
        axes.set(xlabel=AXES[axis], ylabel=f"mean reward ({short(reward)})")
    if any(other is not None for other in report.overall.dominated_by):
        hollow: dict[str, Any] = {"marker": "o", "color": FAINT, "markerfacecolor": "white"}
        panels[0].plot([], [], linestyle="none", label="hollow: dominated", **hollow)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4)
    return figure


def _over(axes: Axes, report: FrontierReport, axis: str) -> None:
    """Envelope, curves and points over one axis; hollow points are dominated."""
    found = report.overall if axis == "kl" else report.by_compute[axis]["all"]
    members = report.members[axis]
    corners = [report.points[members["all"][corner]] for corner in found.corners]
    x, y = [_place(point, axis) for point in corners], [point.reward.value for point in corners]
    x, y = [*x, max(found.to, x[-1])], [*y, y[-1]]
    style: dict[str, Any] = {"color": FAINT, "linewidth": 5, "alpha": 0.35, "label": "envelope"}
    if axis == "kl":
        axes.plot(x, y, **style)
    else:
        axes.step(x, y, where="post", **style)
    start = report.points[0]
    crosses(
        axes,
        [_place(start, axis)],
        [start.reward],
        color="black",
        marker="*",
        markersize=11,
        label="reference",
        linestyle="none",
    )
    runs = list(dict.fromkeys(point.run for point in report.points[1:]))
    for number, (run, name) in enumerate(zip(runs, legend_names(runs), strict=True)):
        own = [index for index in members.get(run, []) if index]
        points = [report.points[index] for index in own]
        if not points:
            continue
        kl = [point.distance if axis == "kl" else _place(point, axis) for point in points]
        better = dict(zip(members["all"], found.dominated_by, strict=True))
        colors = look(number, name)
        crosses(axes, kl, [point.reward for point in points], linewidth=1.2, **colors)
        worse = [index for index in own if better[index] is not None]
        axes.plot(
            [_place(report.points[index], axis) for index in worse],
            [report.points[index].reward.value for index in worse],
            linestyle="none",
            marker=colors["marker"],
            color=colors["color"],
            markerfacecolor="white",
            zorder=5,
        )
        if points[-1].step is not None and axis == "kl" and len(runs) <= _NAMED_ENDS:
            place = {
                "textcoords": "offset points",
                "xytext": (6, -11),
                "color": colors["color"],
                "fontsize": 8,
            }
            axes.annotate(
                f"step {points[-1].step}", (_place(points[-1], axis), points[-1].reward.value), **place
            )


def _place(point: Point, axis: str) -> float:
    return point.distance.value if axis == "kl" else point.compute.get(axis, 0.0)
