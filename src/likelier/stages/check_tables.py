"""What `likelier check` found, for people (tables, examples, lengths) and for programs (JSON)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from likelier.data.checks import Summary, text_of
from likelier.data.records import Record
from likelier.data.showing import escape
from likelier.stages.check_lengths import bias_in_words, length_bias, lengths_as_json, print_lengths
from likelier.stats.intervals import Estimate

if TYPE_CHECKING:
    from likelier.stages.check_tokens import TokenFindings


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
        "lengths": lengths_as_json(summary.lengths),
    }
    if tokens is not None:
        lengths = {"prompt": np.array(tokens.prompts), "answer": np.array(tokens.answers)}
        result["tokens"] = {
            "counts": dict(tokens.counts),
            "examples": tokens.examples,
            "lengths": lengths_as_json(lengths),
            "decoded": tokens.decoded.plain if tokens.decoded is not None else "",
        }
    return result


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {"share": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}


def show(summary: Summary, tokens: TokenFindings | None, records: Sequence[Record]) -> None:
    """Prints the result for people."""
    console = Console(highlight=False, soft_wrap=False)
    places, file = _places(summary), summary.files[0] if len(summary.files) == 1 else ""
    console.print(Text(escape(_headline(summary, file))), soft_wrap=True)
    _print_kinds(console, "unusable rows", summary.faults, places, "red", file)
    _print_kinds(console, "warnings", summary.warnings, places, "yellow", file)
    if tokens is not None:
        _print_kinds(console, "tokens", tokens.counts, tokens.examples, "cyan", file)
    if bias := bias_in_words(summary.bias):
        console.print(f"{bias}\n")
    print_lengths(console, "characters", summary.lengths)
    if tokens is not None:
        print_lengths(
            console, "tokens", {"prompt": np.array(tokens.prompts), "answer": np.array(tokens.answers)}
        )
        if tokens.decoded is not None:
            console.print(tokens.decoded, soft_wrap=True)
        return
    for record in records:
        console.print(_example(record), soft_wrap=True)
    console.print("truncation, boundaries, templates and trained tokens are checked with --model MODEL")


def _headline(summary: Summary, file: str) -> str:
    """How many rows there are, how many of them can be used, and what they say."""
    forms = ", ".join(_number(count, *FORMS[form]) for form, count in summary.forms.most_common())
    usable = f"{_number(summary.rows, 'row', 'rows')}, {summary.unusable:,} unusable"
    records = _number(summary.records, "record", "records") + (f" ({forms})" if forms else "")
    return f"{file}{': ' if file else ''}{usable}; {records}\n"


FORMS = {
    "pair": ("pair", "pairs"),
    "ranking": ("ranking", "rankings"),
    "tie": ("tie", "ties"),
    "both_bad": ("both bad", "both bad"),
    "unpaired": ("unpaired", "unpaired"),
    "single": ("single answer", "single answers"),
    "unlabelled": ("unlabelled", "unlabelled"),
}
"""What records say, as one and as many."""


def _number(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _print_kinds(
    console: Console,
    title: str,
    counts: Counter[str],
    places: Mapping[str, Sequence[str]],
    style: str,
    file: str,
) -> None:
    """A line for each kind, with its count and the first places; the headline has named a lone `file`."""
    if not counts:
        return
    table = Table(title=title, title_justify="left", title_style=f"bold {style}", box=box.SIMPLE_HEAD)
    table.add_column("kind", no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("first met", overflow="fold")
    for kind, count in counts.most_common():
        shown = "\n".join(places.get(kind, ()))
        if file:
            shown = shown.replace(f"{file}, row ", "row ")
        table.add_row(kind, f"{count:,}", Text(escape(shown)))
    console.print(table)


def _places(summary: Summary) -> dict[str, list[str]]:
    """By kind, where it was first met and in what words."""
    return {
        kind: [f"{example.file}, row {example.row}: {example.message}" for example in found]
        for kind, found in summary.examples.items()
    }


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
