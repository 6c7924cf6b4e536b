"""Answers that say the same."""

from __future__ import annotations

import pytest

from likelier.stats.duplicates import Duplicates, duplicates

TEN = "one two three four five six seven eight nine ten"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], Duplicates(0, 0)),
        (["a"], Duplicates(0, 0)),
        (["a", "a", "a"], Duplicates(2, 0)),
        (["a", "b", "c"], Duplicates(0, 0)),
        (["Hello, world!", "hello  world", "HELLO WORLD?"], Duplicates(0, 2)),
        (["a", "A", "a"], Duplicates(1, 1)),
        (["A", "a", "a"], Duplicates(1, 1)),
        (["", ""], Duplicates(1, 0)),
        (["", "!"], Duplicates(0, 1)),
        (["", "a"], Duplicates(0, 0)),
        (["Ünïcode ist schön", "ünïcode IST schön."], Duplicates(0, 1)),
    ],
)
def test_repetitions_are_counted_once_each(texts: list[str], expected: Duplicates) -> None:
    assert duplicates(texts) == expected


def test_overlap_of_nine_words_in_ten_is_near() -> None:
    """2 · 9 / 20 = 0.9 counts; 2 · 8 / 20 = 0.8 does not."""
    assert duplicates([TEN, TEN.replace("ten", "eleven")]) == Duplicates(0, 1)
    assert duplicates([TEN, TEN.replace("nine ten", "nein zehn")]) == Duplicates(0, 0)
    assert duplicates([TEN, " ".join(TEN.split()[::-1])]) == Duplicates(0, 1)
