"""Rows written as JSON Lines, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

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
