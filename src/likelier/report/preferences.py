"""The picture of an evaluation on preferences: how reliable the confidence is, and how much is length."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from likelier.report.charts import FAINT, Form, crosses, drawn, errors_of, legend_names, look, short
from likelier.stats.preferences import Group, PreferenceEvaluation


def preferences_picture(found: Mapping[str, PreferenceEvaluation], *, form: Form) -> bytes:
    """Reliability on the left, accuracy by length difference on the right, one colour and mark for each reward."""
    return drawn(lambda: _figure(found), form=form)


def _figure(found: Mapping[str, PreferenceEvaluation]) -> Figure:
    parted = any(one.by_category for one in found.values())
    figure = Figure(figsize=(13, 3.8) if parted else (9, 3.8), layout="constrained")
    reliability, lengths, *categories = figure.subplots(1, 3 if parted else 2)
    reliability.plot([0.5, 1], [0.5, 1], color=FAINT, linewidth=1, linestyle=":")
    lengths.axhline(0.5, color=FAINT, linewidth=1, linestyle=":")
    # Lengths in tokens and in characters have no axis in common: a judge beside rewards is in the table alone.
    unit = next(iter(found.values())).unit
    names = legend_names(list(found))
    for number, (name, one) in enumerate(zip(names, found.values(), strict=True)):
        _points(reliability, one.reliability, number, name)
        _points(lengths, one.by_length if one.unit == unit else (), number, name)
    for axes in categories:
        _categories(axes, found)
    reliability.set(
        xlabel="confidence σ(|margin|)",
        ylabel="how often the favourite was preferred",
        xlim=(0.48, 1.02),
        ylim=(0, 1.02),
    )
    lengths.set(xlabel=f"{unit} of the chosen answer less the rejected's", ylabel="accuracy", ylim=(0, 1.02))
    figure.legend(*reliability.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _points(axes: Axes, groups: tuple[Group, ...], number: int, name: str) -> None:
    """Each group's accuracy with its interval, where it has one."""
    known = [(group.mean, group.accuracy) for group in groups if group.accuracy is not None]
    crosses(axes, [mean for mean, _ in known], [one for _, one in known], linewidth=1.2, **look(number, name))


def _categories(axes: Axes, found: Mapping[str, PreferenceEvaluation]) -> None:
    """A line for each category, on it the accuracy of each reward."""
    names = sorted({category.name for one in found.values() for category in one.by_category}, reverse=True)
    axes.axvline(0.5, color=FAINT, linewidth=1, linestyle=":")
    for number, (name, one) in enumerate(found.items()):
        accuracies = [category.accuracy for category in one.by_category]
        apart = 0.4 * (number - (len(found) - 1) / 2) / len(found)
        axes.errorbar(
            [accuracy.value for accuracy in accuracies],
            [names.index(category.name) - apart for category in one.by_category],
            xerr=errors_of(accuracies),
            capsize=2,
            elinewidth=1,
            linestyle="none",
            **look(number, name),
        )
    axes.set_yticks(range(len(names)), [short(name, limit=24) for name in names])
    axes.set(xlabel="accuracy", xlim=(-0.02, 1.02))
