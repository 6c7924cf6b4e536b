"""The picture beside the table: speed and memory, one bar per row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.figures import Figures

COLOURS = {"TRL": "#b9bec7", "likelier": "#2f6fbb"}
TITLES = {
    "hh": "HH pairs",
    "group-hh": "4 ranked answers, long prompt",
    "group-short": "4 ranked answers, short prompt",
    "reward-hh": "reward model, HH pairs",
}


def draw(lines: Sequence[Figures], fixed_gb: float, path: Path) -> None:
    """Write `path` as SVG and PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sets = [data for data in TITLES if any(line.data == data for line in lines)]
    heights = [sum(line.data == data for line in lines) for data in sets]
    figure, axes = pyplot.subplots(
        len(sets),
        2,
        figsize=(11, 0.9 * len(sets) + 0.36 * sum(heights)),
        height_ratios=heights,
        squeeze=False,
        sharey="row",
        layout="constrained",
    )
    for (speed, memory), data in zip(axes, sets, strict=True):
        chosen = [line for line in lines if line.data == data][::-1]
        bars(speed, chosen, [line.pairs_per_second for line in chosen], "{:.2f}")
        bars(memory, chosen, [line.peak_gb for line in chosen], "{:.1f}")
        memory.axvline(fixed_gb, color="#c0392b", linewidth=1, linestyle="--")
        speed.set_title(f"{TITLES[data]}: pairs/s", fontsize=9, loc="left")
        memory.set_title("peak GB (dashed: fixed state)", fontsize=9, loc="left")
    for suffix in (".svg", ".png"):
        figure.savefig(
            path.with_suffix(suffix), dpi=150, metadata={"Date": None} if suffix == ".svg" else None
        )
    pyplot.close(figure)


def bars(axis: object, lines: Sequence[Figures], values: Sequence[float], form: str) -> None:
    """Horizontal bars with their values at the end."""
    from matplotlib.axes import Axes

    assert isinstance(axis, Axes)
    drawn = axis.barh(range(len(lines)), values, color=[COLOURS[line.side] for line in lines])
    axis.bar_label(drawn, labels=[form.format(value) for value in values], padding=3, fontsize=8)
    axis.set_yticks(range(len(lines)), [line.label for line in lines], fontsize=8)
    axis.set_xlim(0, 1.15 * max(values))
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="x", labelsize=8)
