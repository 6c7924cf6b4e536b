"""The picture of an evaluation on preferences: how reliable the confidence is, and how much is length."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from likelier.report.charts import FAINT, Form, crosses, drawn, look
from likelier.stats.preferences import Group, PreferenceEvaluation


def preferences_picture(found: Mapping[str, PreferenceEvaluation], *, form: Form) -> bytes:
    """Reliability on the left, accuracy by length difference on the right, one colour and mark for each reward."""
    return drawn(lambda: _figure(found), form=form)


def _figure(found: Mapping[str, PreferenceEvaluation]) -> Figure:
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    reliability, lengths = figure.subplots(1, 2)
    reliability.plot([0.5, 1], [0.5, 1], color=FAINT, linewidth=1, linestyle=":")
    lengths.axhline(0.5, color=FAINT, linewidth=1, linestyle=":")
    for number, (name, one) in enumerate(found.items()):
        _points(reliability, one.reliability, number, name)
        _points(lengths, one.by_length, number, name)
    reliability.set(
        xlabel="confidence σ(|margin|)",
        ylabel="how often the favourite was preferred",
        xlim=(0.48, 1.02),
        ylim=(0, 1.02),
    )
    lengths.set(xlabel="tokens of the chosen answer less the rejected's", ylabel="accuracy", ylim=(0, 1.02))
    figure.legend(*reliability.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _points(axes: Axes, groups: tuple[Group, ...], number: int, name: str) -> None:
    """Each group's accuracy with its interval, where it has one."""
    known = [(group.mean, group.accuracy) for group in groups if group.accuracy is not None]
    crosses(axes, [mean for mean, _ in known], [one for _, one in known], linewidth=1.2, **look(number, name))
