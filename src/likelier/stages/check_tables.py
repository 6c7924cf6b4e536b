"""What `likelier check` found, for people (tables, examples, length histograms) and for programs (JSON)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from likelier.data.checks import Example, LengthBias, Summary, text_of
from likelier.data.records import Record
from likelier.data.showing import escape
from likelier.stats.intervals import Estimate, wilson

if TYPE_CHECKING:
    from likelier.stages.check import TokenFindings

_BLOCKS = " ▁▂▃▄▅▆▇█"
_BINS = 32
Lengths = npt.NDArray[Any]


def length_bias(bias: LengthBias) -> Estimate | None:
    """The share of pairs whose chosen answer is the longer one, with Wilson's interval; None without pairs.

    >>> print(length_bias(LengthBias(longer=60, shorter=40, equal=5)))
    0.6 [0.502, 0.6906] (95 %, n = 100)
    """
    return wilson(bias.longer, bias.n) if bias.n else None


def as_json(summary: Summary, tokens: TokenFindings | None) -> dict[str, Any]:
    """The result for programs."""
    bias = length_bias(summary.bias)
    result: dict[str, Any] = {
        "rows": summary.rows,
        "unusable": summary.unusable,
        "records": summary.records,
        "forms": dict(summary.forms),
        "faults": dict(summary.faults),
        "warnings": dict(summary.warnings),
        "examples": {
            kind: [example._asdict() for example in found] for kind, found in summary.examples.items()
        },
        "longer_chosen": None if bias is None else _estimate(bias) | {"equal_lengths": summary.bias.equal},
        "lengths": {name: quantiles(values) for name, values in summary.lengths.items() if len(values)},
    }
    if tokens is not None:
        lengths = {"prompt": np.array(tokens.prompts), "answer": np.array(tokens.answers)}
        result["tokens"] = {
            "counts": dict(tokens.counts),
            "examples": tokens.examples,
            "lengths": {name: quantiles(values) for name, values in lengths.items() if len(values)},
        }
    return result


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {"share": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}


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


def histogram(lengths: Lengths, *, longest: int, bins: int = _BINS) -> str:
    """Lengths as a row of blocks on a logarithmic axis from 1 to `longest`; anything seen shows.

    >>> histogram(np.array([1, 1, 1, 1, 100]), longest=100, bins=4)
    '█  ▂'
    """
    edges = np.geomspace(1, longest + 1, bins + 1)
    edges[0] = 0
    counts, _ = np.histogram(lengths, edges)
    levels = np.ceil(counts / max(counts.max(), 1) * (len(_BLOCKS) - 1)).astype(int)
    return "".join(_BLOCKS[level] for level in levels)


def show(summary: Summary, tokens: TokenFindings | None, records: Sequence[Record]) -> None:
    """Prints the result for people."""
    console = Console(highlight=False, soft_wrap=False)
    console.print(_headline(summary))
    _print_kinds(console, "unusable rows", summary.faults, summary.examples, "red")
    _print_kinds(console, "warnings", summary.warnings, summary.examples, "yellow")
    if tokens is not None:
        examples = {
            kind: [Example("", 0, place) for place in found] for kind, found in tokens.examples.items()
        }
        _print_kinds(console, "tokens", tokens.counts, examples, "cyan")
    bias = length_bias(summary.bias)
    if bias is not None:
        equal = f"; {summary.bias.equal:,} pairs of equal length left out" if summary.bias.equal else ""
        console.print(f"the longer answer is the chosen one: {bias}{equal}\n", soft_wrap=True)
    _print_lengths(console, "characters", summary.lengths)
    if tokens is not None:
        _print_lengths(
            console, "tokens", {"prompt": np.array(tokens.prompts), "answer": np.array(tokens.answers)}
        )
        if tokens.decoded is not None:
            console.print(tokens.decoded, soft_wrap=True)
        return
    for record in records:
        console.print(_example(record), soft_wrap=True)


def _headline(summary: Summary) -> str:
    forms = ", ".join(f"{count:,} {form}" for form, count in summary.forms.most_common())
    usable = f"{summary.rows:,} rows, {summary.unusable:,} unusable; {summary.records:,} records"
    return f"{usable} ({forms})\n" if forms else f"{usable}\n"


def _print_kinds(
    console: Console, title: str, counts: Counter[str], examples: Mapping[str, Sequence[Example]], style: str
) -> None:
    """A line for each kind, with its count and the first places."""
    if not counts:
        return
    table = Table(title=title, title_justify="left", title_style=f"bold {style}", box=box.SIMPLE_HEAD)
    table.add_column("kind", no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("first met", overflow="fold")
    for kind, count in counts.most_common():
        places = [_place(example) for example in examples.get(kind, ())]
        table.add_row(kind, f"{count:,}", Text(escape("\n".join(places))))
    console.print(table)


def _place(example: Example) -> str:
    return f"{example.file}, row {example.row}: {example.message}" if example.row else example.message


def _print_lengths(console: Console, unit: str, lengths: Mapping[str, Lengths]) -> None:
    """A histogram for each kind of text, on one axis."""
    present = {name: values for name, values in lengths.items() if len(values)}
    if not present:
        return
    longest = max(1, *(int(values.max()) for values in present.values()))
    axis = f"1{f'{longest:,}':>{_BINS - 1}}"
    table = Table(title=f"lengths in {unit}", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    table.add_column(axis, no_wrap=True)
    for figure in ("n", "mean", "median", "p95", "max"):
        table.add_column(figure, justify="right", no_wrap=True)
    for name, values in present.items():
        figures = [f"{value:,g}" if value < 1e6 else f"{value:.3g}" for value in quantiles(values).values()]
        table.add_row(name, histogram(values, longest=longest), *figures)
    console.print(table)


def _example(record: Record, *, limit: int = 400) -> Text:
    """A record in words: the end of its prompt, and its answers, which are what is trained, in bold."""
    shown = Text(escape(f"{record.where} (id {record.id})\n"), style="underline")
    prompt = text_of(record.prompt)
    shown.append(
        escape(("…" if len(prompt) > limit else "") + prompt[-limit:]) + "\n", style="not underline dim"
    )
    places = {member: rank + 1 for rank, group in enumerate(record.ranking or []) for member in group}
    for index, completion in enumerate(record.completions):
        answer = text_of(completion.content)
        shown.append(f"{places.get(index, '·')} ▸ ", style="not underline")
        shown.append(
            escape(answer[:limit] + ("…" if len(answer) > limit else "")) + "\n",
            style="not underline bold",
        )
    return shown
