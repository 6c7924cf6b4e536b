"""Work that may be killed at any moment: each finished part is on the disk before the next begins.

Parts lie in `NAME.partial` beside the file that they will make, one JSON object a line, appended and synced; the first
line says what is being made. Half a line at the end is what a killed process leaves, and is cut off.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from likelier.errors import DataError, UsageError, WorkError
from likelier.manifest import as_json


def partial_path(out: Path) -> Path:
    """Where the parts of a file lie.

    >>> partial_path(Path("runs/samples.jsonl")).name
    'samples.jsonl.partial'
    """
    return out.with_name(f"{out.name}.partial")


class Unfinished:
    """The parts of `out` so far, and a place for more; one process at a time.

    Args:
        out: the file that they will make.
        identity: everything that decides what the parts are; parts of another identity are refused.
        resume: go on with the parts that are there; else they are deleted.

    Raises:
        UsageError: the parts are those of other work, or another process is at it.
        DataError: a damaged line that is not the last.
        WorkError: the folder or the disk does not take them.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any], *, resume: bool) -> None:
        self.path = partial_path(out)
        self._identity = json.loads(as_json(identity))
        self._resume = resume
        self.parts: dict[int, dict[str, Any]] = {}
        """By index, as they were added."""

    def __enter__(self) -> Self:
        with _named(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.path)
            try:
                self._open()
            except BaseException:
                self._lock.close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._lock.close()
        with contextlib.suppress(OSError):
            _lock_path(self.path).unlink()

    def add(self, index: int, part: Mapping[str, Any]) -> None:
        """Keeps a part: on the disk when this returns."""
        self.parts[index] = dict(part)
        self._append({"index": index, **part})

    def delete(self) -> None:
        """Deletes the parts, once the file is there."""
        with _named(self.path):
            self.path.unlink(missing_ok=True)

    def _open(self) -> None:
        good = self._read() if self._resume and self.path.exists() else 0
        self.path.touch()
        self._file = self.path.open("rb+")
        self._file.truncate(good)
        self._file.seek(good)
        if not good:
            self._append({"making": self._identity})

    def _append(self, line: Mapping[str, Any]) -> None:
        with _named(self.path):
            self._file.write((json.dumps(line) + "\n").encode("ascii"))
            self._file.flush()
            os.fsync(self._file.fileno())

    def _read(self) -> int:
        """Reads the parts; returns how many bytes hold whole lines."""
        raw = self.path.read_bytes()
        good = raw.rfind(b"\n") + 1
        lines = raw[:good].splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                value = json.loads(line)
                if number == 1:
                    self._require_same(value["making"])
                else:
                    self.parts[int(value.pop("index"))] = value
            except (ValueError, KeyError, TypeError, AttributeError):
                remedy = "delete that line, or begin anew with --overwrite"
                raise DataError(f"{self.path}, line {number} is damaged: {remedy}") from None
        return good

    def _require_same(self, before: Mapping[str, Any]) -> None:
        different = [
            key for key in {**before, **self._identity} if before.get(key) != self._identity.get(key)
        ]
        if different:
            key = different[0]
            told = f"`{key}` was {_short(before.get(key))} and is {_short(self._identity.get(key))}"
            raise UsageError(
                f"{self.path} was begun with other settings ({told}): go on with the same, or begin anew with "
                "--overwrite"
            )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _lock_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _locked(path: Path) -> sqlite3.Connection:
    """A lock of the operating system's through SQLite: it ends with the process, however that ends, everywhere."""
    lock = sqlite3.connect(_lock_path(path), timeout=0, isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        lock.close()
        if "locked" in str(error):
            raise UsageError(f"another process is writing {path}: wait for it, or stop it") from None
        raise UsageError(f"{_lock_path(path)} is damaged ({error}): delete it") from None
    return lock


@contextlib.contextmanager
def _named(path: Path) -> Any:
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WorkError(f"cannot write {path}: {reason}; free space or choose another place") from None
