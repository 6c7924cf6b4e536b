"""Majorities, two answers at a time: every verdict, cycles, and what is no majority."""

from __future__ import annotations

from typing import Any

import pytest

from likelier.labelling.votes import CYCLE, NO_MAJORITY, majority, pair_votes, unanimous

FIRST = {"verdict": "preference", "ranking": [[0], [1]]}
SECOND = {"verdict": "preference", "ranking": [[1], [0]]}
TIE = {"verdict": "tie", "ranking": [[0, 1]]}
BAD = {"verdict": "both_bad", "ranking": [[0, 1]]}
SKIP = {"verdict": "skip", "ranking": []}


def order(*groups: list[int]) -> dict[str, Any]:
    return {"verdict": "preference", "ranking": list(groups)}


@pytest.mark.parametrize("body", [FIRST, SECOND, TIE, BAD])
def test_one_label_stands_for_itself(body: dict[str, Any]) -> None:
    assert majority([body]) == body


@pytest.mark.parametrize(
    ("bodies", "expected"),
    [
        ([FIRST, FIRST, SECOND], FIRST),
        ([SECOND, FIRST, SECOND], SECOND),
        ([TIE, FIRST, TIE], TIE),
        ([BAD, BAD, FIRST], BAD),
        ([FIRST, SECOND], NO_MAJORITY),
        ([FIRST, TIE], NO_MAJORITY),
        ([TIE, BAD], NO_MAJORITY),
        ([FIRST, SECOND, TIE], NO_MAJORITY),
        ([FIRST, FIRST, SECOND, TIE], NO_MAJORITY),  # a half is no majority
        ([order([0], [1], [2]), order([1], [2], [0]), order([2], [0], [1])], CYCLE),
        ([order([0], [1], [2]), order([0], [1], [2]), order([2], [1], [0])], order([0], [1], [2])),
        ([order([0], [1, 2]), order([0], [2, 1]), order([0], [1], [2])], order([0], [1, 2])),
        ([order([0], [1], [2]), order([1], [0], [2]), order([0, 1], [2])], NO_MAJORITY),
    ],
)
def test_more_than_half_decide(bodies: list[dict[str, Any]], expected: Any) -> None:
    assert majority(bodies) == expected


def test_a_skip_says_nothing() -> None:
    assert pair_votes(SKIP) == {}


def test_unanimous() -> None:
    assert unanimous([FIRST, FIRST])
    assert not unanimous([FIRST, SECOND])
    assert not unanimous([TIE, BAD])
    assert unanimous([])
