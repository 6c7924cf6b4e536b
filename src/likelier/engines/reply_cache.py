"""Answers on disk, of judges and of policies, found by content: what has been asked is never asked again.

One SQLite file, committed after every answer, so that SIGKILL costs what is under way and nothing else. A row whose
checksum is wrong counts as absent; a file that is none of ours is moved aside.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from likelier.data.canonical import digest
from likelier.errors import UsageError, WorkError

JUDGED, ANSWERED = "judged-1.sqlite", "answered-1.sqlite"
"""Files for what judges said, and for what policies answered. The number is that of the table's layout."""
_TABLE = (
    "CREATE TABLE IF NOT EXISTS replies (key BLOB PRIMARY KEY, checksum BLOB NOT NULL, reply TEXT NOT NULL)"
)


def reply_key(identity: str, question: str) -> bytes:
    """The key of an answer: all that it depends on.

    >>> reply_key("m", "q") == reply_key("m", "q"), reply_key("m", "q") == reply_key("n", "q")
    (True, False)
    """
    return digest([identity, question], size=32)


class ReplyCache:
    """Answers by key; several processes may use one folder at once.

    Args:
        folder: made if missing.
        report: is told, in one line, when a damaged file was moved aside.
        file: its name in the folder.

    Raises:
        UsageError: the folder cannot be made or written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, ReplyCache(Path(folder), report=print) as cache:
    ...     cache.put(b"key", {"text": "Verdict: A"})
    ...     cache.get(b"key"), cache.get(b"unknown")
    ({'text': 'Verdict: A'}, None)
    """

    def __init__(self, folder: Path, *, report: Callable[[str], None], file: str = JUDGED) -> None:
        self.path = folder / file
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"cannot make the cache folder {folder} ({error.strerror}); set LIKELIER_CACHE"
            ) from None
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise self._explained(error) from error
            aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
            self.path.rename(aside)
            report(
                f"the cache {self.path} was damaged ({error}); what it held is asked anew; {aside.name} may be deleted"
            )
            self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=60.0, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(_TABLE)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, key: bytes) -> dict[str, Any] | None:
        """The answer under `key`; None where there is none, or a damaged one."""
        with self._named_errors():
            found = self._connection.execute(
                "SELECT checksum, reply FROM replies WHERE key = ?", (key,)
            ).fetchone()
        if found is None or found[0] != _checksum(key, str(found[1])):
            return None
        reply: dict[str, Any] = json.loads(found[1])
        return reply

    def put(self, key: bytes, reply: dict[str, Any]) -> None:
        """Keeps an answer; it is on disk when this returns."""
        text = json.dumps(reply)
        with self._named_errors():
            self._connection.execute(
                "INSERT OR REPLACE INTO replies (key, checksum, reply) VALUES (?, ?, ?)",
                (key, _checksum(key, text), text),
            )

    @contextlib.contextmanager
    def _named_errors(self) -> Any:
        try:
            yield
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def _explained(self, error: sqlite3.Error) -> WorkError:
        return WorkError(
            f"the cache {self.path} failed ({error}): free space, stop what holds it, or set LIKELIER_CACHE to "
            "another folder"
        )


def _checksum(key: bytes, reply: str) -> bytes:
    return hashlib.blake2b(key + reply.encode("utf-8"), digest_size=16).digest()
