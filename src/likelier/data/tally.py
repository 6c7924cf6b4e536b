"""What was noticed while rows became trees: counts by kind, a few places per kind, and the rows refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from likelier.data.faults import Fault, RowError
from likelier.data.records import Record

EXAMPLES_PER_KIND = 5


@dataclass
class Tally:
    """Nothing that is changed, left out or refused on the way to the tokens goes uncounted.

    >>> from likelier.data.records import Record
    >>> tally = Tally()
    >>> tally.note("boundary split", Record(file="a.jsonl", row=3, id="3", prompt="", completions=[]))
    >>> tally.counts["boundary split"], tally.examples["boundary split"]
    (1, ['a.jsonl, row 3'])
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    refused: list[Fault] = field(default_factory=list)

    def note(self, kind: str, record: Record, *, number: int = 1, detail: str = "") -> None:
        """Count `number` of `kind`, and remember where the first few stand."""
        self.counts[kind] += number
        places = self.examples.setdefault(kind, [])
        if len(places) < EXAMPLES_PER_KIND:
            places.append(f"{record.where}: {detail}" if detail else record.where)

    def refuse(self, record: Record, error: RowError) -> None:
        """Set a row aside with its reason."""
        self.refused.append(Fault(record.file, record.row, error.field, error.kind, error.message))
