"""Pictures of a world: its frontier and who stands where, what best-of-N costs, rewards that run away."""

from __future__ import annotations

from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from likelier.report.pictures import AFTER, BEFORE, DOWN, FAINT, INK, STYLE, as_svg
from likelier.theory.outline import Cost, Outline, Runaway

_SIZE = (4.4, 3.4)
_LINES: tuple[tuple[str, str, str], ...] = (
    (AFTER, "-", "o"),
    (BEFORE, "--", "^"),
    (DOWN, "-.", "s"),
    (INK, ":", "v"),
)


def outline_picture(found: Outline) -> str:
    """Reward against KL: the frontier, π*, best-of-N, and policies of no merit below."""
    with rc_context(STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        farthest = 1.15 * max(found.frontier[-1].kl, found.optimum.kl, 1e-6)
        axes.plot(*zip(*found.frontier, strict=True), color=INK, linewidth=2.4, alpha=0.5, label="frontier")
        shown = [stands for stands in found.others if stands.kl <= farthest]
        if shown:
            axes.plot(*zip(*shown, strict=True), "x", color=FAINT, label="other policies")
        several = zip(*found.best_of_n.values(), strict=True)
        axes.plot(*several, color=BEFORE, linestyle="--", marker="s", label="best of N")
        for n in (2, 4, 16):
            place: dict[str, Any] = {"xytext": (6, -11), "textcoords": "offset points", "fontsize": 8}
            axes.annotate(f"{n}", found.best_of_n[n], color=BEFORE, **place)
        axes.plot(*found.optimum, "o", color=AFTER, markersize=8, label=f"π*, β = {found.beta:g}")
        axes.set(xlabel="KL to the reference, nats", ylabel="mean reward", xlim=(-0.03 * farthest, farthest))
        figure.legend(loc="outside upper center", ncols=4, fontsize=8.5, columnspacing=1.0)
        return as_svg(
            figure, "outline", "Reward against KL: the exact frontier, best-of-N and other policies"
        )


def cost_picture(found: Cost) -> str:
    """KL of best-of-N over N, beside its bound."""
    with rc_context(STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        axes.plot(found.sizes, found.bound, color=INK, linewidth=2.4, alpha=0.5, label="log N − (N−1)/N")
        for (name, curve), (color, dashes, mark) in zip(found.curves.items(), _LINES, strict=False):
            axes.plot(
                found.sizes, curve, color=color, linestyle=dashes, marker=mark, markersize=4, label=name
            )
        axes.set_xscale("log", base=2)
        axes.set(xlabel="N", ylabel="KL to the reference, nats", xticks=found.sizes)
        axes.set_xticklabels([str(n) for n in found.sizes])
        figure.legend(loc="outside upper center", ncols=2, fontsize=8.5)
        return as_svg(figure, "best-of-n", "What best-of-N costs in KL, and its bound")


def runaway_picture(found: Runaway) -> str:
    """The fitted gap of two rewards as the ridge goes to 0."""
    with rc_context(STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        for (name, gaps), (color, dashes, mark) in zip(found.gaps.items(), _LINES, strict=False):
            style: dict[str, Any] = {"color": color, "linestyle": dashes, "marker": mark, "markersize": 4}
            axes.plot(found.ridges, gaps, label=f"wins {name}", **style)
        axes.set(xscale="log", xlabel="ridge λ (to the right: weaker)", ylabel="fitted r(y₁) − r(y₂), nats")
        axes.invert_xaxis()
        figure.legend(loc="outside upper center", ncols=3, fontsize=8.5)
        return as_svg(figure, "runaway", "Fitted gap of two rewards as the ridge goes to 0")
