"""Files that are whole or absent, and the manifest beside each: what it was made from, how, and with what.

A stage's output is written beside its place and renamed into it; its manifest comes last, so a file with a
manifest is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from likelier.errors import UsageError, WorkError

_PACKAGES = ("likelier", "torch", "transformers", "tokenizers", "numpy")


def file_hash(path: Path) -> str:
    """The SHA-256 of a file's content, as `sha256:…`."""
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


class WholeFile:
    """A text file that appears, whole and synced, when its `with` block ends well.

    What is there and no plain file (a pipe, `/dev/null`) is written to as it is: a rename would put a file in the
    place of the device. A link stays a link: what it points to is replaced.

    Raises:
        WorkError: the folder or the disk does not take the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        with self._named_errors():
            self._target = self.path.resolve()
            self._special = self._target.exists() and not (self._target.is_file() or self._target.is_dir())
            beside = self._target.with_name(f".{self._target.name}.{os.getpid()}.partial")
            self._beside = self._target if self._special else beside
            self._file = self._beside.open("w", encoding="utf-8", newline="\n")
        return self

    def write(self, text: str) -> None:
        """Writes `text` as it is."""
        with self._named_errors():
            self._file.write(text)

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
            remedy = "free space or choose another place"
            raise WorkError(f"cannot write {self.path}: {error.strerror or error}; {remedy}") from None


def write_whole(path: Path, text: str) -> None:
    """Writes `text` as a `WholeFile`, its folder made where it is missing."""
    # What hinders it is named by the file that cannot be written there.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    with WholeFile(path) as file:
        file.write(text)


def as_json(values: Mapping[str, Any], *, indent: int | None = None) -> str:
    """JSON, on one line unless indented; numbers that are not finite, which JSON lacks, are null.

    >>> as_json({"loss": float("nan"), "eval/before": {"eval/loss": float("inf")}, "steps": 3})
    '{"loss": null, "eval/before": {"eval/loss": null}, "steps": 3}'
    """
    return json.dumps(_finite(values), ensure_ascii=False, indent=indent)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def manifest_path(output: Path) -> Path:
    """Where the manifest of a file lies.

    >>> manifest_path(Path("runs/samples.jsonl")).name
    'samples.manifest.json'
    """
    return output.with_name(f"{output.stem}.manifest.json")


def write_manifest(
    output: Path, *, stage: str, config: Mapping[str, Any], inputs: Mapping[str, Path], **more: Any
) -> None:
    """Writes the manifest of `output`: its hash, its inputs' hashes, the configuration, the versions."""
    manifest = {
        "stage": stage,
        "output": {"file": output.name, "hash": file_hash(output)},
        "inputs": {name: {"file": str(path), "hash": file_hash(path)} for name, path in inputs.items()},
        "config": dict(config),
        "versions": versions(),
        "command": sys.argv,
        **more,
    }
    write_whole(manifest_path(output), json.dumps(manifest, indent=2, ensure_ascii=False, default=str) + "\n")


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that make the numbers."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        found[package] = metadata.version(package)
    return found
