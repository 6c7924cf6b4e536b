"""The picture of an evaluation on preferences: how reliable the confidence is, and how much is length."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from likelier.stats.preferences import Group, PreferenceEvaluation

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MARKS = "osD^vP"
_STYLE: Any = {
    "svg.hashsalt": "likelier",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def preferences_picture(found: Mapping[str, PreferenceEvaluation], *, form: Literal["svg", "png"]) -> bytes:
    """Reliability on the left, accuracy by length difference on the right, one colour and mark for each reward."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        reliability, lengths = figure.subplots(1, 2)
        reliability.plot([0.5, 1], [0.5, 1], color="0.6", linewidth=1, linestyle=":")
        lengths.axhline(0.5, color="0.6", linewidth=1, linestyle=":")
        for number, (name, one) in enumerate(found.items()):
            look = {"color": _COLORS[number % 6], "marker": _MARKS[number % 6], "label": name}
            _points(reliability, one.reliability, look)
            _points(lengths, one.by_length, look)
        reliability.set(
            xlabel="confidence σ(|margin|)",
            ylabel="how often the favourite was preferred",
            xlim=(0.48, 1.02),
            ylim=(0, 1.02),
        )
        lengths.set(
            xlabel="tokens of the chosen answer less the rejected's", ylabel="accuracy", ylim=(0, 1.02)
        )
        figure.legend(*reliability.get_legend_handles_labels(), loc="outside upper center", ncols=3)
        buffer = io.BytesIO()
        metadata: Any = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
        figure.savefig(buffer, format=form, metadata=metadata, dpi=150)
    return buffer.getvalue()


def _points(axes: Axes, groups: tuple[Group, ...], look: Mapping[str, Any]) -> None:
    """Each group's accuracy with its interval, where it has one."""
    known = [(group.mean, group.accuracy) for group in groups if group.accuracy is not None]
    below = [0.0 if one.low is None else one.value - one.low for _, one in known]
    above = [0.0 if one.high is None else one.high - one.value for _, one in known]
    axes.errorbar(
        [mean for mean, _ in known],
        [one.value for _, one in known],
        yerr=[below, above],
        linewidth=1.2,
        capsize=2,
        **look,
    )
