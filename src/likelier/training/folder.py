"""The run folder: one writer, nothing half written, metrics that end where the last checkpoint does.

config.yaml      every setting, resolved
metrics.jsonl    a line per step, and per evaluation
checkpoints/     step-N/, and best-N/
model/           the result, a Hugging Face folder
manifest.json    written last: inputs by content, versions, device, command, results
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml

from likelier.config import read_yaml
from likelier.errors import UsageError, WorkError
from likelier.manifest import as_json, write_whole
from likelier.models.folders import work_error

_MADE = (
    *("config.yaml", "manifest.json", "metrics.jsonl", "samples.jsonl", "examples.txt"),
    *("checkpoints", "model", "tensorboard", "wandb"),
)
"""All that a run leaves in its folder."""


class RunFolder:
    """A run folder that this process alone writes.

    Args:
        path: made if missing; one with files in it needs `resume` or `overwrite`.

    Raises:
        UsageError: the folder holds something, or another process writes it.
        WorkError: it cannot be written.
    """

    def __init__(self, path: Path, *, resume: bool, overwrite: bool) -> None:
        self.path = path
        if path.exists() and not path.is_dir():
            raise UsageError(f"--out {path} is a file; choose a folder")
        if path.is_dir() and _holds_something(path):
            if not (resume or overwrite):
                raise UsageError(f"{path} exists already; --resume goes on with it, --overwrite starts anew")
            if not _is_run(path):
                flag = "--overwrite deletes" if overwrite else "--resume goes on with"
                raise UsageError(f"{path} is no run folder, and {flag} runs alone; choose another --out")
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()
            if overwrite:
                self._clear()
            self.checkpoints.mkdir(exist_ok=True)
            self._clear_leavings()
        except OSError as error:
            raise work_error(error, path) or error from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints lie."""
        return self.path / "checkpoints"

    @property
    def finished(self) -> dict[str, Any] | None:
        """The manifest of a finished run, or None."""
        path = self.path / "manifest.json"
        if not path.exists():
            return None
        manifest = _parsed(path.read_text(encoding="utf-8", errors="replace"))
        if manifest is None:
            raise UsageError(f"{path} is damaged; delete it, and --resume goes on from the last checkpoint")
        return manifest

    def write_config(self, values: Mapping[str, Any]) -> None:
        """Every setting, resolved."""
        text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
        write_whole(self.path / "config.yaml", text)

    @property
    def config(self) -> dict[str, Any]:
        """The settings as they were resolved when the run began; empty before that."""
        path = self.path / "config.yaml"
        return read_yaml(path) if path.exists() else {}

    def write(self, name: str, text: str) -> None:
        """A file of the run, whole or not at all."""
        write_whole(self.path / name, text)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """An object as a file of the run, whole or not at all."""
        write_whole(self.path / name, as_json(value, indent=2) + "\n")

    def log(self, line: Mapping[str, Any], *, file: str = "metrics.jsonl") -> None:
        """Append a line; numbers that are not finite are written as null, which JSON has."""
        try:
            with (self.path / file).open("a", encoding="utf-8") as out:
                out.write(as_json(line) + "\n")
        except OSError as error:
            raise work_error(error, self.path / file) or error from None

    def sync(self) -> None:
        """Bring the metrics to the disk: a checkpoint is never ahead of them."""
        for name in ("metrics.jsonl", "samples.jsonl"):
            path = self.path / name
            if path.exists():
                with path.open("rb+") as file:
                    os.fsync(file.fileno())

    def cut_after(self, step: int) -> list[dict[str, Any]]:
        """Drop metric and sample lines after `step` (all of them for -1), and return the metrics that stay."""
        kept: dict[str, list[dict[str, Any]]] = {}
        for name in ("metrics.jsonl", "samples.jsonl"):
            path = self.path / name
            if not path.exists():
                continue
            kept[name] = [line for line in self.lines(name) if line["step"] <= step]
            write_whole(path, "".join(as_json(line) + "\n" for line in kept[name]))
        return kept.get("metrics.jsonl", [])

    def lines(self, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
        """The lines of a file that are whole: a killed process may have left half a one."""
        return whole_lines(self.path / name)

    def _take_lock(self) -> sqlite3.Connection:
        # A lock of SQLite is the operating system's: it ends with the process, however that ends, everywhere.
        lock = None
        try:
            lock = sqlite3.connect(self.path / ".lock", timeout=0, isolation_level=None)
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            if lock is not None:
                lock.close()
            if not isinstance(error, sqlite3.OperationalError):
                raise UsageError(f"{self.path / '.lock'} is damaged ({error}); delete it") from None
            if "locked" in str(error):
                raise UsageError(
                    f"another process is writing {self.path}; wait for it or choose another --out"
                ) from None
            raise WorkError(f"{self.path} cannot be written ({error}); choose another --out") from None
        return lock

    def _clear_leavings(self) -> None:
        """What a killed process was writing, or was about to delete."""
        for folder in (self.path, self.checkpoints):
            for left in [*folder.glob(".*.new"), *folder.glob(".*.old")]:
                shutil.rmtree(left, ignore_errors=True)
        for left in self.path.glob(".*.partial"):
            left.unlink(missing_ok=True)

    def _clear(self) -> None:
        """What a run makes; a note that somebody put beside it stays."""
        for name in _MADE:
            entry = self.path / name
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """The lines with a step of a file that a run has written, or is writing; none where it is not there.

    Raises:
        WorkError: it cannot be read.
    """
    try:
        # Not `splitlines`: an answer may hold U+2028, which JSON leaves as it is.
        texts = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
    except OSError as error:
        raise work_error(error, path) or error from None
    parsed = [line for line in map(_parsed, texts) if line is not None]
    return [line for line in parsed if isinstance(line.get("step"), int)]


def _is_run(path: Path) -> bool:
    # A copy may have left the lock behind.
    written = (path / "config.yaml").exists() or (path / "metrics.jsonl").exists()
    return (path / ".lock").exists() or (written and (path / "checkpoints").is_dir())


def _holds_something(path: Path) -> bool:
    """Whether anything lies there but what opening a run folder makes: a start that failed is no run."""
    return any(
        not entry.name.startswith(".lock") and not (entry.name == "checkpoints" and not any(entry.iterdir()))
        for entry in path.iterdir()
    )


def _parsed(text: str) -> dict[str, Any] | None:
    """A line of metrics; None for one that a killed process left unfinished."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
