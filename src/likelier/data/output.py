"""Files written beside their place and renamed into it, so that none is ever found half written."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from likelier.errors import WorkError


class JsonLines:
    """A file of one JSON value a line, which appears, whole and synced, when its `with` block ends well.

    Raises:
        WorkError: the folder or the disk does not take the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._beside = path.with_name(f".{path.name}.{os.getpid()}")

    def __enter__(self) -> Self:
        with self._named_errors():
            self._file = self._beside.open("w", encoding="utf-8", newline="\n")
        return self

    def write(self, value: Any) -> None:
        """Writes one line, in ASCII, so that half a surrogate pair can be; what JSON lacks becomes text."""
        with self._named_errors():
            self._file.write(json.dumps(value, default=repr) + "\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._named_errors():
                if kind is None:
                    self._file.flush()
                    os.fsync(self._file.fileno())
                self._file.close()
                if kind is None:
                    self._beside.replace(self.path)
        finally:
            with contextlib.suppress(OSError):
                self._beside.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WorkError(f"cannot write {self.path}: {error.strerror or error}") from None
