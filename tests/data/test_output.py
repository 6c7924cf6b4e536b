"""Files that appear whole or not at all, and places that are no files."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from likelier.data.output import JsonLines
from likelier.errors import WorkError

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")


def test_a_file_appears_when_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with JsonLines(path) as file:
        file.write({"text": "\ud800é"})
        assert not path.exists()
    assert path.read_text() == '{"text": "\\ud800\\u00e9"}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_work_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), JsonLines(path) as file:
        file.write(1 / 0)
    assert (path.read_text(), list(tmp_path.iterdir())) == ("before", [path])


@needs_pipes
def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(path.read_text()), daemon=True)
    reader.start()
    with JsonLines(path) as file:
        file.write(7)
    reader.join(timeout=10)
    assert (read, path.is_fifo()) == (["7\n"], True)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "a.jsonl", tmp_path / "link"
    path.write_text("before")
    link.symlink_to(path)
    with JsonLines(link) as file:
        file.write(7)
    assert (path.read_text(), link.is_symlink()) == ("7\n", True)


def test_a_full_disk_is_a_named_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    path = tmp_path / "a.jsonl"
    with pytest.raises(WorkError, match=r"cannot write .*a\.jsonl: No space left"), JsonLines(path) as file:
        file.write(7)
    assert not list(tmp_path.iterdir())
