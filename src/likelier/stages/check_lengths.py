"""Lengths as `likelier check` shows them: figures, histograms in blocks, and the bias towards length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import Console
from rich.table import Table

from likelier.data.length_bias import LengthBias
from likelier.stats.intervals import Estimate, wilson

_BLOCKS = " ▁▂▃▄▅▆▇█"
_BINS = 32
_FEWEST_BINS = 12
_FIGURES = ("n", "mean", "median", "p95", "max")
Lengths = npt.NDArray[Any]


def length_bias(bias: LengthBias) -> Estimate | None:
    """The share of pairs whose chosen answer is the longer one, with Wilson's interval; None without pairs.

    Pairs of one ranking are alike: the interval is that of as many independent pairs as would say as much.

    >>> print(length_bias(LengthBias(longer=60, shorter=40, equal=5)))
    0.6 [0.502, 0.6906] (95 %, n = 100)
    """
    if not bias.n:
        return None
    independent = bias.n if bias.independent is None else max(1, round(bias.independent))
    share = wilson(bias.longer / bias.n * independent, independent)
    return replace(share, value=bias.longer / bias.n, n=bias.n, clusters=independent)


def bias_in_words(bias: LengthBias) -> str | None:
    """The same as a sentence.

    >>> print(bias_in_words(LengthBias(longer=60, shorter=40, equal=5)))
    the longer answer is the chosen one in 60.0 % of 100 pairs (95 % interval 50.2 to 69.1 %; 5 of equal length)
    >>> print(bias_in_words(LengthBias(longer=1, shorter=0, equal=0)))
    the longer answer is the chosen one in 1 of 1 pair: too few for an interval
    """
    share = length_bias(bias)
    if share is None:
        return None
    if share.low is None or share.high is None:
        return f"the longer answer is the chosen one in {bias.longer} of 1 pair: too few for an interval"
    equal = f"; {bias.equal:,} of equal length" if bias.equal else ""
    interval = f"95 % interval {100 * share.low:.1f} to {100 * share.high:.1f} %{equal}"
    return (
        f"the longer answer is the chosen one in {100 * share.value:.1f} % of {bias.n:,} pairs ({interval})"
    )


def quantiles(lengths: Lengths) -> dict[str, float]:
    """The figures that stand beside a histogram.

    >>> quantiles(np.array([1, 2, 3]))
    {'n': 3, 'mean': 2.0, 'median': 2.0, 'p95': 2.9, 'max': 3}
    """
    median, high = np.quantile(lengths, [0.5, 0.95])
    mean = round(float(lengths.mean()), 2)
    return {
        "n": len(lengths),
        "mean": mean,
        "median": float(median),
        "p95": round(float(high), 2),
        "max": int(lengths.max()),
    }


def counted(lengths: Lengths, *, longest: int, bins: int = _BINS) -> tuple[list[int], list[int]]:
    """Edges and counts of a histogram on a logarithmic axis from 0 to `longest`, in whole lengths.

    A length that is an edge counts above it. No bin is narrower than one, so that none is empty by its making.

    >>> counted(np.array([1, 1, 2, 9]), longest=9, bins=3)
    ([0, 2, 5, 10], [2, 1, 1])
    """
    edges = np.unique(np.round(np.geomspace(1, longest + 1, bins + 1)).astype(int))
    edges[0] = 0
    counts, _ = np.histogram(lengths, edges)
    return edges.tolist(), counts.tolist()


def histogram(lengths: Lengths, *, longest: int, bins: int = _BINS) -> str:
    """Lengths as a row of blocks on a logarithmic axis up to `longest`; anything seen shows.

    >>> histogram(np.array([1, 1, 1, 1, 100]), longest=100, bins=4)
    '█  ▂'
    """
    counts = np.array(counted(lengths, longest=longest, bins=bins)[1])
    levels = np.ceil(counts / max(counts.max(), 1) * (len(_BLOCKS) - 1)).astype(int)
    return "".join(_BLOCKS[level] for level in levels)


def lengths_as_json(lengths: Mapping[str, Lengths]) -> dict[str, Any]:
    """Figures and histogram of each kind of text that there is."""
    present = {name: values for name, values in lengths.items() if len(values)}
    result: dict[str, Any] = {}
    for name, values in present.items():
        edges, counts = counted(values, longest=max(1, int(values.max())))
        result[name] = quantiles(values) | {"histogram": {"edges": edges, "counts": counts}}
    return result


def print_lengths(console: Console, unit: str, lengths: Mapping[str, Lengths]) -> None:
    """A histogram for each kind of text, on one axis, as wide as the terminal lets it be."""
    present = {name: values for name, values in lengths.items() if len(values)}
    if not present:
        return
    figures = {name: list(map(_short, quantiles(values).values())) for name, values in present.items()}
    longest = max(1, *(int(values.max()) for values in present.values()))
    bins = min(_BINS, max(_FEWEST_BINS, console.width - _taken(figures)))
    shown = {name: histogram(values, longest=longest, bins=bins) for name, values in present.items()}
    width = max(map(len, shown.values()))
    table = Table(title=f"lengths in {unit}", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    table.add_column(f"0{f'{longest:,}':>{max(1, width - 1)}}", no_wrap=True)
    for figure in _FIGURES:
        table.add_column(figure, justify="right", no_wrap=True)
    for name, row in figures.items():
        table.add_row(name, shown[name], *row)
    console.print(table)


def _taken(figures: Mapping[str, list[str]]) -> int:
    """The width of the table without its histograms: each column at its widest, with the space around it."""
    columns = zip(_FIGURES, *figures.values(), strict=True)
    return sum(3 + max(map(len, column)) for column in columns) + 3 + max(map(len, figures)) + 4


def _short(value: float) -> str:
    """A figure in at most seven characters.

    >>> [_short(value) for value in (3, 119.71, 15_800.4, 2_000_000)]
    ['3', '119.7', '15,800', '2e+06']
    """
    if value >= 1e6:
        return f"{value:.3g}"
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.1f}"
