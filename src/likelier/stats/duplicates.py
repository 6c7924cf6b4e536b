"""Answers of one prompt that say the same: preferences between them teach nothing, and many of them a warning."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

NEAR = 0.9
"""Two answers are near duplicates from this overlap of their words on."""


@dataclass(frozen=True, slots=True)
class Duplicates:
    """How many answers of a prompt repeat an earlier one of it."""

    exact: int
    """Equal texts."""
    near: int
    """Equal but for case, white space and punctuation, or with `NEAR` of their words in common."""


def duplicates(texts: Sequence[str]) -> Duplicates:
    """Counts the answers that repeat an earlier one; an exact repetition is no near one.

    The overlap of two answers is `2 Σ min(count) / Σ count` over their words, whatever their order.

    >>> duplicates(["Yes, it is.", "yes it is", "Yes, it is.", "No."])
    Duplicates(exact=1, near=1)
    """
    words = [Counter(re.findall(r"\w+", text.casefold())) for text in texts]
    repeats: dict[int, bool] = {}
    for earlier, later in combinations(range(len(texts)), 2):
        if texts[earlier] == texts[later]:
            repeats[later] = True
        elif not repeats.get(later, False) and _overlap(words[earlier], words[later]) >= NEAR:
            repeats[later] = False
    exact = sum(repeats.values())
    return Duplicates(exact, len(repeats) - exact)


def _overlap(a: Counter[str], b: Counter[str]) -> float:
    total = a.total() + b.total()
    return 2 * (a & b).total() / total if total else 1.0
