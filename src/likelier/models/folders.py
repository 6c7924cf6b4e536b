"""Folders that exist whole or not at all: written beside, synced, renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from likelier.errors import WorkError


@contextlib.contextmanager
def written_folder(folder: Path, *, keep_existing: bool = False) -> Iterator[Path]:
    """A new folder beside `folder` to write into, which takes its place when the block ends without an error.

    Args:
        folder: where it shall stand.
        keep_existing: leave a folder that stands there by then, where both hold the same by construction.

    Raises:
        WorkError: the disk is full, or the place cannot be written; an older folder is as it was.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "model"
    >>> with written_folder(place) as beside:
    ...     _ = (beside / "a.txt").write_text("a")
    >>> [file.name for file in place.parent.iterdir()], (place / "a.txt").read_text()
    (['model'], 'a')
    """
    beside = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.new"
    try:
        try:
            beside.mkdir(parents=True)
            yield beside
            _sync(beside)
            _take_place(beside, folder, keep_existing=keep_existing)
        except Exception as error:
            raise work_error(error, folder) or error from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def work_error(error: Exception, folder: Path) -> WorkError | None:
    """What a failed write means to the user, or None where it is no failure of the disk."""
    number = error.errno if isinstance(error, OSError) else None
    # safetensors has its own error class, which carries the number in its text.
    text = str(error)
    if number in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in text or "No space left" in text:
        return WorkError(f"the disk is full: {folder} could not be written; free space there and run again")
    if (
        number in (errno.EACCES, errno.EPERM, errno.EROFS)
        or "Permission denied" in text
        or "os error 30" in text
    ):
        return WorkError(
            f"{folder} cannot be written: no permission; choose another folder or change its rights"
        )
    if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
        return WorkError(f"{folder} could not be written: {' '.join(text.split())}; choose another folder")
    return None


def _take_place(beside: Path, folder: Path, *, keep_existing: bool) -> None:
    """Rename; a folder in the way is moved aside first, since no system replaces one that is not empty."""
    if not folder.exists() or keep_existing:
        try:
            beside.rename(folder)
        except OSError:
            # Another process was first.
            if not (keep_existing and folder.is_dir()):
                raise
    else:
        old = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.old"
        folder.rename(old)
        try:
            beside.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    _sync_directory(folder.parent)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_dir():
            _sync_directory(path)
        else:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    _sync_directory(folder)


def _sync_directory(folder: Path) -> None:
    """A directory's entries are durable once it is synced; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
