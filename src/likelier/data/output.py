"""Rows written as JSON Lines, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from likelier.errors import UsageError
from likelier.manifest import WholeFile


class JsonLines:
    """A file of one JSON value a line, which appears, whole and synced, when its `with` block ends well.

    Raises:
        WorkError: the folder or the disk does not take the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = WholeFile(path)

    def __enter__(self) -> Self:
        self._file.__enter__()
        return self

    def write(self, value: Any) -> None:
        """Writes one line, in ASCII, so that half a surrogate pair can be; what JSON lacks becomes text."""
        self._file.write(json.dumps(value, default=repr) + "\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, trace)


def check_out(out: Path | None, data: Sequence[str]) -> None:
    """Finds a place that cannot be written before the work begins; rows that were given are never replaced.

    Args:
        out: the file to come, or None.
        data: names of what is read.

    Raises:
        UsageError: the place is the data itself, a folder, or below a file.
    """
    if out is None:
        return
    # A share may stand behind a name: `a.jsonl=0.3`.
    names = [*data, *(name.rpartition("=")[0] for name in data)]
    if out.exists() and any(Path(name).exists() and out.samefile(name) for name in names if name):
        raise UsageError(f"--out {out} is the data itself; write to another file")
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder; name a file in it")
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"--out {out}: {above} is a file, not a folder; choose another place")
