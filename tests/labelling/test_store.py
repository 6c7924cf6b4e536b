"""The file: events that stay, one owner, damage, and a disk that is full for a while."""

from __future__ import annotations

import sqlite3
import stat
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from likelier.errors import DataError, WorkError
from likelier.labelling.items import Item
from likelier.labelling.store import Store
from tests.labelling.desks import answer, given, label_all, open_desk, pairs


def test_items_come_back_as_they_were(tmp_path: Path) -> None:
    items = pairs(3)
    store = Store(tmp_path / "s")
    store.set_items(items)
    assert rows(store.items()) == rows(items)
    store.set_items(items[1:])
    assert rows(store.items()) == rows(items[1:])
    assert rows(store.retired().values()) == rows(items[:1])


def rows(items: Iterable[Item]) -> list[tuple[str, dict[str, Any]]]:
    return [(item.id, item.row()) for item in items]


def test_events_are_never_changed_nor_deleted(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "s", pairs(2))
    list(label_all(desk, "ann"))
    desk.store.close()
    connection = sqlite3.connect(tmp_path / "s")
    for statement in ("UPDATE events SET annotator = 'eve'", "DELETE FROM events"):
        with pytest.raises(sqlite3.IntegrityError, match="events stay"):
            connection.execute(statement)
    connection.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    with pytest.raises(DataError, match="open in another labelling server"):
        Store(tmp_path / "s")
    store.close()
    Store(tmp_path / "s").close()


@pytest.mark.parametrize("content", [b"no store at all" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_what_is_no_store_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(DataError, match="no store of labels, or is damaged"):
        Store(tmp_path / "s")
    assert (tmp_path / "s").read_bytes() == content


def test_another_version_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    store.close()
    connection = sqlite3.connect(tmp_path / "s")
    connection.execute("UPDATE about SET value = '99'")
    connection.commit()
    connection.close()
    with pytest.raises(DataError, match="another version"):
        Store(tmp_path / "s")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="another place"):
        Store(tmp_path / "nowhere" / "s")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights")
def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    Store(tmp_path / "s").close()
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600


def test_a_full_disk_says_so_and_loses_nothing(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "s", pairs(200), repeat_share=0.0)
    connection = desk.store._connection
    turn = desk.next("ann", "a")
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count={pages}")
    reply = given(turn, reason="x" * 20_000)
    with pytest.raises(WorkError, match="free space"):
        desk.answer("ann", "a", "first", reply)
    with pytest.raises(WorkError, match="free space"):
        desk.next("ann", "a")
    connection.execute("PRAGMA max_page_count=100000")
    after = desk.answer("ann", "a", "first", reply)  # the page sends it again, under the same key
    answer(desk, "ann", "a", given(after))
    events = desk.state.events
    desk.store.close()
    assert open_desk(tmp_path / "s").state.events == events
    assert [event.kind for event in events] == ["shown", "answer", "shown", "answer", "shown"]


def test_many_threads_share_a_write(tmp_path: Path) -> None:
    """Answers that wait for the disk go there together, and each is there when its thread goes on."""
    desk = open_desk(tmp_path / "s", pairs(40), overlap=8, repeat_share=0.0)
    writes: list[int] = []
    write = desk.store._write

    def counted(batch: list[object]) -> None:
        writes.append(len(batch))
        write(batch)  # type: ignore[arg-type]

    desk.store._write = counted  # type: ignore[method-assign, assignment]
    people = [
        threading.Thread(target=lambda name=f"p{n}": list(label_all(desk, name, tab=name))) for n in range(8)
    ]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert sum(writes) == len(desk.state.events) == 2 * 8 * 40
    assert max(writes) > 2
    events = desk.state.events
    desk.store.close()
    assert open_desk(tmp_path / "s").state.events == events
