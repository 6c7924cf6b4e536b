"""Pictures of the β dial and of the value-function view: math.md (14) and (13), drawn from exact numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from likelier.report.pictures import AFTER, BEFORE, DOWN, FAINT, INK, STYLE, as_svg
from likelier.theory.dial import DialCurve
from likelier.theory.variance_path import DPO, VarianceCurves

_SIZE = (4.4, 3.4)
_LINES: tuple[tuple[str, str, str], ...] = (
    (INK, ":", ""),
    (INK, "-", "s"),
    (AFTER, "--", "^"),
    (BEFORE, "-", "o"),
    (DOWN, "-.", "D"),
)
"""Colour, dashes and mark of each curve: none is told by colour alone."""
_NOISE_LINES: dict[str, tuple[str, str, str]] = {
    "no baseline": (DOWN, "-.", "D"),
    "another sample": (BEFORE, ":", "v"),
    "leave one out, K = 2": (BEFORE, "-", "o"),
    "leave one out, K = 8": (BEFORE, "--", "p"),
    "soft value β log Z": (AFTER, "-", "^"),
    "policy's own value": (INK, ":", ""),
    DPO: (INK, "-", "s"),
}
_LEAST = 1e-12
"""Below this nothing is drawn on a logarithmic axis: it is rounding."""


def dial_loss_picture(curves: Sequence[DialCurve]) -> str:
    """Reward that the per-token dial loses at equal KL, over λ, world by world."""
    with rc_context(STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        for curve, (color, dashes, mark) in zip(curves, _LINES, strict=False):
            shares = [100 * share for share in curve.lost_share]
            axes.plot(
                curve.strengths,
                shares,
                color=color,
                linestyle=dashes,
                marker=mark,
                markevery=4,
                label=curve.name,
            )
        axes.axvline(1.0, color=FAINT, linewidth=0.8)
        axes.set(xlabel="λ (0: reference, 1: trained policy)", ylabel="gain lost at equal KL, %")
        figure.legend(loc="outside upper center", ncols=2, fontsize=9)
        return as_svg(figure, "dial-loss", "Reward that mixing next-token logits loses at equal KL, by λ")


def dial_frontier_picture(curve: DialCurve) -> str:
    """Reward against KL in one world: the exact dial, which is the frontier, and the per-token form, to its end."""
    own = tuple(zip(curve.kl, curve.reward, strict=True))
    furthest = _ROOM * max(curve.kl)
    with rc_context(STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        axes.plot(*zip(*curve.frontier, strict=True), color=AFTER, label="whole answers: the frontier")
        axes.plot(curve.kl, curve.reward, color=DOWN, linestyle="--", label="next-token logits")
        for points, color, mark, offset in (
            (curve.frontier, AFTER, "o", (-8, 6)),
            (own, DOWN, "s", (5, -11)),
        ):
            for strength, (kl, reward) in zip(curve.strengths, points, strict=True):
                if strength in _NAMED and kl <= furthest:
                    axes.plot(kl, reward, mark, color=color, markersize=5)
                    place: dict[str, Any] = {"xytext": offset, "textcoords": "offset points", "fontsize": 8}
                    axes.annotate(f"{strength:g}", (kl, reward), color=color, **place)
        axes.set(xlim=(-0.03 * furthest, furthest), ylim=_heights([*curve.frontier, *own], furthest))
        axes.set(xlabel="KL to the reference, nats per answer (at the points: λ)")
        axes.set_ylabel(f"mean reward ({curve.name})")
        figure.legend(loc="outside upper center", ncols=2, fontsize=9)
        return as_svg(figure, "dial-frontier", f"Reward against KL along the dial, world {curve.name}")


def _heights(points: Sequence[tuple[float, float]], furthest: float) -> tuple[float, float]:
    """The rewards of what stands within the axis, with room for names."""
    seen = [reward for kl, reward in points if kl <= furthest]
    room = 0.08 * (max(seen) - min(seen) or 1.0)
    return min(seen) - room, max(seen) + 2 * room


_NAMED = (0.5, 1.0, 1.5, 2.0)
"""λ that are named at their points."""
_ROOM = 1.2
"""How far the axis runs beyond the per-token form's own KL: whole answers go much further."""


def noise_picture(curves: VarianceCurves) -> str:
    """Answers that an estimate of the gradient needs until its noise equals its signal, along the path to π*."""
    return _noise(
        *(curves, curves.needed, "variance-needed"),
        ylabel="answers until noise = signal",
        label="Answers until the noise of a gradient's estimate equals its signal, on the way to the optimum",
    )


def variance_picture(curves: VarianceCurves) -> str:
    """Trace of the policy gradient's covariance per answer, along the path to π*."""
    return _noise(
        *(curves, curves.per_answer, "variance"),
        ylabel="variance × answers, (reward)²",
        label="Variance of policy gradients per answer on the way from the reference to the optimum",
    )


def _noise(
    curves: VarianceCurves, values: dict[str, tuple[float, ...]], name: str, *, ylabel: str, label: str
) -> str:
    with rc_context(STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        for estimate, (color, dashes, mark) in _NOISE_LINES.items():
            if estimate in values:
                drawn = [value if value > _LEAST else math.nan for value in values[estimate]]
                style: dict[str, Any] = {"color": color, "linestyle": dashes, "marker": mark, "markevery": 4}
                axes.plot(curves.path, drawn, label=estimate, markersize=4, **style)
        axes.set_yscale("log")
        axes.set(xlabel=f"λ (0: reference, 1: π*, β = {curves.beta:g})", ylabel=ylabel)
        figure.legend(loc="outside upper center", ncols=2, fontsize=8)
        return as_svg(figure, name, label)
