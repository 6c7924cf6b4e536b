"""What people are asked: two answers to one prompt, or K to be ranked, from any rows that have answers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from likelier.data.canonical import canonical_row, digest
from likelier.data.faults import Fault
from likelier.data.reading import read
from likelier.data.records import Completion, Record

MAX_RANKED = 9
"""Answers of one ranking: each has a digit as its key."""

ONE_ANSWER = "fewer than two different answers"
REPEATED = "the same prompt and answers as an earlier row"
UNUSABLE = "a row that cannot be used"
TOO_MANY = f"more than {MAX_RANKED} answers to rank"


@dataclass(frozen=True, slots=True)
class Item:
    """A question to a person: the record's answers, whose order in the file says nothing to them."""

    id: str
    """A digest of what is shown: a row that is moved or renamed keeps its labels."""
    record: Record

    @property
    def count(self) -> int:
        """Its number of answers."""
        return len(self.record.completions)

    def row(self) -> dict[str, Any]:
        """What `item_of` reads back."""
        return canonical_row(self.record)


@dataclass(frozen=True, slots=True)
class Items:
    """All questions of a file, and what was left out of it."""

    items: list[Item]
    left_out: Counter[str]
    """Rows by the reason why nobody is asked about them."""


def item_of(row: dict[str, Any]) -> Item:
    """The item that `Item.row` wrote."""
    record = next(iter(read([row], format="rankings")))
    assert isinstance(record, Record), record
    return Item(_identity(record), record)


def build_items(
    rows: Iterable[Record | Fault], *, rank: bool = False, pairs_per_prompt: int = 0, seed: int = 0
) -> Items:
    """The questions that rows make, in their order; labels that the rows carry are put aside.

    Args:
        rows: as `likelier.data.reading.read` gives them; a fault is counted.
        rank: all answers of a row at once; otherwise two and two.
        pairs_per_prompt: at most so many pairs of a row, drawn by `seed`; 0 is all.
        seed: of that draw.

    >>> rows = read([{"prompt": "Hi", "completions": ["a", "b", "c", "c"]}])
    >>> [item.record.id for item in build_items(rows).items]
    ['1:1-2', '1:1-3', '1:2-3']
    """
    items: dict[str, Item] = {}
    left_out: Counter[str] = Counter()
    for row in rows:
        if isinstance(row, Fault):
            left_out[UNUSABLE] += 1
            continue
        record = _unlabelled(row)
        if len(record.completions) < 2:
            left_out[ONE_ANSWER] += 1
        elif rank and len(record.completions) > MAX_RANKED:
            left_out[TOO_MANY] += 1
        else:
            for asked in [record] if rank else _pairs(record, pairs_per_prompt, seed):
                item = Item(_identity(asked), asked)
                if item.id in items:
                    left_out[REPEATED] += 1
                items.setdefault(item.id, item)
    return Items(list(items.values()), left_out)


def _unlabelled(record: Record) -> Record:
    """The record without its labels, and each answer once."""
    different: list[Completion] = []
    for answer in record.completions:
        if all(answer.content != other.content for other in different):
            different.append(answer)
    return replace(
        record,
        completions=different,
        ranking=None,
        scores=None,
        label=None,
        verdict=None,
        margin=0.0,
    )


def _pairs(record: Record, limit: int, seed: int) -> Iterator[Record]:
    chosen: Sequence[tuple[int, int]] = list(combinations(range(len(record.completions)), 2))
    if limit and limit < len(chosen):
        chosen = sorted(random.Random(f"{seed} {record.id}").sample(chosen, limit))
    for left, right in chosen:
        name = record.id if len(record.completions) == 2 else f"{record.id}:{left + 1}-{right + 1}"
        yield replace(record, id=name, completions=[record.completions[left], record.completions[right]])


def _identity(record: Record) -> str:
    answers = [answer.content for answer in record.completions]
    return digest({"prompt": record.prompt, "answers": answers, "tools": record.tools}).hex()
