"""Prompts to answer: rows of any format, each prompt once, or a text file of one a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from likelier.data.reading import load_records
from likelier.data.records import Record
from likelier.errors import DataError


def read_prompt_records(
    data: Any, *, format: str, as_messages: bool, skip_bad_rows: bool, say: Callable[[str], None]
) -> list[Record]:
    """A record for each prompt of `data`, a path or rows.

    Rows without an `id` that hold the same prompt are one; their first row's number is its id.

    Args:
        data: a path, rows or a dataset; a `.txt` file holds a prompt a line.
        format: the format's name; `auto` tells it by the columns.
        as_messages: plain strings become a user's turn.
        skip_bad_rows: go on without the rows that cannot be used.
        say: told what was left out.

    Raises:
        DataError: rows that cannot be used, unless skipped; ids that repeat; no prompt at all.
    """
    rows = _lines(Path(data)) if isinstance(data, (str, Path)) and Path(data).suffix == ".txt" else data
    records, faults = load_records(
        rows,
        format=None if format == "auto" else format,
        as_messages=as_messages,
        skip_bad_rows=skip_bad_rows,
    )
    if faults:
        say(f"left out as unusable: {len(faults)} rows; the first: {faults[0]}")
    distinct = _distinct(records)
    if len(distinct) < len(records):
        say(f"{len(records) - len(distinct)} rows repeat the prompt of an earlier one: each is answered once")
    return distinct


def _distinct(records: list[Record]) -> list[Record]:
    seen: dict[str, Record] = {}
    contents: set[str] = set()
    found = []
    for record in records:
        unnamed = record.id == str(record.row)
        content = repr(record.prompt)
        if unnamed and content in contents:
            continue
        contents.add(content)
        if record.id in seen:
            raise DataError(
                f"{record.where}: the id {record.id!r} is that of {seen[record.id].where} too; ids must differ, "
                "since answers are drawn by them"
            )
        seen[record.id] = record
        found.append(record)
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    """A row for each line that is not blank, its number as id."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    rows = []
    for number, line in enumerate(raw.split(b"\n"), start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\r")
        except UnicodeDecodeError:
            raise DataError(f"{path}, line {number} is not UTF-8: save the file as UTF-8") from None
        if text.strip():
            rows.append({"id": str(number), "prompt": text})
    if not rows:
        raise DataError(f"{path} holds no prompt: write one a line")
    return rows
