"""Held-out rows by prompt, and the hash that says whether two data sets are the same."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

from likelier.data.canonical import canonical_row, digest, prompt_digest
from likelier.data.records import Record
from likelier.errors import DataError, UsageError


def split_by_prompt(
    records: Sequence[Record], share: float, *, seed: int = 0
) -> tuple[list[Record], list[Record]]:
    """The records to train on and those held out, each in the order given; a prompt is wholly on one side.

    Prompts are held out in the order of a keyed hash of their content until `share` of the records is
    reached: neither the order of the rows nor their file matters, and a prompt that is added moves
    others only at the edge. Rows without a prompt (plain text) share none; those with the same answers
    stay together.

    Args:
        records: what to split.
        share: the part to hold out, between 0 and 1; at least one prompt is.
        seed: another seed, another split.

    Raises:
        UsageError: a share that is not between 0 and 1.
        DataError: fewer than two prompts.

    >>> from likelier.data.reading import read
    >>> rows = [{"prompt": f"{n % 10}", "completion": f"{n}"} for n in range(40)]
    >>> train, held_out = split_by_prompt(list(read(rows)), 0.2)
    >>> len(train), len(held_out), {r.prompt for r in train} & {r.prompt for r in held_out}
    (32, 8, set())
    """
    if not 0.0 < share < 1.0:
        raise UsageError(f"--eval-share must lie between 0 and 1, not at {share:g}")
    digests = [_shared(record) for record in records]
    sizes = Counter(digests)
    if len(sizes) < 2:
        raise DataError("all rows share one prompt, so none can be held out; give --eval-data instead")
    held_out = _held_out(sizes, share * len(records), str(seed).encode())
    sides: tuple[list[Record], list[Record]] = ([], [])
    for record, key in zip(records, digests, strict=True):
        sides[key in held_out].append(record)
    return sides


def _shared(record: Record) -> bytes:
    """What keeps rows on one side: their prompt, or without one their answers."""
    if record.prompt:
        return prompt_digest(record.prompt)
    return digest(sorted(digest(completion.content).hex() for completion in record.completions))


def _held_out(sizes: Counter[bytes], wanted: float, seed: bytes) -> set[bytes]:
    """Prompts in the order of their keyed hash, until they hold the records wanted; never all of them."""
    ordered = sorted(sizes, key=lambda key: hashlib.blake2b(key, key=seed[:64]).digest())
    chosen: set[bytes] = set()
    count = 0
    for key in ordered[:-1]:
        if chosen and count + sizes[key] / 2 > wanted:
            break
        chosen.add(key)
        count += sizes[key]
    return chosen


def hash_records(records: Iterable[Record]) -> str:
    """SHA-256 over the records' content in their order; the file and the row they came from do not enter.

    >>> from likelier.data.reading import read
    >>> hash_records(read([{"id": "1", "text": "Hi"}])) == hash_records(read([{"id": "2", "text": "Hi"}]))
    False
    """
    total = hashlib.sha256()
    for record in records:
        total.update(digest(canonical_row(record), size=32))
    return total.hexdigest()
