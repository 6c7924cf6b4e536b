"""Which records say the same, and which contradict each other: remembered in a few bytes each.

Eight bytes of digest a record and a pair, sorted at the end, which needs no table in memory. A million
records take about 40 MB; that two different ones among them share a digest has a chance of 3e-8.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from itertools import combinations

import numpy as np
import numpy.typing as npt

from likelier.data.canonical import digest
from likelier.data.records import Record

Indices = npt.NDArray[np.int64]


class Seen:
    """Remembers records in the order they are added; their indices in this order are what it answers with."""

    def __init__(self) -> None:
        self._records = array("Q")
        self._pairs = array("Q")
        self._pair_records = array("Q")

    def add(self, record: Record) -> None:
        """Remembers what a record says and each preference in it."""
        prompt = digest(record.prompt, size=8)
        answers = [digest(completion.content, size=8) for completion in record.completions]
        whole = [prompt, *_in_order(record, answers), f"{record.label}{record.verdict}".encode()]
        for better, worse in strict_pairs(record):
            left, right = sorted((answers[better], answers[worse]))
            self._add_side(prompt + left + right, side=answers[better] == left)
        if record.label is not None:
            self._add_side(prompt + answers[0], side=record.label)
        self._records.append(_number(b"".join(whole)))

    def _add_side(self, key: bytes, *, side: bool) -> None:
        """A comparison; its lowest bit says which way it went."""
        self._pairs.append(_number(key) & ~1 | side)
        self._pair_records.append(len(self._records))

    def duplicates(self) -> Indices:
        """`[duplicates, 2]`: the first record that says something, and each later one that says it again."""
        digests = np.array(self._records, np.uint64)
        order = np.argsort(digests, kind="stable")
        later = order[np.flatnonzero(digests[order][1:] == digests[order][:-1]) + 1]
        unique, first = np.unique(digests, return_index=True)
        return _by_later(np.stack([first[np.searchsorted(unique, digests[later])], later], axis=1))

    def contradictions(self) -> Indices:
        """`[contradictions, 2]`: for each pair labelled both ways, the first record of either way."""
        records = np.array(self._pair_records, np.int64)
        unique, first = np.unique(np.array(self._pairs, np.uint64), return_index=True)
        both = np.flatnonzero(unique[1:] ^ unique[:-1] == 1)
        found = np.stack([records[first[both]], records[first[both + 1]]], axis=1)
        return _by_later(np.sort(found, axis=1))


def _by_later(found: Indices) -> Indices:
    return found[np.argsort(found[:, 1], kind="stable")]


def _number(key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


def _in_order(record: Record, answers: list[bytes]) -> Iterator[bytes]:
    """The answers' digests group by group: the order of columns and of tied answers does not matter."""
    for group in record.ranking or [list(range(len(answers)))]:
        yield from sorted(answers[index] for index in group)
        yield b"|"


def strict_pairs(record: Record) -> Iterator[tuple[int, int]]:
    """Every strictly ordered pair of completions, as (better, worse)."""
    for better, worse in combinations(record.ranking or [], 2):
        for left in better:
            for right in worse:
                yield left, right
