"""Files written beside their place and renamed into it, so that none is ever found half written.

What is there and no plain file (a pipe, `/dev/null`) is written to as it is: a rename would put a file in the
place of the device.
"""

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

    def __enter__(self) -> Self:
        with self._named_errors():
            # A link stays a link: what it points to is replaced.
            target = self.path.resolve()
            self._special = target.exists() and not (target.is_file() or target.is_dir())
            beside = target.with_name(f".{target.name}.{os.getpid()}")
            self._target, self._beside = target, target if self._special else beside
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
                self._close(whole=kind is None)
        finally:
            if not self._special:
                with contextlib.suppress(OSError):
                    self._beside.unlink(missing_ok=True)

    def _close(self, *, whole: bool) -> None:
        with self._file:
            self._file.flush()
            if whole and not self._special:
                os.fsync(self._file.fileno())
        if whole and not self._special:
            self._beside.replace(self._target)

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WorkError(f"cannot write {self.path}: {error.strerror or error}") from None
