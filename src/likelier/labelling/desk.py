"""What an annotator's page asks of the server, safely from many threads: the next item, an answer, undo, a flag.

Every change is decided under one lock, then waited for until it is on the disk; only then is the page told, and
given its next item.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any

from likelier.labelling.assignment import (
    Leases,
    Plan,
    choose,
    last_answer,
    order_of,
    showing_id,
    unseen,
)
from likelier.labelling.events import Event, Kind, Role, now
from likelier.labelling.state import Showing, State
from likelier.labelling.store import Store
from likelier.labelling.turns import MAX_NAME, Given, Progress, RefusalError, Turn, clean_name

ANSWERED = "This item was answered in another tab or window. Nothing was changed; here is your next one."
RETIRED = "That item is no longer part of this labelling."
TAKEN_BACK = "That answer was taken back already, in another tab or window."


class Desk:
    """The state, its store, and the open pages."""

    def __init__(
        self, store: Store, state: State, plan: Plan, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.store = store
        self.state = state
        self.plan = plan
        self.lock = threading.RLock()
        self._clock = clock
        self._leases = Leases()
        self._tabs: defaultdict[str, list[int]] = defaultdict(list)
        """The answers that each tab gave."""
        self._names = {name.casefold(): name for name in (*plan.annotators, *state.annotators())}

    def name(self, given: str) -> str:
        """An annotator's name in its one spelling.

        Raises:
            RefusalError: no name, or not one of those who may label.
        """
        cleaned = clean_name(given)
        if cleaned is None:
            raise RefusalError(400, f"Give a name of 1 to {MAX_NAME} printable characters.")
        allowed = self.plan.annotators
        if allowed and cleaned.casefold() not in {name.casefold() for name in allowed}:
            raise RefusalError(403, f"{cleaned} is not among the annotators of this labelling.")
        with self.lock:
            return self._names.setdefault(cleaned.casefold(), cleaned)

    def next(self, annotator: str, tab: str) -> Turn:
        """The item that the tab is to show."""
        with self.lock:
            turn = self._turn(annotator, tab)
        return self._saved(turn)

    def adjudicate(self, annotator: str, tab: str, item: str) -> Turn:
        """An item to be decided, whoever labelled it."""
        with self.lock:
            if item not in self.state.items:
                raise RefusalError(404, "There is no such item.")
            showing = self.state.adjudications[item].get(annotator) or self._show(
                annotator, item, "adjudication"
            )
            self._leases.take(showing.id, tab, self._clock())
            previous = None if showing.answer is None else showing.answer.body
            turn = self._turn_with(annotator, tab, showing, previous=previous)
        return self._saved(turn)

    def answer(self, annotator: str, tab: str, key: str, given: Given) -> Turn:
        """Keeps an answer, and then gives the next item."""
        with self.lock:
            if not self._happened(key, "answer", annotator, given.showing):
                showing = self._own(annotator, given.showing)
                self._require_current(showing, given.version)
                event = self._add("answer", annotator, showing.id, key, self._body(showing, given))
                self._tabs[tab].append(event.seq)
                self._leases.release(showing.id)
            turn = self._turn(annotator, tab, after=self.state.showings[given.showing])
        return self._saved(turn)

    def undo(self, annotator: str, tab: str, key: str, seq: int) -> Turn:
        """Takes an answer of the annotator's own back; its item is shown again."""
        with self.lock:
            event = self.state.event(seq)
            if event is None or event.kind != "answer" or event.annotator != annotator:
                raise RefusalError(404, "There is no such answer of yours.")
            showing = self.state.showings[event.showing]
            if showing.item not in self.state.items:
                raise RefusalError(409, RETIRED)
            if not self._happened(key, "undo", annotator, showing.id):
                if showing.answer is not event:
                    raise RefusalError(409, TAKEN_BACK)
                self._add("undo", annotator, showing.id, key, {"event": seq})
            self._leases.take(showing.id, tab, self._clock())
            turn = self._turn_with(annotator, tab, showing, previous=event.body)
        return self._saved(turn)

    def flag(self, annotator: str, key: str, showing: str, reason: str) -> None:
        """Notes that something is wrong with an item, for whoever reads the results."""
        with self.lock:
            if not self._happened(key, "flag", annotator, showing):
                self._own(annotator, showing)
                self._add("flag", annotator, showing, key, {"reason": reason})
            last = len(self.state.events)
        self.store.wait(last)

    def leave(self, tab: str, showing: str) -> None:
        """The tab has the item before it no more; it may come to another at once."""
        with self.lock:
            if self._leases.holder(showing, self._clock()) == tab:
                self._leases.release(showing)

    def _saved(self, turn: tuple[Turn, int]) -> Turn:
        self.store.wait(turn[1])
        return turn[0]

    def _own(self, annotator: str, showing: str) -> Showing:
        found = self.state.showings.get(showing)
        if found is None or found.annotator != annotator:
            raise RefusalError(404, "There is no such item of yours.")
        return found

    def _require_current(self, showing: Showing, version: int) -> None:
        """A decision may be made anew; an answer is changed by taking it back first."""
        stale = version != showing.version
        if stale or (showing.answer is not None and showing.role != "adjudication"):
            raise RefusalError(409, ANSWERED)

    def _happened(self, key: str, kind: Kind, annotator: str, showing: str) -> bool:
        """Whether this very request came before."""
        earlier = self.state.by_key.get(key)
        if earlier is None:
            return False
        if (earlier.kind, earlier.annotator, earlier.showing) != (kind, annotator, showing):
            raise RefusalError(409, "This request's key was used for another.")
        return True

    def _body(self, showing: Showing, given: Given) -> dict[str, Any]:
        """The answer in terms of the item's answers; raises `RefusalError` where it does not fit them."""
        places = sorted(place for group in given.ranking for place in group)
        wanted = [] if given.verdict == "skip" else list(range(len(showing.order)))
        tied = len(given.ranking) == 1
        if places != wanted or not all(given.ranking) or tied != (given.verdict in ("tie", "both_bad")):
            raise RefusalError(400, "The ranking does not name each answer once.")
        if given.strength is not None and not (self.plan.strength and given.verdict == "preference"):
            raise RefusalError(400, "Only a preference has a strength, where it is asked for.")
        ranking = [sorted(showing.order[place] for place in group) for group in given.ranking]
        since = self._leases.since(showing.id)
        seconds = None if since is None else round(self._clock() - since, 1)
        optional = {
            "strength": given.strength,
            "reason": given.reason.strip(),
            "edit": given.edit if given.edit.strip() else "",
            "seconds": seconds,
        }
        named = {name: value for name, value in optional.items() if value not in (None, "")}
        return {"verdict": given.verdict, "ranking": ranking, **named}

    def _turn(self, annotator: str, tab: str, *, after: Showing | None = None) -> tuple[Turn, int]:
        """After a decision there is no next item: an adjudicator chooses on the results page."""
        found = None
        if after is None or after.role != "adjudication":
            time = self._clock()
            found = choose(self.state, self.plan, self._leases, annotator=annotator, tab=tab, time=time)
        if found is None or isinstance(found, Showing):
            showing = found
        else:
            showing = self._show(annotator, found.item, found.role)
        if showing is not None:
            self._leases.take(showing.id, tab, self._clock())
        previous = self._taken_back(showing) if showing is not None else None
        return self._turn_with(annotator, tab, showing, previous=previous)

    def _taken_back(self, showing: Showing) -> dict[str, Any] | None:
        undo = self.state.event(showing.reopened)
        undone = None if undo is None else self.state.event(undo.body["event"])
        return None if undone is None else undone.body

    def _turn_with(
        self, annotator: str, tab: str, showing: Showing | None, *, previous: dict[str, Any] | None
    ) -> tuple[Turn, int]:
        progress = self._progress(annotator)
        turn = Turn(
            showing=showing,
            waiting=showing is None and progress.left > 0,
            progress=progress,
            undo=self._undoable(annotator, tab),
            previous=previous,
        )
        return turn, len(self.state.events)

    def _progress(self, annotator: str) -> Progress:
        standing = self.state.answers[annotator].values()
        showings = self.state.showings
        answers = [event for event in standing if showings[event.showing].role != "adjudication"]
        timed = [event.body["seconds"] for event in answers if "seconds" in event.body]
        return Progress(
            done=len(answers),
            left=unseen(self.state, annotator),
            seconds=median(timed[-20:]) if timed else None,
        )

    def _undoable(self, annotator: str, tab: str) -> int | None:
        """The tab's own last answer that stands, else the annotator's."""
        standing = self.state.answers[annotator]
        for seq in reversed(self._tabs[tab]):
            if seq in standing:
                return seq
        last = last_answer(self.state, annotator)
        return None if last is None else last.seq

    def _show(self, annotator: str, item: str, role: Role) -> Showing:
        count = self.state.items[item].count
        order = order_of(item, count, annotator=annotator, seed=self.plan.seed, role=role)
        name = showing_id(item, annotator, role)
        self._add("shown", annotator, name, None, {"item": item, "role": role, "order": order})
        return self.state.showings[name]

    def _add(self, kind: Kind, annotator: str, showing: str, key: str | None, body: dict[str, Any]) -> Event:
        event = Event(
            seq=len(self.state.events) + 1,
            time=now(),
            kind=kind,
            annotator=annotator,
            showing=showing,
            key=key,
            body=body,
        )
        self.state.apply(event)
        self.store.add(event)
        return event
