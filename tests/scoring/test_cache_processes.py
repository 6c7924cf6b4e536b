"""The cache between real processes: killed while writing, and writing at once."""

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from likelier.scoring.cache import LogpCache

WRITER = """
import sys
from tests.scoring.test_cache_processes import batch
from likelier.scoring.cache import LogpCache
folder, first, last, report = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
with LogpCache(folder) as cache:
    for number in range(first, last):
        cache.put(batch(number))
        if report == "each":
            print(number, flush=True)
print("done", flush=True)
"""
ROOT = Path(__file__).parents[2]


def batch(number, size=50):
    """Entries that any process can make again, large enough that a write takes a while."""
    return {
        f"{number}/{index}".encode(): np.full(400, -number - index / size, np.float64)
        for index in range(size)
    }


def start(folder, first, last, report="each"):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(first), str(last), report],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )


def present(cache, number):
    """How many of a batch are there, each with its right values."""
    expected = batch(number)
    found = cache.get(list(expected))
    assert all(found[key].tobytes() == expected[key].tobytes() for key in found)
    return len(found)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
@pytest.mark.parametrize("milliseconds", [0, 3, 7, 12, 20])
def test_sigkill_in_the_middle_of_writing_loses_only_what_was_not_yet_put(tmp_path, milliseconds):
    writer = start(tmp_path, 0, 1_000_000)
    acknowledged = [writer.stdout.readline() for _ in range(3)]
    time.sleep(milliseconds / 1000)
    writer.send_signal(signal.SIGKILL)
    rest, errors = writer.communicate(timeout=30)
    assert writer.returncode == -signal.SIGKILL
    assert errors == ""
    acknowledged += rest.splitlines()
    # A line may itself be cut by the kill; a whole one ends the batch that it names.
    last = max(int(line) for line in acknowledged if line.strip())
    told = []
    with LogpCache(tmp_path, report=told.append) as cache:
        for number in range(last + 1):
            assert present(cache, number) == 50, "an acknowledged batch is whole"
        assert present(cache, last + 1) in (0, 50), "a batch is stored whole or not at all"
        assert present(cache, last + 2) == 0
        assert cache.damaged == 0
        cache.put(batch(last + 2))
        assert present(cache, last + 2) == 50
    assert told == []
    with sqlite3.connect(cache.path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_a_journal_left_by_the_kill_is_rolled_back(tmp_path):
    """Killed inside a transaction that has already written into the file: the hard case, made certain."""
    with LogpCache(tmp_path) as cache:
        cache.put(batch(0))
    code = f"""
import os, signal, sqlite3
connection = sqlite3.connect({str(cache.path)!r}, isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("PRAGMA cache_spill = 1")
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE entries SET payload = zeroblob(length(payload)), checksum = zeroblob(16)")
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    journal = cache.path.with_name(cache.path.name + "-journal")
    assert journal.stat().st_size > 0
    assert bytes(3200) in cache.path.read_bytes(), "the file itself has been overwritten"
    with LogpCache(tmp_path) as cache:
        assert present(cache, 0) == 50
        assert cache.damaged == 0
    assert not journal.exists()


def test_two_processes_write_at_once_and_nothing_is_lost(tmp_path):
    """Overlapping ranges, so that both put some of the same keys, with a reader in this process."""
    writers = [start(tmp_path, 0, 40, "end"), start(tmp_path, 20, 60, "end")]
    with LogpCache(tmp_path) as cache:
        while any(writer.poll() is None for writer in writers):
            for number in (0, 30, 59):
                assert present(cache, number) in (0, 50)
        for writer in writers:
            output, errors = writer.communicate(timeout=60)
            assert (writer.returncode, output, errors) == (0, "done\n", "")
        assert all(present(cache, number) == 50 for number in range(60))
        assert cache.damaged == 0


def test_many_processes_make_the_folder_at_once(tmp_path):
    folder = tmp_path / "new" / "cache"
    writers = [start(folder, number, number + 1, "end") for number in range(4)]
    for writer in writers:
        output, errors = writer.communicate(timeout=60)
        assert (writer.returncode, output, errors) == (0, "done\n", "")
    with LogpCache(folder) as cache:
        assert all(present(cache, number) == 50 for number in range(4))
