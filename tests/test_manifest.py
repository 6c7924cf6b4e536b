"""Files that are whole or absent, also where a device, a pipe or a link stands: never replaced by a plain file."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from likelier.errors import WorkError
from likelier.manifest import WholeFile, file_hash, manifest_path, write_manifest, write_whole

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")


def test_a_folder_is_made_and_nothing_but_the_file_is_left(tmp_path: Path) -> None:
    write_whole(tmp_path / "new" / "a.txt", "é\n")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"\xc3\xa9\n"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


@needs_pipes
def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    path, read = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: read.append(path.read_text()), daemon=True)
    reader.start()
    write_whole(path, "text")
    reader.join(timeout=10)
    assert (read, path.is_fifo(), list(tmp_path.iterdir())) == (["text"], True, [path])


def test_a_link_stays_a_link_also_where_it_points_to_nothing_yet(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "a.txt")
    for text in ("one", "two"):
        write_whole(link, text)
        assert (link.is_symlink(), (tmp_path / "a.txt").read_text()) == (True, text)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_device_that_takes_nothing_is_named_and_stays(tmp_path: Path) -> None:
    link = tmp_path / "full"
    link.symlink_to("/dev/full")
    with pytest.raises(WorkError, match=r"cannot write .*full: No space left on device; free space"):
        write_whole(link, "text" * 10_000)
    assert Path("/dev/full").is_char_device()


def test_the_manifest_beside_a_link_is_of_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("[]\n")
    link = tmp_path / "link.jsonl"
    link.symlink_to(tmp_path / "a.jsonl")
    write_manifest(link, stage="score", config={}, inputs={})
    manifest = json.loads(manifest_path(link).read_text())
    assert manifest["output"] == {"file": "link.jsonl", "hash": file_hash(tmp_path / "a.jsonl")}


def test_a_fault_of_the_work_is_not_passed_off_as_one_of_writing(tmp_path: Path) -> None:
    def work() -> None:
        with WholeFile(tmp_path / "a.txt") as file:
            file.write("half")
            raise FileNotFoundError(errno.ENOENT, "something that was read")

    (tmp_path / "a.txt").write_text("before")
    with pytest.raises(FileNotFoundError):
        work()
    assert (tmp_path / "a.txt").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
