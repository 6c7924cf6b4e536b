"""Items, a desk over a store in a folder, and answers for tests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from likelier.data.reading import read
from likelier.labelling.assignment import Plan
from likelier.labelling.desk import Desk
from likelier.labelling.items import Item, build_items
from likelier.labelling.state import State
from likelier.labelling.store import Store
from likelier.labelling.turns import Given, Turn

KEYS = (f"key-{number}" for number in itertools.count())


def pairs(count: int) -> list[Item]:
    rows = [
        {
            "id": f"row{number}",
            "prompt": f"Prompt {number}",
            "completions": [f"one {number}", f"two {number}"],
        }
        for number in range(count)
    ]
    return build_items(read(rows)).items


def open_desk(path: Path, items: list[Item] | None = None, *, clock: Any = None, **plan: Any) -> Desk:
    """A desk over the store at `path`, which is made of `items` where it is new."""
    store = Store(path)
    if items is not None:
        store.set_items(items)
    made = Plan(**plan)
    state = State(store.items(), overlap=made.overlap, events=store.events())
    return Desk(store, state, made, **({} if clock is None else {"clock": clock}))


def given(turn: Turn, ranking: list[list[int]] | None = None, *, verdict: Any = None, **more: Any) -> Given:
    """An answer to the turn's item in terms of places; by default the left one is better."""
    assert turn.showing is not None
    groups = [[0], [1]] if ranking is None else ranking
    verdict = verdict or ("preference" if len(groups) > 1 else "tie")
    return Given(
        showing=turn.showing.id,
        version=turn.showing.version,
        verdict=verdict,
        ranking=[] if verdict == "skip" else groups,
        **more,
    )


def choosing(turn: Turn, index: int, **more: Any) -> Given:
    """An answer that prefers the item's answer `index`, wherever it stands."""
    assert turn.showing is not None
    place = turn.showing.order.index(index)
    return given(turn, [[place], [1 - place]], **more)


def answer(desk: Desk, name: str, tab: str, reply: Given) -> Turn:
    return desk.answer(name, tab, next(KEYS), reply)


def label_all(desk: Desk, name: str, *, tab: str = "tab", index: int = 0) -> Iterator[str]:
    """Answers everything, preferring answer `index`; gives the items in the order in which they came."""
    turn = desk.next(name, tab)
    while turn.showing is not None:
        yield turn.showing.item
        turn = answer(desk, name, tab, choosing(turn, index))
