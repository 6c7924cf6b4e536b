"""Which answers of a prompt are compared, and what scores say of two of them: pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Literal

from scipy import special

from likelier.data.records import Completion, Record
from likelier.engines.verdicts import Case, case_of

Pair = tuple[int, int]
"""Two answers of one prompt, the lower index first."""

EQUAL = "equal scores"
CLOSE = "closer than --min-gap"
SAME = "the same answer twice"


def pairs_of(count: int, design: Literal["all", "ring", "adjacent"]) -> list[Pair]:
    """The pairs to ask about among `count` answers: all, each with the next round a ring, or along a line.

    A ring asks about every answer twice, at `count` comparisons in place of `count (count − 1) / 2`; a line leaves
    its ends with one comparison.

    >>> len(pairs_of(5, "all")), pairs_of(4, "ring"), pairs_of(4, "adjacent")
    (10, [(0, 1), (1, 2), (2, 3), (0, 3)], [(0, 1), (1, 2), (2, 3)])
    >>> pairs_of(2, "ring"), pairs_of(1, "ring")
    ([(0, 1)], [])
    """
    if design == "all":
        return list(combinations(range(count), 2))
    line = list(pairwise(range(count)))
    return [*line, (0, count - 1)] if design == "ring" and count > 2 else line


def cases_of(
    records: Sequence[Record], design: Literal["all", "ring", "adjacent"]
) -> tuple[list[Case], Counter[str]]:
    """The pairs to ask about; a row that holds one pair is judged as it is."""
    cases: list[Case] = []
    left_out: Counter[str] = Counter()
    for number, record in enumerate(records):
        for first, second in pairs_of(len(record.completions), design):
            if record.completions[first].content == record.completions[second].content:
                left_out[SAME] += 1
            else:
                cases.append(case_of(record, (first, second), prompt=number))
    return cases, left_out


def pairs_by_score(scores: Sequence[float], choice: Literal["all", "adjacent", "best-worst"]) -> list[Pair]:
    """The pairs that scores choose: all, neighbours in the order of scores, or the first best and the last worst.

    >>> pairs_by_score([1.0, 3.0, 2.0], "adjacent"), pairs_by_score([1.0, 3.0, 2.0], "best-worst")
    ([(1, 2), (0, 2)], [(0, 1)])
    """
    if choice == "all":
        return list(combinations(range(len(scores)), 2))
    if len(scores) < 2:
        return []
    order = sorted(range(len(scores)), key=lambda index: -scores[index])  # stable: equal scores stay in order
    chosen = list(pairwise(order)) if choice == "adjacent" else [(order[0], order[-1])]
    return [(min(pair), max(pair)) for pair in chosen]


def unfit(
    scores: Sequence[float], answers: Sequence[Completion], pair: Pair, min_gap: float, *, drawn: bool
) -> str | None:
    """Why a pair makes no preference, or None. Drawn labels decide between equal scores too.

    >>> answers = [Completion(content=text) for text in "abcc"]
    >>> [unfit([1.0, 1.0, 1.5, 1.5], answers, pair, 1.0, drawn=False) for pair in ((0, 1), (0, 2), (2, 3))]
    ['equal scores', 'closer than --min-gap', 'the same answer twice']
    """
    first, second = pair
    if answers[first].content == answers[second].content:
        return SAME
    gap = abs(scores[first] - scores[second])
    if gap == 0 and not drawn:
        return EQUAL
    # 0.3 − 0.2 is a hair below 0.1 in floating point, and not meant to be.
    return CLOSE if gap < min_gap and not math.isclose(gap, min_gap) else None


def win_probability(first: float, second: float, temperature: float) -> float:
    """Bradley–Terry, math.md (1): `σ((r_first − r_second) / T)`.

    >>> win_probability(2.0, 2.0, 1.0), round(win_probability(1.0, 0.0, 0.5), 4)
    (0.5, 0.8808)
    """
    return float(special.expit((first - second) / temperature))
