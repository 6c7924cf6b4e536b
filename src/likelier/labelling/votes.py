"""What labels say about each two answers of an item, and what their majority says about all of them.

A pair is a ranking of two, so one rule serves both: two answers at a time, more than half of the labels decide,
and what is decided must be an order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from typing import Any, Literal

Vote = Literal["first", "second", "tie", "both_bad"]
"""Of two answers, in the order of the file."""

NO_MAJORITY = "no majority"
CYCLE = "a majority that goes in a circle"


def pair_votes(body: dict[str, Any]) -> dict[tuple[int, int], Vote]:
    """What one answer says of each two, by their indices.

    >>> pair_votes({"verdict": "preference", "ranking": [[2], [0, 1]]})
    {(0, 1): 'tie', (0, 2): 'second', (1, 2): 'second'}
    """
    if body["verdict"] == "skip":
        return {}
    rank_of = {index: rank for rank, group in enumerate(body["ranking"]) for index in group}
    equal: Vote = "both_bad" if body["verdict"] == "both_bad" else "tie"
    return {
        (left, right): _vote(rank_of[left], rank_of[right], equal)
        for left, right in combinations(sorted(rank_of), 2)
    }


def _vote(left: int, right: int, equal: Vote) -> Vote:
    if left == right:
        return equal
    return "first" if left < right else "second"


def votes_by_pair(bodies: Iterable[dict[str, Any]]) -> dict[tuple[int, int], list[Vote]]:
    """All that was said of each two answers of one item."""
    found: dict[tuple[int, int], list[Vote]] = {}
    for body in bodies:
        for pair, vote in pair_votes(body).items():
            found.setdefault(pair, []).append(vote)
    return found


def majority(bodies: list[dict[str, Any]]) -> dict[str, Any] | str:
    """The verdict and ranking that more than half of the labels support two by two, or why there is none.

    >>> majority([{"verdict": "preference", "ranking": [[0], [1]]}, {"verdict": "tie", "ranking": [[0, 1]]}])
    'no majority'
    >>> majority([{"verdict": "preference", "ranking": [[0], [1]]}])
    {'verdict': 'preference', 'ranking': [[0], [1]]}
    """
    decided: dict[tuple[int, int], Vote] = {}
    for pair, votes in votes_by_pair(bodies).items():
        vote, count = Counter(votes).most_common(1)[0]
        if 2 * count <= len(votes):
            return NO_MAJORITY
        decided[pair] = vote
    if set(decided.values()) == {"both_bad"}:
        return {"verdict": "both_bad", "ranking": [sorted({index for pair in decided for index in pair})]}
    return _as_ranking(decided)


def _as_ranking(decided: dict[tuple[int, int], Vote]) -> dict[str, Any] | str:
    """The order in which each answer stands above those that it beats, if the decisions are one."""
    beaten: Counter[int] = Counter({index: 0 for pair in decided for index in pair})
    for (left, right), vote in decided.items():
        beaten.update({"first": [left], "second": [right]}.get(vote, []))
    levels = sorted(set(beaten.values()), reverse=True)
    ranking = [sorted(index for index, wins in beaten.items() if wins == level) for level in levels]
    implied = pair_votes({"verdict": "preference", "ranking": ranking})
    plain = {pair: "tie" if vote == "both_bad" else vote for pair, vote in decided.items()}
    if implied != plain:
        return CYCLE
    return {"verdict": "tie" if len(ranking) == 1 else "preference", "ranking": ranking}


def unanimous(bodies: list[dict[str, Any]]) -> bool:
    """Whether all labels say the same of every two answers."""
    return all(len(set(votes)) == 1 for votes in votes_by_pair(bodies).values())
