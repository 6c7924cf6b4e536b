"""Which item comes next for whom: pure functions of the state, but for the leases of open pages.

Items come in the order of the file, each until `overlap` people have labelled it. What a page shows is leased to
it for a while, so that neither another annotator nor the same one's second tab gets it at the same time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from likelier.labelling.events import Event, Role
from likelier.labelling.state import Showing, State

LEASE_SECONDS = 1800.0
REPEAT_GAP = 8
"""Own answers between an item and its second showing, as long as there are others to ask about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How labels are asked for."""

    overlap: int = 1
    """Annotators per item."""
    repeat_share: float = 0.05
    """Of an annotator's labelled items, shown again with sides swapped."""
    seed: int = 0
    """Of the order of answers, and of the choice of what is shown again."""
    strength: bool = False
    """Whether to ask how much better the better answer is."""
    annotators: tuple[str, ...] = ()
    """Those who may label; empty for anybody."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An item to show that has not been shown so yet."""

    item: str
    role: Role


@dataclass(slots=True)
class Lease:
    """Which tab has a showing before it, since when, and until when it keeps it."""

    tab: str
    since: float
    until: float


class Leases:
    """The open pages; only in memory, as a server started anew has none."""

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}

    def take(self, showing: str, tab: str, time: float) -> None:
        """The tab has it before it from now on."""
        kept = self._leases.get(showing)
        since = kept.since if kept and kept.tab == tab else time
        self._leases[showing] = Lease(tab, since, time + LEASE_SECONDS)

    def release(self, showing: str) -> None:
        """It is answered."""
        self._leases.pop(showing, None)

    def holder(self, showing: str, time: float) -> str | None:
        """The tab that has it, None once its time is up."""
        lease = self._leases.get(showing)
        return lease.tab if lease and lease.until > time else None

    def since(self, showing: str) -> float | None:
        """When it came before whoever has it."""
        lease = self._leases.get(showing)
        return lease.since if lease else None


def choose(
    state: State, plan: Plan, leases: Leases, *, annotator: str, tab: str, time: float
) -> Showing | Choice | None:
    """What the annotator's tab is to show next: a showing that is open, a new one, or None when there is nothing.

    A showing that was taken back comes first, then what the tab had before it, then a repeat that is due, then
    the next item that still wants labels, and at the very end the repeats that are left.
    """
    opened = _open(state, leases, annotator, tab, time)
    if opened is not None:
        return opened
    for item in repeats_due(state, plan, annotator, gap=REPEAT_GAP):
        return Choice(item, "repeat")
    for item in _wanted(state, leases, annotator, time):
        return Choice(item, "label")
    for item in repeats_due(state, plan, annotator, gap=1):
        return Choice(item, "repeat")
    return None


def _open(state: State, leases: Leases, annotator: str, tab: str, time: float) -> Showing | None:
    found = []
    for showing in state.open[annotator].values():
        holder = leases.holder(showing.id, time)
        free = holder is None and _still_wanted(state, showing)
        if showing.item in state.items and (holder == tab or free):
            found.append((showing.reopened, holder == tab, showing))
    return max(found, key=lambda entry: entry[:2], default=(0, False, None))[2]


def _still_wanted(state: State, showing: Showing) -> bool:
    """What was taken back is; of the rest, all that others have not done meanwhile."""
    return bool(showing.reopened) or showing.role != "label" or showing.item in state.wanting


def _wanted(state: State, leases: Leases, annotator: str, time: float) -> Iterator[str]:
    """Items that want more labels than open pages will give, and that this annotator has not seen."""
    seen = state.of_annotator[annotator]
    for item in state.wanting:
        if item not in seen:
            held = sum(
                showing.answer is None and leases.holder(showing.id, time) is not None
                for showing in state.item_showings(item)
            )
            if len(state.labels[item]) + held < state.overlap:
                yield item


def repeats_due(state: State, plan: Plan, annotator: str, *, gap: int) -> Iterator[str]:
    """Items that the annotator labelled `gap` or more answers ago and is to see again."""
    shown = state.repeats[annotator]
    standing = list(state.answers[annotator].values())
    for event in standing[: max(0, len(standing) - gap)]:
        showing = state.showings[event.showing]
        if (
            showing.role == "label"
            and event.body["verdict"] != "skip"
            and showing.item not in shown
            and showing.item in state.items
            and _share_of(showing.item, annotator, plan.seed) < plan.repeat_share
        ):
            yield showing.item


def unseen(state: State, annotator: str) -> int:
    """How many items want labels that this annotator has not seen or has before them."""
    seen = state.of_annotator[annotator]
    answered = sum(item in state.wanting and showing.answer is not None for item, showing in seen.items())
    return len(state.wanting) - answered


def order_of(item: str, count: int, *, annotator: str, seed: int, role: Role) -> list[int]:
    """In which order an item's answers stand, a draw by (item, annotator, seed); a repeat's is the other way round.

    >>> order_of("a", 2, annotator="ann", seed=0, role="label")
    [0, 1]
    >>> order_of("a", 2, annotator="ann", seed=0, role="repeat")
    [1, 0]
    """
    drawn = sorted(range(count), key=lambda index: _hash(seed, annotator, item, "order", index))
    return drawn[::-1] if role == "repeat" else drawn


def showing_id(item: str, annotator: str, role: Role) -> str:
    """The name of a showing; it says neither which row it is, nor whether it is shown for the second time."""
    return _hash(item, annotator, role)[:24]


def last_answer(state: State, annotator: str) -> Event | None:
    """The last of an annotator's answers that stands."""
    return next(reversed(state.answers[annotator].values()), None)


@lru_cache(maxsize=1 << 17)
def _share_of(item: str, annotator: str, seed: int) -> float:
    """A draw from [0, 1)."""
    return int(_hash(seed, annotator, item, "repeat")[:13], 16) / 16.0**13


def _hash(*parts: object) -> str:
    return hashlib.blake2b(
        "\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass"), digest_size=16
    ).hexdigest()
