"""Preferences and better answers from the state: a function of what was said, so that it can be done again.

Rows come in the order of the items. Whatever yields no row is counted by its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

from likelier.data.canonical import canonical_row
from likelier.data.records import Completion, Record
from likelier.labelling.events import Event
from likelier.labelling.items import Item
from likelier.labelling.state import State
from likelier.labelling.votes import majority, unanimous

Ties = Literal["keep", "drop"]
Disagreements = Literal["majority", "drop", "all"]

RETIRED = "labelled, but no longer among the items"
UNLABELLED = "not labelled"
SKIPPED = "skipped by all who saw it"
DISAGREEMENT = "labels differ"
TIE = "a tie"
BOTH_BAD = "all answers bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What the labels make."""

    preferences: list[dict[str, Any]]
    better_answers: list[dict[str, Any]]
    """Rows for SFT: answers that annotators wrote."""
    left_out: Counter[str]
    """Items (labels, where all of them are exported) by the reason why they make no preference."""
    incomplete: int
    """Items that make a preference with fewer labels than were asked for."""


@dataclass(frozen=True, slots=True)
class _Said:
    """A verdict on an item and the answers that it rests on."""

    body: dict[str, Any]
    labels: Sequence[Event]
    adjudicated: bool = False


def export(state: State, *, ties: Ties, disagreements: Disagreements) -> Exported:
    """The rows that the labels make under a policy.

    Args:
        state: all that was said.
        ties: whether "tie" and "both bad" become rows, which pair losses count and leave out.
        disagreements: `majority` takes what more than half say of every two answers, `drop` only what all say,
            `all` makes a row of every label. An adjudicator's word goes before all of them.
    """
    preferences, incomplete = [], 0
    retired = sum(bool(said) and item not in state.items for item, said in state.labels.items())
    left_out = Counter({RETIRED: retired} if retired else {})
    for item in state.items.values():
        told = 0
        for said in _verdicts(state, item, disagreements):
            if isinstance(said, str):
                left_out[said] += 1
            elif ties == "drop" and said.body["verdict"] != "preference":
                left_out[BOTH_BAD if said.body["verdict"] == "both_bad" else TIE] += 1
            else:
                preferences.append(_preference(state, item, said))
                told += not said.adjudicated
        incomplete += bool(told) and len(state.labels[item.id]) < state.overlap
    return Exported(
        preferences=preferences,
        better_answers=[row for item in state.items.values() for row in _better_answers(state, item)],
        left_out=left_out,
        incomplete=incomplete,
    )


def _verdicts(state: State, item: Item, disagreements: Disagreements) -> Iterator[_Said | str]:
    """What counts as said of an item, or the reason why nothing does."""
    decision = state.decision(item.id)
    labels = sorted(state.labels[item.id].values(), key=lambda event: event.annotator)
    if decision is not None:
        yield _Said(decision.body, [decision], adjudicated=True)
    elif not labels:
        skips = [showing.answer for showing in state.item_showings(item.id) if showing.answer is not None]
        yield SKIPPED if skips else UNLABELLED
    elif disagreements == "all":
        yield from (_Said(label.body, [label]) for label in labels)
    elif disagreements == "drop" and not unanimous([label.body for label in labels]):
        yield DISAGREEMENT
    else:
        found = majority([label.body for label in labels])
        yield found if isinstance(found, str) else _Said(found, labels)


def _preference(state: State, item: Item, said: _Said) -> dict[str, Any]:
    row = canonical_row(_labelled(item.record, said.body["verdict"], said.body["ranking"]))
    agreeing = [label for label in said.labels if _says(label.body, said.body)] or said.labels
    strengths = [label.body["strength"] for label in agreeing if "strength" in label.body]
    flags = [flag for showing in state.item_showings(item.id) for flag in showing.flags]
    optional = {
        "strength": fmean(strengths) if strengths else None,
        "flags": [flag.body["reason"] for flag in flags] or None,
        "adjudicated": said.adjudicated or None,
    }
    names = ", ".join(label.annotator for label in said.labels)
    return {
        **row,
        "labeller": f"human {names}",
        "time": max(label.time for label in said.labels),
        "reason": "; ".join(label.body["reason"] for label in agreeing if "reason" in label.body),
        "labels": len(said.labels),
        "agreeing": len(agreeing),
        **{name: value for name, value in optional.items() if value is not None},
    }


def _says(label: dict[str, Any], verdict: dict[str, Any]) -> bool:
    return (label["verdict"], label["ranking"]) == (verdict["verdict"], verdict["ranking"])


def _labelled(record: Record, verdict: str, ranking: list[list[int]]) -> Record:
    """The record in this order: of two answers, the better comes first."""
    if verdict == "preference" and len(record.completions) == 2:
        better, worse = ranking[0][0], ranking[1][0]
        ordered = [record.completions[better], record.completions[worse]]
        return replace(record, completions=ordered, ranking=[[0], [1]])
    stands_as = verdict if len(record.completions) == 2 and verdict != "preference" else None
    return replace(record, ranking=ranking, verdict=stands_as)


def _better_answers(state: State, item: Item) -> Iterator[dict[str, Any]]:
    """What was written in, once per text, by whoever labelled, saw the item again, or decided."""
    said = [
        mine[item.id] for mine in (*state.of_annotator.values(), *state.repeats.values()) if item.id in mine
    ]
    said += state.adjudications[item.id].values()
    written: set[str] = set()
    for showing in sorted(said, key=lambda showing: (showing.annotator, showing.role)):
        text = "" if showing.answer is None else showing.answer.body.get("edit", "")
        if not text or text in written or showing.answer is None:
            continue
        written.add(text)
        yield {
            **canonical_row(_written_answer(item.record, text)),
            "labeller": f"human {showing.annotator}",
            "time": showing.answer.time,
            "reason": showing.answer.body.get("reason", ""),
        }


def _written_answer(record: Record, text: str) -> Record:
    content = text if isinstance(record.prompt, str) else [{"role": "assistant", "content": text}]
    return replace(record, completions=[Completion(content=content)], ranking=[[0]])
