"""Pairs before a judge, and what follows from its two answers: pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean
from typing import Literal

from likelier.data.labelled import bare
from likelier.data.records import Record
from likelier.engines.judges import Said, odds_gap
from likelier.engines.protocol import Failure
from likelier.engines.rubric import Verdict, parse_verdict

UNPARSABLE = "no verdict in the answer"
CUT = "cut at --judge-max-tokens"


@dataclass(frozen=True, slots=True)
class Case:
    """A pair before the judge."""

    record: Record
    """Its two answers, without labels."""
    prompt: int
    """Which of the records it comes from, by its place in their order."""
    label: int | None
    """The better one by the label that the row carried: 0 or 1; None for a tie, or without a label."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A pair and what was said of it, with its first answer shown first and then with its second."""

    case: Case
    replies: tuple[Said | Failure, Said | Failure]
    sides: tuple[Verdict | None, Verdict | None]
    """Who is better as shown: A is what was shown first. None where that cannot be told."""
    winner: Literal[0, 1] | None = None
    """None is a tie, or no label at all."""

    @property
    def labelled(self) -> bool:
        """Whether both orders have a verdict."""
        return None not in self.sides


def case_of(record: Record, pair: tuple[int, int], *, prompt: int) -> Case:
    """The question which of two of a record's answers is better, and what the record itself says of that.

    >>> from likelier.data.reading import read
    >>> record = next(read([{"prompt": "Hi", "a": "x", "b": "y", "winner": "b"}]))
    >>> case_of(record, (0, 1), prompt=0).label, case_of(record, (1, 0), prompt=0).label
    (0, 1)
    """
    made = replace(bare(record), completions=[record.completions[index] for index in pair])
    if len(record.completions) > 2:
        made = replace(made, id=f"{record.id}:{pair[0] + 1}-{pair[1] + 1}")
    return Case(made, prompt, _known_label(record, pair))


def labelled_cases(records: Sequence[Record]) -> list[Case]:
    """Every two different answers of which a record says that one is better: a judge's test."""
    cases = [
        case_of(record, pair, prompt=number)
        for number, record in enumerate(records)
        for pair in combinations(range(len(record.completions)), 2)
        if record.completions[pair[0]].content != record.completions[pair[1]].content
    ]
    return [case for case in cases if case.label is not None]


def _known_label(record: Record, pair: tuple[int, int]) -> int | None:
    """Which of the two the row's own ranking prefers."""
    rank = {index: place for place, group in enumerate(record.ranking or []) for index in group}
    first, second = (rank.get(index) for index in pair)
    if first is None or second is None or first == second:
        return None
    return 0 if first < second else 1


def decided(case: Case, replies: tuple[Said | Failure, Said | Failure], *, min_gap: float = 0.0) -> Judged:
    """What follows from both answers: the same winner twice wins; by log-odds, the sign of their mean.

    Args:
        case: the pair.
        replies: with its first answer shown first, and with its second.
        min_gap: by log-odds, what the mean of P(A) − P(B) must reach to be no tie.
    """
    forward, backward = replies
    sides = (_side(forward), _side(backward))
    one = Judged(case, replies, sides)
    if not one.labelled:
        return one
    if _by_odds(one):
        gap = mean_gap(one)
        return one if abs(gap) < min_gap or gap == 0 else replace(one, winner=0 if gap > 0 else 1)
    if sides == ("A", "B"):
        return replace(one, winner=0)
    return replace(one, winner=1) if sides == ("B", "A") else one


def _side(reply: Said | Failure) -> Verdict | None:
    if isinstance(reply, Failure):
        return None
    if reply.logps is None:
        # Who knows how `Verdict: A` would have gone on.
        return None if reply.finish == "length" else parse_verdict(reply.text)
    first, second = reply.logps
    return "tie" if first == second else ("A" if first > second else "B")


def _by_odds(one: Judged) -> bool:
    return all(isinstance(reply, Said) and reply.logps is not None for reply in one.replies)


def mean_gap(one: Judged) -> float:
    """`P(first answer) − P(second answer)` by log-odds, averaged over both orders."""
    forward, backward = (
        odds_gap(reply.logps) for reply in one.replies if isinstance(reply, Said) and reply.logps
    )
    return fmean((forward, -backward))


def why_not(one: Judged) -> str:
    """The reason that counts: a failure before an answer that cannot be read, since it may be mended."""
    reasons = [reply.reason for reply in one.replies if isinstance(reply, Failure)]
    unread = [reply for reply, side in zip(one.replies, one.sides, strict=True) if side is None]
    cut = any(isinstance(reply, Said) and reply.finish == "length" for reply in unread)
    return reasons[0] if reasons else CUT if cut else UNPARSABLE


def counted_reasons(judged: Sequence[Judged]) -> str:
    """Why there are no verdicts, the commonest reason first."""
    reasons = Counter(why_not(one) for one in judged if not one.labelled)
    return ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common())
