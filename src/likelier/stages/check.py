"""Looks at data before anything is trained on it.

    likelier check --data pairs.jsonl --model MODEL --fix clean.jsonl --rejected bad.jsonl

Without `--model` the checks are of text; with it also of tokens: what would be cut, split or dropped, and
decoded examples with the trained tokens marked. Exit code 1 when rows are unusable.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from likelier.data.canonical import canonical_row
from likelier.data.checks import Summary, TextChecks
from likelier.data.columns import parse_columns
from likelier.data.faults import Fault
from likelier.data.output import JsonLines
from likelier.data.reading import read
from likelier.data.records import Record
from likelier.errors import UsageError
from likelier.stages.check_config import CheckConfig
from likelier.stages.check_tokens import TokenChecks

CHUNK = 2048
"""Records that are in memory at once."""


def main(config: CheckConfig) -> int:
    """Runs the checks and prints what they found; 1 when rows are unusable, else 0.

    Raises:
        UsageError: settings that contradict each other.
        DataError: data that does not exist or holds no rows.
    """
    _check_paths(config)
    checks = TextChecks(keep=max(config.examples, 1))
    tokens = TokenChecks(config) if config.model else None
    shown: list[Record] = []
    with _progress() as say, contextlib.ExitStack() as files:
        clean = files.enter_context(JsonLines(config.fix)) if config.fix else None
        rejected = files.enter_context(JsonLines(config.rejected)) if config.rejected else None
        for chunk in _chunks(_items(config), CHUNK):
            for item in tokens.without_refused(chunk) if tokens else chunk:
                checks.add(item)
                if isinstance(item, Fault):
                    if rejected:
                        rejected.write(rejected_row(item))
                    continue
                if clean:
                    clean.write(canonical_row(item))
                if len(shown) < config.examples:
                    shown.append(item)
            say(checks.rows)
    return _report(config, checks.summary(), tokens, shown)


def _report(config: CheckConfig, summary: Summary, tokens: TokenChecks | None, shown: list[Record]) -> int:
    """Prints the result in the form asked for."""
    from likelier.stages import check_tables

    if config.json_:
        print(json.dumps(check_tables.as_json(summary, tokens.found if tokens else None)))
    else:
        check_tables.show(summary, tokens.found if tokens else None, shown)
        _say_files(config, summary)
    return int(summary.unusable > 0)


def _say_files(config: CheckConfig, summary: Summary) -> None:
    """What was written where, or how to part the rows."""
    if config.fix:
        print(f"{summary.records:,} usable records are in {config.fix}")
    if config.rejected:
        print(f"{summary.unusable:,} unusable rows are in {config.rejected}, with reasons")
    if summary.unusable and not (config.fix or config.rejected):
        print("--fix clean.jsonl --rejected bad.jsonl writes the usable rows, and the others with reasons")


def _check_paths(config: CheckConfig) -> None:
    """No output may replace an input or the other output."""
    names = [*config.data, *(name.rpartition("=")[0] for name in config.data)]
    inputs = {_real(Path(name)) for name in names if name}
    outputs = [_real(path) for path in (config.fix, config.rejected) if path]
    for path in outputs:
        if path in inputs:
            raise UsageError(f"{path} is an input: write --fix and --rejected to other files")
    if len(set(outputs)) < len(outputs):
        raise UsageError("--fix and --rejected name the same file: give two")
    for named in (config.fix, config.rejected):
        if named and named.suffix in (".csv", ".tsv", ".parquet"):
            raise UsageError(f"{named} would hold JSON Lines: let its name end in .jsonl")
    if not config.model and (config.max_length or config.cut_answers or config.allow_template_edits):
        raise UsageError(
            "--max-length, --cut-answers and --allow-template-edits are checks of tokens: add --model"
        )


def _real(path: Path) -> Path:
    """Where a path leads."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a NUL byte
        raise UsageError(f"{str(path)!r} is no path: {error}") from None


def _items(config: CheckConfig) -> Iterator[Record | Fault]:
    columns = parse_columns(config.columns)
    return read(config.data, format=config.format, columns=columns, as_messages=config.as_ == "messages")


def _chunks(items: Iterator[Record | Fault], size: int) -> Iterator[list[Record | Fault]]:
    while chunk := list(islice(items, size)):
        yield chunk


def rejected_row(fault: Fault) -> dict[str, Any]:
    """A fault as a line of `--rejected`."""
    place = {"file": fault.file, "row": fault.row, "field": fault.field}
    return {**place, "kind": fault.kind, "message": fault.message, "raw": fault.raw}


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """A line on stderr that counts rows, when a person is watching."""
    if not sys.stderr.isatty():
        yield lambda rows: None
        return
    from rich.console import Console

    with Console(stderr=True).status("reading") as status:
        yield lambda rows: status.update(f"{rows:,} rows checked")
