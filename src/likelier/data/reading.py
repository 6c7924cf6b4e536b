"""Data as every stage reads it: records, and a fault in the place of each row that is none."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from likelier.data.canonical import prompt_digest
from likelier.data.faults import Fault, RowError, excerpt
from likelier.data.files import dataset_rows, raw_rows
from likelier.data.formats import Format, check_columns, find_format, known_columns, named_format
from likelier.data.json_rows import Raw
from likelier.data.raw_row import RawRow
from likelier.data.records import Record
from likelier.errors import DataError, UsageError

ROWS = "<rows>"
"""The `file` of rows that come from memory."""


def read(
    data: Any,
    *,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    as_messages: bool = False,
) -> Iterator[Record | Fault]:
    """The records of `data`, row after row, with a `Fault` for every row that cannot be used.

    Args:
        data: a path, a saved `datasets` folder or a hub name (`name[:configuration][:split]`), rows (dicts or
            records), a `datasets.Dataset`, or a list of those. `"file.jsonl=0.5"` takes half of the prompts.
        format: the format's name, where its columns do not tell it.
        columns: what to call columns: `{"prompt": "instruction"}` reads `instruction` as `prompt`.
        as_messages: plain strings become turns (the prompt the user's, the answer the assistant's).

    Raises:
        DataError: a source that does not exist or cannot be read at all.
        UsageError: an unknown format, column or share.

    >>> rows = [{"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"}, {"prompt": "2 + 2 ="}]
    >>> record, fault = read(rows)
    >>> record.completions[0].content, fault.kind
    (' 4', 'missing')
    """
    form = named_format(format) if format else None
    check_columns(columns or {})
    sources = [_source(item) for item in _items(data)]
    return chain.from_iterable(_read_source(source, form, columns or {}, as_messages) for source in sources)


def load_records(
    data: Any,
    *,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    as_messages: bool = False,
    skip_bad_rows: bool = False,
) -> tuple[list[Record], list[Fault]]:
    """All records of `data`, and the faults that were skipped; without `skip_bad_rows` faults are an error.

    Args:
        data, format, columns, as_messages: as in `read`.
        skip_bad_rows: go on without the rows that cannot be used.

    Raises:
        DataError: unusable rows, unless skipped; a file that cannot be read to its end; no usable row at all.

    >>> load_records([{"prompt": "Hi", "chosen": "a", "rejected": "a"}])
    Traceback (most recent call last):
    likelier.errors.DataError: 1 of 1 rows cannot be used (chosen equals rejected: 1); the first: \
<rows>, row 1: `chosen` equals `rejected`: there is nothing to prefer; delete the row or call it a tie \
(--skip-bad-rows leaves such rows out, `likelier check` lists them)
    """
    records: list[Record] = []
    faults: list[Fault] = []
    for item in read(data, format=format, columns=columns, as_messages=as_messages):
        if isinstance(item, Fault):
            faults.append(item)
        else:
            records.append(item)
    total = len({(record.file, record.row) for record in records}) + len(faults)
    if faults and not skip_bad_rows:
        remedy = "--skip-bad-rows leaves such rows out, `likelier check` lists them"
        raise DataError(f"{_told(faults, total)} ({remedy})")
    for fault in faults:
        if fault.rest_lost:  # Leaving out rows that nobody has counted is no skipping.
            raise DataError(f"{fault} (--skip-bad-rows does not skip the rest of a file)")
    if not records:
        raise DataError(_told(faults, total) if faults else "the data holds no usable row")
    return records, faults


def _told(faults: Sequence[Fault], total: int) -> str:
    """How many rows cannot be used, why, and the first of them."""
    kinds = Counter(fault.kind for fault in faults).most_common()
    counts = ", ".join(f"{kind}: {count}" for kind, count in kinds)
    return f"{len(faults)} of {total} rows cannot be used ({counts}); the first: {faults[0]}"


@dataclass(frozen=True, slots=True)
class _Source:
    name: str
    rows: Iterator[Raw]
    share: float = 1.0


def _items(data: Any) -> list[Any]:
    """The sources that `data` names; rows in memory are one source."""
    if isinstance(data, (str, Path)) or _is_dataset(data):
        return [data]
    if isinstance(data, Mapping):
        raise UsageError("data must be rows, a path or a dataset, not one object; put a row into a list")
    if not isinstance(data, Iterable):
        raise UsageError(f"data must be rows, a path or a dataset, not a {type(data).__name__}")
    items = iter(data)
    first = next(items, None)
    if isinstance(first, (str, Path)) or _is_dataset(first):
        return [first, *items]
    return [chain([first], items)] if first is not None else [iter(())]


def _is_dataset(data: Any) -> bool:
    """Whether this is a `datasets.Dataset` or its like, told without importing the library."""
    return hasattr(data, "features") and hasattr(data, "__iter__")


def _source(item: Any) -> _Source:
    if isinstance(item, (str, Path)):
        name, share = split_share(str(item))
        return _Source(name, raw_rows(name), share)
    if _is_dataset(item):
        return _Source("<dataset>", dataset_rows(item))
    return _Source(ROWS, enumerate(item, start=1))


def split_share(name: str) -> tuple[str, float]:
    """The path and the share of `path=share`; a file whose very name has an `=` is itself.

    >>> split_share("who/what:test=0.05")
    ('who/what:test', 0.05)
    """
    path, equals, tail = name.rpartition("=")
    if not equals or Path(name).exists():
        return name, 1.0
    try:
        share = float(tail)
    except ValueError:
        if not Path(path).exists():
            return name, 1.0
        share = float("nan")
    if not 0 < share <= 1:
        raise UsageError(f"--data {name}: a share must be above 0 and at most 1, not `{tail}`")
    return path, share


def _read_source(
    source: _Source, form: Format | None, columns: Mapping[str, str], as_messages: bool
) -> Iterator[Any]:
    read = taken = 0
    for item in _Reader(source.name, form, columns, as_messages).read(source.rows):
        read += 1
        if source.share == 1.0 or isinstance(item, Fault) or _within_share(item, source.share):
            taken += 1
            yield item
    if not read:
        raise DataError(f"{source.name} holds no rows")
    if not taken:
        raise DataError(f"{source.name}: a share of {source.share:g} takes none of its {read} rows: raise it")


def _within_share(record: Record, share: float) -> bool:
    """Whether a record belongs to its source's share, by its prompt: answers to one prompt stay together."""
    digest = hashlib.blake2b(prompt_digest(record.prompt), digest_size=8, key=b"share").digest()
    return int.from_bytes(digest, "big") < share * 2.0**64


