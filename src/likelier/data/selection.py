"""What a stage needs of a row: which of its completions, and what order between them."""

from __future__ import annotations

from typing import Literal

from likelier.data.faults import RowError
from likelier.data.records import Record
from likelier.data.tally import Tally

Need = Literal["pairs", "ranking", "scores", "best", "examples", "completions"]
"""`"pairs"`: answers in strict order, two by two; `"ranking"`: one order of all; `"scores"`: a number each;
`"best"`: the preferred answers alone; `"examples"`: all, of rows that prefer none (both SFT); `"completions"`: all,
whatever is known of them (scoring)."""

Ties = Literal["drop", "half"]
"""Tied answers: left out and counted, or each way round with half the weight."""

TIE = "tie left out"
BOTH_BAD = "both bad left out"
UNWANTED = "unwanted answer left out"


def ranking_of(record: Record) -> list[list[int]] | None:
    """The row's order, best group first; from its scores where it has no ranking; None where it has neither.

    >>> from likelier.data.records import Completion
    >>> answers = [Completion(content=c) for c in "abc"]
    >>> ranking_of(Record(file="f", row=1, id="1", prompt="p", completions=answers, scores=[1.0, 3.0, 1.0]))
    [[1], [0, 2]]
    """
    if record.ranking is not None or record.scores is None:
        return record.ranking
    groups: dict[float, list[int]] = {}
    for index, score in enumerate(record.scores):
        groups.setdefault(score, []).append(index)
    return [groups[score] for score in sorted(groups, reverse=True)]


def select(record: Record, need: Need, ties: Ties, tally: Tally) -> list[int]:
    """The completions that a stage needs of a row, in the row's order; none where the row is left out.

    Raises `RowError` for a row that says nothing a stage of this kind could use.
    """
    everything = list(range(len(record.completions)))
    if need == "completions":
        return everything
    if need in ("best", "examples"):
        return _imitated(record, need, tally)
    if need == "scores":
        if record.scores is None:
            raise RowError("scores", "no scores", "no `scores`: this loss needs a number for each answer")
        return everything
    return _ordered(record, need, ties, tally)


def _imitated(record: Record, need: Need, tally: Tally) -> list[int]:
    """The answers to imitate: of preferences the best alone, and these only where they are asked for."""
    if record.label is False:
        tally.note(UNWANTED, record)
        return []
    ranking, several = ranking_of(record), len(record.completions) > 1
    if need == "examples":
        if several and ranking is not None:
            told = (
                "a preference between answers, not one to imitate: --on chosen trains on the preferred answer"
            )
            raise RowError(None, "preference", told)
        return list(range(len(record.completions)))
    if record.verdict is not None:
        tally.note(BOTH_BAD if record.verdict == "both_bad" else TIE, record)
        return []
    if several and ranking is None:
        told = (
            "several answers, and nothing says which is preferred: label them first, or leave out --on chosen"
        )
        raise RowError("completions", "unranked", told)
    return sorted(ranking[0]) if ranking else [0]


def _ordered(record: Record, need: Need, ties: Ties, tally: Tally) -> list[int]:
    ranking = ranking_of(record)
    if record.label is not None or ranking is None or sum(map(len, ranking)) < 2:
        raise RowError(None, "unpaired", "one answer without a rival: this stage needs preferences")
    halved = need == "pairs" and ties == "half"
    if len(ranking) > 1 or halved:
        return sorted(index for group in ranking for index in group)
    tally.note(BOTH_BAD if record.verdict == "both_bad" else TIE, record)
    return []
