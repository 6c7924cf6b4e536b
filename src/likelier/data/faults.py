"""A row that cannot be used: where it stands, which field, why, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Fault:
    """An unusable row. It takes the place of the row's record, so nothing is dropped silently.

    >>> print(Fault("a.jsonl", 3, "chosen", "null", "`chosen` is null: give the preferred answer"))
    a.jsonl, row 3: `chosen` is null: give the preferred answer
    """

    file: str
    row: int
    """Its number in `file`; the first row is 1."""
    field: str | None
    """The column at fault, None where the row as a whole is."""
    kind: str
    """A short word that checks count by: `"missing"`, `"null"`, `"wrong type"` …"""
    message: str
    """The reason and the remedy on one line."""
    raw: Any = None
    """The row as it was read: an object, or text that is no row at all."""
    rest_lost: bool = False
    """Whether nothing after this row could be read either: how many rows that costs is not known."""

    @property
    def where(self) -> str:
        """`file, row n`, as a record says it."""
        return f"{self.file}, row {self.row}"

    def __str__(self) -> str:
        return one_line(f"{self.where}: {self.message}")


class RowError(Exception):
    """Raised inside readers for one row; `reading.py` turns it into a `Fault`, which knows the place."""

    def __init__(self, field: str | None, kind: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.kind = kind
        self.message = one_line(message)


def one_line(text: str) -> str:
    r"""`text` with line ends, control characters and half surrogate pairs as escapes.

    >>> print(one_line("ch\nosen"))
    ch\nosen
    """
    if text.isprintable():
        return text
    escaped = (letter.encode("unicode_escape").decode() for letter in text)
    return "".join(a if a.isprintable() else b for a, b in zip(text, escaped, strict=True))


def excerpt(value: object, *, limit: int = 40) -> str:
    """`value` as it may stand in a message: on one line, printable, and short.

    >>> excerpt("a" * 100, limit=8)
    "'aaaaaaa…"
    """
    try:
        shown = repr(value[: limit + 1] if isinstance(value, str) else value)
    except (ValueError, RecursionError):  # a number of more than 4,300 digits, lists without end
        shown = f"<{type(value).__name__}>"
    return shown if len(shown) <= limit + 2 else shown[:limit] + "…"


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """`; did you mean …?` with the closest known word, or nothing.

    >>> did_you_mean("chosn", ["chosen", "rejected"])
    '; did you mean `chosen`?'
    """
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean `{close[0]}`?" if close else ""