def _refuse_wrapped(value: Mapping[str, Any]) -> None:
    """Names what is likely meant where a file holds one object around its rows."""
    ((name, inner),) = value.items() if len(value) == 1 else ((None, None),)
    if name not in known_columns() and isinstance(inner, list) and inner and isinstance(inner[0], Mapping):
        shown = excerpt(name, limit=80)
        message = (
            f"the rows stand inside the key {shown}: write that list alone, without the object around it"
        )
        raise RowError(None, "wrong type", message)


class _Reader:
    """Turns the raw rows of one source into records and faults, in order."""

    def __init__(self, file: str, form: Format | None, columns: Mapping[str, str], as_messages: bool) -> None:
        self.file = file
        self.form = form
        self.columns = columns
        self.as_messages = as_messages

    def read(self, rows: Iterator[Raw]) -> Iterator[Record | Fault]:
        """One record or fault after another; rows that make one example together are gathered first."""
        group: list[RawRow] = []
        common: tuple[Format, Hashable] | None = None
        for raw in rows:
            found = raw if isinstance(raw, Fault) else self._row(*raw)
            key = None
            if not isinstance(found, (Fault, Record)):
                row, form = found
                key = (form, form.key(row.values) if form.key else row.number)
            if common and key != common:
                yield from self._records(common[0], group)
                group = []
            common = key
            if isinstance(found, (Fault, Record)):
                yield found
            else:
                group.append(row)
        if common:
            yield from self._records(common[0], group)

    def _row(self, number: int, value: Any) -> Fault | Record | tuple[RawRow, Format]:
        if isinstance(value, Record):
            return value
        try:
            if isinstance(value, str) and self.form and self.form.name == "prompts":
                value = {"prompt": value}
            if not isinstance(value, Mapping):
                raise RowError(
                    None, "wrong type", f"a row must be an object of columns, not a {type(value).__name__}"
                )
            _refuse_wrapped(value)
            values = self._renamed(value)
            return RawRow(values, self.file, number, self.as_messages), self.form or find_format(
                frozenset(values)
            )
        except RowError as error:
            return Fault(self.file, number, error.field, error.kind, error.message, value)

    def _renamed(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self.columns:
            return value
        values = dict(value)
        for wanted, given in self.columns.items():
            if given not in value:
                raise RowError(
                    given, "missing", f"there is no column `{given}` to read as `{wanted}` (--columns)"
                )
            values.pop(given, None)
        return values | {wanted: value[given] for wanted, given in self.columns.items()}

    def _records(self, form: Format, group: list[RawRow]) -> Iterator[Record | Fault]:
        """All records of the rows of a group, or a fault for each row: it is used whole or not at all."""
        try:
            records = list(form.read(form.gather(group) if form.gather else group[0]))
        except RowError as error:
            for row in group:
                yield Fault(self.file, row.number, error.field, error.kind, error.message, row.values)
        else:
            yield from records
