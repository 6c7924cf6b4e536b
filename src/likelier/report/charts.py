"""What the pictures of evaluations share: colours that any colour vision tells apart, marks, and their files."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from likelier.stats import Estimate

Form = Literal["svg", "png"]
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKS = "osD^vP"
FAINT = "0.6"
_STYLE: Any = {
    "svg.hashsalt": "likelier",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def drawn(draw: Callable[[], Figure], *, form: Form) -> bytes:
    """The figure that `draw` makes, as a file: the same bytes every time."""
    with rc_context(_STYLE):
        figure = draw()
        buffer = io.BytesIO()
        metadata: Any = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
        figure.savefig(buffer, format=form, metadata=metadata, dpi=150)
    return buffer.getvalue()


def look(number: int, name: str) -> dict[str, Any]:
    """Colour, mark and name of the n-th thing: nothing is said by colour alone, and 36 things look like no other.

    >>> len({(one["color"], one["marker"]) for one in (look(number, "") for number in range(36))})
    36
    """
    mark = MARKS[(number + number // len(COLORS)) % len(MARKS)]
    return {"color": COLORS[number % len(COLORS)], "marker": mark, "label": short(name)}


def legend_names(names: Sequence[str]) -> list[str]:
    """Names without the folder that all paths among them share.

    >>> legend_names(["runs/a/first", "runs/a/second", "best-of-N"]), legend_names(["runs/first"])
    (['first', 'second', 'best-of-N'], ['runs/first'])
    """
    paths = [name.split("/")[:-1] for name in names if "/" in name]
    if len(paths) < 2:
        return list(names)
    # Of paths of different length, as far as the shortest.
    shared = "".join(
        f"{parts[0]}/" for parts in takewhile(lambda own: len(set(own)) == 1, zip(*paths, strict=False))
    )
    return [name.removeprefix(shared) for name in names]


def short(name: str, *, limit: int = 40) -> str:
    """A name that fits into a legend: its end says more than its beginning.

    >>> short("runs/first"), short("a" * 30 + "/" + "b" * 30, limit=10)
    ('runs/first', '…bbbbbbbbb')
    """
    return name if len(name) <= limit else "…" + name[1 - limit :]


def errors_of(estimates: Sequence[Estimate]) -> list[list[float]]:
    """How far intervals reach below and above their values; 0 where there is none."""
    below = [0.0 if one.low is None else max(0.0, one.value - one.low) for one in estimates]
    above = [0.0 if one.high is None else max(0.0, one.high - one.value) for one in estimates]
    return [below, above]


def crosses(axes: Axes, x: Sequence[Any], y: Sequence[Estimate], **style: Any) -> None:
    """Points with the intervals of both coordinates; x may be plain numbers."""
    estimated = [one for one in x if isinstance(one, Estimate)]
    axes.errorbar(
        [one.value if isinstance(one, Estimate) else one for one in x],
        [one.value for one in y],
        xerr=errors_of(estimated) if len(estimated) == len(x) and x else None,
        yerr=errors_of(y),
        capsize=2,
        elinewidth=1,
        **style,
    )
