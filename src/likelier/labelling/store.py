"""Items and events in one SQLite file: an answer is on the disk before anybody is told that it is saved.

Events that arrive while the disk is busy go there together, in one transaction: many annotators cost hardly more
than one. Should writing fail (a full disk), nobody has been told anything, and the next attempt writes them all.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from likelier.errors import DataError, WorkError
from likelier.labelling.events import Event
from likelier.labelling.items import Item, item_of

VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS items (id TEXT PRIMARY KEY, place INTEGER, row TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY, time TEXT NOT NULL, kind TEXT NOT NULL, annotator TEXT NOT NULL,
    showing TEXT NOT NULL, key TEXT UNIQUE, body TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS sessions (digest TEXT PRIMARY KEY, until REAL NOT NULL) STRICT;
CREATE TRIGGER IF NOT EXISTS events_stay BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events stay'); END;
CREATE TRIGGER IF NOT EXISTS events_last BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events stay'); END;
"""


class Store:
    """The file; one process at a time has it.

    Raises:
        DataError: a file that is no store, is damaged, of a later version, or in the hands of another process.
        WorkError: a place that cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending: list[Event] = []
        self._list = threading.Lock()
        self._disk = threading.Lock()
        try:
            # Prompts and answers may be private.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._connection = self._open()
            (self._written,) = self._connection.execute("SELECT ifnull(max(seq), 0) FROM events").fetchone()
        except sqlite3.DatabaseError as error:
            raise _unusable(path, error) from None
        except OSError as error:
            raise WorkError(
                f"cannot write {path}: {error.strerror}; choose another place for --out"
            ) from None

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, timeout=0.2)
        # Alone with the file, the log needs no shared memory, so that it may lie on a network's disk.
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(_SCHEMA)
        found = connection.execute("SELECT value FROM about WHERE name = 'version'").fetchone()
        if found is None:
            connection.execute("INSERT INTO about VALUES ('version', ?)", (str(VERSION),))
        elif found[0] != str(VERSION):
            raise DataError(
                f"{self.path} was written by another version of likelier: take that one, or another --out"
            )
        return connection

    def close(self) -> None:
        """Leaves one file behind, without a log beside it."""
        with self._disk:
            self._connection.close()

    def about(self, name: str) -> Any:
        """A value kept beside the events, None where there is none."""
        found = self._connection.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return None if found is None else json.loads(found[0])

    def set_about(self, name: str, value: Any) -> None:
        """Keeps a value beside the events."""
        with self._disk:
            self._connection.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, json.dumps(value)))

    def set_items(self, items: Iterable[Item]) -> None:
        """From now on these are asked about; earlier ones stay for the labels that they have."""
        rows = [(item.id, place, json.dumps(item.row())) for place, item in enumerate(items)]
        with self._disk:
            self._connection.execute("BEGIN IMMEDIATE")
            with self._connection:
                self._connection.execute("UPDATE items SET place = NULL")
                self._connection.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?)", rows)

    def items(self) -> list[Item]:
        """The items that are asked about, in their order."""
        found = self._connection.execute("SELECT row FROM items WHERE place IS NOT NULL ORDER BY place")
        return [item_of(json.loads(row)) for (row,) in found]

    def retired(self) -> dict[str, Item]:
        """The items that once were asked about."""
        found = self._connection.execute("SELECT id, row FROM items WHERE place IS NULL")
        return {name: item_of(json.loads(row)) for name, row in found}

    def events(self) -> list[Event]:
        """All events, as they happened."""
        columns = "seq, time, kind, annotator, showing, key, body"
        found = self._connection.execute(f"SELECT {columns} FROM events ORDER BY seq")
        return [
            Event(
                seq=seq, time=time, kind=kind, annotator=name, showing=showing, key=key, body=json.loads(body)
            )
            for seq, time, kind, name, showing, key, body in found
        ]

    def add(self, event: Event) -> None:
        """Takes an event to be written; `wait` says when it is. Numbers must rise."""
        with self._list:
            self._pending.append(event)

    def wait(self, seq: int) -> None:
        """Returns when the event of this number, and all before it, are on the disk.

        Raises:
            WorkError: the disk does not take them; they are tried again with the next.
        """
        with self._disk:
            if self._written >= seq:
                return
            with self._list:
                batch = list(self._pending)
            try:
                self._write(batch)
            except sqlite3.Error as error:
                raise WorkError(f"{self.path} cannot be written ({error}): free space on its disk") from None
            with self._list:
                del self._pending[: len(batch)]
            self._written = batch[-1].seq

    def _write(self, batch: list[Event]) -> None:
        rows = [(e.seq, e.time, e.kind, e.annotator, e.showing, e.key, e.payload()) for e in batch]
        self._connection.execute("BEGIN IMMEDIATE")
        with self._connection:
            self._connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def add_session(self, digest: str, until: float) -> None:
        """Keeps a session's digest, so that a server started anew still knows its browsers."""
        with self._disk:
            self._connection.execute("INSERT OR REPLACE INTO sessions VALUES (?, ?)", (digest, until))

    def sessions(self) -> dict[str, float]:
        """Until when each session is good, by digest."""
        return dict(self._connection.execute("SELECT digest, until FROM sessions").fetchall())


def _unusable(path: Path, error: sqlite3.DatabaseError) -> DataError:
    if "locked" in str(error):
        remedy = "stop it first (Ctrl-C in its terminal), or write the files from its results page"
        return DataError(f"{path} is open in another labelling server: {remedy}")
    return DataError(
        f"{path} is no store of labels, or is damaged ({error}): move it away, or choose another --out"
    )
