"""What follows from the events: who was shown what, which answers stand, what is still wanted.

`State.apply` is the one place where an event has an effect. A server that was killed reads its events and is
where it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from likelier.labelling.events import Event, Role
from likelier.labelling.items import Item


@dataclass(slots=True, kw_only=True)
class Showing:
    """An item as one annotator sees it, and what they made of it."""

    id: str
    item: str
    annotator: str
    role: Role
    order: list[int]
    """Which answer of the item stands where, from the left."""
    shown: str
    """The time."""
    version: int = 0
    """One more with every answer and every undo: what a page that knows less has missed."""
    answer: Event | None = None
    reopened: int = 0
    """The undo that opened it again, by number."""
    flags: list[Event] = field(default_factory=list)


class State:
    """All that the events say about `items`.

    >>> state = State([], overlap=1)
    >>> state.wanting
    {}
    """

    def __init__(self, items: Iterable[Item], *, overlap: int, events: Iterable[Event] = ()) -> None:
        self.items = {item.id: item for item in items}
        self.overlap = overlap
        self.showings: dict[str, Showing] = {}
        self.of_annotator: defaultdict[str, dict[str, Showing]] = defaultdict(dict)
        """By name, the showings of `role` label by item."""
        self.repeats: defaultdict[str, dict[str, Showing]] = defaultdict(dict)
        self.adjudications: defaultdict[str, dict[str, Showing]] = defaultdict(dict)
        """By item, then by name."""
        self.labels: defaultdict[str, dict[str, Event]] = defaultdict(dict)
        """By item, then by name: the answers that stand, skips apart; repeats and adjudications are not here."""
        self.answers: defaultdict[str, dict[int, Event]] = defaultdict(dict)
        """By name, the answers that stand, by number, in the order in which they were given."""
        self.open: defaultdict[str, dict[str, Showing]] = defaultdict(dict)
        """By name, the showings without an answer, adjudications apart."""
        self.wanting: dict[str, None] = dict.fromkeys(self.items)
        """Items that have fewer labels than `overlap`, in the order of the file unless labels were taken back."""
        self.events: list[Event] = []
        self.by_key: dict[str, Event] = {}
        for event in events:
            self.apply(event)

    def apply(self, event: Event) -> None:
        """The effect of one event."""
        self.events.append(event)
        if event.key is not None:
            self.by_key[event.key] = event
        if event.kind == "shown":
            self._shown(event)
        elif event.kind == "answer":
            self._answered(self.showings[event.showing], event)
        elif event.kind == "undo":
            self._undone(self.showings[event.showing], event)
        else:
            self.showings[event.showing].flags.append(event)

    def _shown(self, event: Event) -> None:
        body = event.body
        showing = Showing(
            id=event.showing,
            item=body["item"],
            annotator=event.annotator,
            role=body["role"],
            order=body["order"],
            shown=event.time,
        )
        self.showings[showing.id] = showing
        if showing.role != "adjudication":
            self.open[showing.annotator][showing.id] = showing
        if showing.role == "label":
            self.of_annotator[showing.annotator][showing.item] = showing
        elif showing.role == "repeat":
            self.repeats[showing.annotator][showing.item] = showing
        else:
            self.adjudications[showing.item][showing.annotator] = showing

    def _answered(self, showing: Showing, event: Event) -> None:
        if showing.answer is not None:  # a decision that is made anew
            self.answers[showing.annotator].pop(showing.answer.seq, None)
        showing.answer = event
        showing.version += 1
        self.open[showing.annotator].pop(showing.id, None)
        self.answers[showing.annotator][event.seq] = event
        if showing.role == "label" and event.body["verdict"] != "skip":
            self.labels[showing.item][showing.annotator] = event
            self._update_wanting(showing.item)

    def _undone(self, showing: Showing, event: Event) -> None:
        showing.answer = None
        showing.version += 1
        showing.reopened = event.seq
        self.answers[showing.annotator].pop(event.body["event"], None)
        if showing.role != "adjudication":
            self.open[showing.annotator][showing.id] = showing
        if showing.role == "label":
            self.labels[showing.item].pop(showing.annotator, None)
            self._update_wanting(showing.item)

    def _update_wanting(self, item: str) -> None:
        if item in self.items and len(self.labels[item]) < self.overlap:
            self.wanting[item] = None
        else:
            self.wanting.pop(item, None)

    def event(self, seq: int) -> Event | None:
        """The event of this number; they are numbered from 1."""
        return self.events[seq - 1] if 0 < seq <= len(self.events) else None

    def annotators(self) -> list[str]:
        """All names that events carry, in order of appearance."""
        return list(dict.fromkeys(event.annotator for event in self.events))

    def item_showings(self, item: str) -> list[Showing]:
        """The showings of an item for labelling, one per annotator."""
        return [mine[item] for mine in self.of_annotator.values() if item in mine]

    def decision(self, item: str) -> Event | None:
        """What an adjudicator made of an item, the latest word; None where nobody has."""
        said = [showing.answer for showing in self.adjudications[item].values() if showing.answer is not None]
        decided = [event for event in said if event.body["verdict"] != "skip"]
        return max(decided, key=lambda event: event.seq, default=None)
