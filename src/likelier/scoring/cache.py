"""Per-token log-probs on disk, found by content: the reference pass is paid once per model and branch.

One SQLite file (it survives SIGKILL and full disks, locks between processes, and is in Python itself) with a
rollback journal rather than a write-ahead log, since home folders on clusters lie on network file systems.
Every row carries a checksum over its key and values: a damaged row counts as absent and is dropped, a damaged
file is moved aside and a new one begun. Losing an entry costs a recomputation, never a wrong number.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

from likelier.errors import UsageError, WorkError
from likelier.models.sources import cache_folder
from likelier.scoring.cache_rows import Logps, Row, branch_key, pack_row, unpack_row

__all__ = ["LogpCache", "branch_key", "cache_folder"]

Result = TypeVar("Result")

_FILE_NAME = "logps-1.sqlite"
"""The number is that of the layout below: another layout is another file."""
_SCHEMA = """CREATE TABLE IF NOT EXISTS entries (
    key BLOB PRIMARY KEY, item_size INTEGER NOT NULL, length INTEGER NOT NULL,
    checksum BLOB NOT NULL, payload BLOB NOT NULL)"""
_SELECT = "SELECT key, item_size, length, checksum, payload FROM entries WHERE key IN ({})"
_UPSERT = "INSERT OR REPLACE INTO entries (key, item_size, length, checksum, payload) VALUES (?, ?, ?, ?, ?)"
_KEYS_PER_QUERY = 500
_MACHINE_FAULTS = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
)
_REMEDY = "set LIKELIER_CACHE to a folder that can be written"


class LogpCache:
    """A content-addressed store of per-token log-probs; several processes may use one folder at once.

    Args:
        folder: made if missing; `cache_folder()` is the usual one.
        report: is told, in one line, when a damaged file was moved aside; stderr unless given.

    Raises:
        UsageError: the folder cannot be made or written.

    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder, LogpCache(Path(folder)) as cache:
    ...     cache.put({b"key": np.array([-0.5, -1.25], np.float32)})
    ...     cache.get([b"key", b"unknown"])
    {b'key': array([-0.5 , -1.25], dtype=float32)}
    """

    def __init__(
        self, folder: Path | str, *, report: Callable[[str], None] | None = None, busy_seconds: float = 60.0
    ) -> None:
        self.path = Path(folder) / _FILE_NAME
        self.damaged = 0
        """Entries found damaged and dropped so far, a whole damaged file not counted."""
        self._report = report or _to_stderr
        self._busy_seconds = busy_seconds
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make the cache folder {folder} ({error.strerror}): {_REMEDY}") from None
        self._connection = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; everything put is already in it."""
        self._connection.close()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Logps]:
        """The entries found, each `[scored tokens]` as it was put; absent and damaged keys are left out.

        Raises:
            WorkError: another process holds the file for longer than the busy time, or reading fails.
        """
        unique = list(dict.fromkeys(keys))
        found: dict[bytes, Logps] = {}
        for start in range(0, len(unique), _KEYS_PER_QUERY):
            chunk = unique[start : start + _KEYS_PER_QUERY]
            found |= self._retry(lambda chunk=chunk: self._read(chunk))  # type: ignore[misc]
        return found

    def put(self, items: Mapping[bytes, Logps]) -> None:
        """Store entries `[scored tokens]`, float32 or float64, all or none; known keys are replaced.

        Raises:
            ValueError: an array of another dtype or shape.
            WorkError: the disk is full, or another process holds the file for longer than the busy time.
        """
        rows = [pack_row(key, values) for key, values in items.items()]
        if rows:
            self._retry(lambda: self._write(rows))

    def _read(self, keys: list[bytes]) -> dict[bytes, Logps]:
        rows = self._connection.execute(_SELECT.format(",".join("?" * len(keys))), keys).fetchall()
        entries = {row[0]: unpack_row(*row) for row in rows}
        damaged = [(row[0], row[3]) for row in rows if entries[row[0]] is None]
        if damaged:
            self.damaged += len(damaged)
            # The checksum keeps a row that another process has repaired meanwhile.
            with self._transaction() as connection:
                connection.executemany("DELETE FROM entries WHERE key = ? AND checksum IS ?", damaged)
        return {key: values for key, values in entries.items() if values is not None}

    def _write(self, rows: list[Row]) -> None:
        with self._transaction() as connection:
            connection.executemany(_UPSERT, rows)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Write lock first, so that two writers wait for each other instead of failing halfway."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _open(self) -> sqlite3.Connection:
        """A connection to a sound file; a file that is no cache of ours is moved aside."""
        for attempt in range(2):
            connection = None
            try:
                connection = sqlite3.connect(self.path, timeout=self._busy_seconds, isolation_level=None)
                # A column that damage has turned into text is judged by its bytes, like any other.
                connection.text_factory = bytes
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute(_SCHEMA)
                connection.execute(_SELECT.format("?"), (b"",)).fetchall()
                self._identity = _identity(self.path)
                return connection
            except sqlite3.Error as error:
                if connection is not None:
                    connection.close()
                if attempt or not self._is_damage(error):
                    raise self._explained(error) from error
                self._move_aside(error)
        raise AssertionError("unreachable")

    def _retry(self, work: Callable[[], Result]) -> Result:
        """`work()`, and once more on a new file if the old one proves damaged or was moved away under us."""
        try:
            return work()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.ProgrammingError):
                raise
            moved = _identity(self.path) != self._identity
            if not (moved or self._is_damage(error)):
                raise self._explained(error) from error
            self._connection.close()
            if not moved:
                self._move_aside(error)
            self._connection = self._open()
        try:
            return work()
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def _is_damage(self, error: sqlite3.Error) -> bool:
        """Whether the file is at fault: our SQL is right, so what is no fault of the machine's is damage."""
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_SHORT_READ:
            return True
        if _code(error) == sqlite3.SQLITE_READONLY:
            # One byte of the header declares a file read-only to this version of SQLite.
            return os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK)
        return _code(error) not in _MACHINE_FAULTS

    def _move_aside(self, error: sqlite3.Error) -> None:
        """Rename the damaged file, with its journal."""
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        try:
            # The journal first: a new file must never meet the old one's.
            for suffix in ("-journal", ""):
                with contextlib.suppress(FileNotFoundError):
                    self.path.with_name(self.path.name + suffix).rename(f"{aside}{suffix}")
        except OSError as refused:
            raise WorkError(
                f"the cache {self.path} is damaged ({error}) and cannot be moved aside ({refused.strerror}): "
                f"stop other likelier processes and delete it"
            ) from None
        self._report(
            f"the cache {self.path} was damaged ({error}); a new one is begun and reference "
            f"log-probs are computed again; {aside.name} may be deleted"
        )

    def _explained(self, error: sqlite3.Error) -> UsageError | WorkError:
        """What a person can do about an error of SQLite's that is not damage."""
        code = _code(error)
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            return UsageError(f"cannot write the cache {self.path} ({error}): {_REMEDY}")
        if code == sqlite3.SQLITE_FULL:
            return WorkError(
                f"no space left for the cache {self.path}: free some, or {_REMEDY} on another disk"
            )
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return WorkError(
                f"another process holds the cache {self.path} for more than {self._busy_seconds:g} s: "
                f"stop it, or {_REMEDY} of its own"
            )
        return WorkError(f"the cache {self.path} failed ({error}): {_REMEDY} on a local disk")


def _code(error: sqlite3.Error) -> int | None:
    """SQLite's primary result code; None for errors of the Python module's own."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file lies at `path` now, whatever its name was before."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _to_stderr(message: str) -> None:
    print(message, file=sys.stderr)
