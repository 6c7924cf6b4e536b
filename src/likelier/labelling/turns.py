"""What passes between a page and the desk: an answer as it is given, a turn as it is shown, a refusal."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

from likelier.labelling.events import Verdict
from likelier.labelling.state import Showing

MAX_NAME = 40


class RefusalError(Exception):
    """What the page is told when its request cannot be met, with the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An answer as the page sends it: what stood where, not which answer it is."""

    showing: str
    version: int
    verdict: Verdict
    ranking: list[list[int]]
    """Places, best group first."""
    strength: int | None = None
    reason: str = ""
    edit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an annotator has come."""

    done: int
    left: int
    """At most: others may take some of them."""
    seconds: float | None
    """The median of the last answers, None before the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What the page shows now."""

    showing: Showing | None
    waiting: bool
    """Nothing to show, but others have items before them that may come free."""
    progress: Progress
    undo: int | None
    """The number of the answer that undo would take back."""
    previous: dict[str, Any] | None = None
    """The answer that was taken back, to start from."""


def clean_name(given: str) -> str | None:
    """A name in its one spelling; None where it is none.

    >>> clean_name("  Ann   Lee "), clean_name("")
    ('Ann Lee', None)
    """
    cleaned = " ".join(unicodedata.normalize("NFC", given).split())
    return cleaned if 0 < len(cleaned) <= MAX_NAME and cleaned.isprintable() else None
