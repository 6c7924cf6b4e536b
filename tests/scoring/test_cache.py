"""The log-prob cache: what is put comes back bit for bit, or not at all."""

import os
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest

from likelier.errors import UsageError, WorkError
from likelier.scoring.cache import LogpCache, branch_key, cache_folder


def entry(number, length=40, dtype=np.float32):
    """A key and values that belong together and to no other number."""
    key = branch_key(b"model", trunk=[number], branch=range(length), scored=[True] * length)
    return key, np.random.default_rng(number).normal(-2.0, 1.0, length).astype(dtype)


@pytest.fixture
def told():
    return []


@pytest.fixture
def cache(tmp_path, told):
    with LogpCache(tmp_path / "deep" / "folder", report=told.append) as opened:
        yield opened


def test_nothing_in_nothing_out(cache, told):
    assert cache.get([]) == {}
    assert cache.get([b"unknown", b""]) == {}
    cache.put({})
    assert told == []


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("length", [0, 1, 3000])
def test_what_is_put_comes_back_bit_for_bit(cache, dtype, length):
    values = np.random.default_rng(0).normal(size=length).astype(dtype)
    values[: length // 2 : 7] = [-0.0, np.nan, np.inf, 5e-324, -np.inf][length % 5]
    cache.put({b"key": values})
    (back,) = cache.get([b"key"]).values()
    assert back.dtype == dtype
    assert back.dtype.isnative
    assert back.flags.writeable
    assert back.tobytes() == values.tobytes()


def test_it_is_there_after_closing_and_for_another_process_too(tmp_path):
    key, values = entry(1)
    with LogpCache(tmp_path) as first:
        first.put({key: values})
        with LogpCache(tmp_path) as second:
            assert np.array_equal(second.get([key])[key], values)
    with LogpCache(tmp_path) as third:
        assert np.array_equal(third.get([key])[key], values)


def test_more_keys_than_one_query_holds_and_repeated_ones(cache):
    entries = dict(entry(number, 3) for number in range(1203))
    cache.put(entries)
    keys = [*entries, *entries, b"unknown"]
    found = cache.get(keys)
    assert found.keys() == entries.keys()
    assert all(np.array_equal(found[key], entries[key]) for key in entries)


def test_views_that_are_not_contiguous_or_not_native_are_stored_by_value(cache):
    values = np.arange(10.0)
    cache.put({b"step": values[::2], b"big": values.astype(">f8")})
    found = cache.get([b"step", b"big"])
    assert found[b"step"].tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert found[b"big"].tolist() == values.tolist()


def test_a_known_key_is_replaced(cache):
    cache.put({b"key": np.zeros(3)})
    cache.put({b"key": np.ones(2, np.float32)})
    assert cache.get([b"key"])[b"key"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "wrong", [np.zeros(3, np.float16), np.zeros(3, np.int32), np.zeros((2, 2)), np.zeros(())]
)
def test_other_arrays_are_refused_and_nothing_of_the_batch_is_stored(cache, wrong):
    with pytest.raises(ValueError, match="float32 or float64"):
        cache.put({b"good": np.zeros(3), b"bad": wrong})
    assert cache.get([b"good"]) == {}


def test_the_key_changes_with_whatever_changes_the_numbers():
    base = {"trunk": [1, 2], "branch": [3, 4], "scored": [True, True]}
    keys = [
        branch_key(b"model", **base),
        branch_key(b"other", **base),
        branch_key(b"", **base),
        branch_key(b"model", **base | {"trunk": [1]}),
        branch_key(b"model", **base | {"trunk": [2, 1]}),
        branch_key(b"model", **base | {"trunk": [1, 2, 3], "branch": [4], "scored": [True]}),
        branch_key(b"model", **base | {"trunk": [], "branch": [1, 2, 3, 4]}),
        branch_key(b"model", **base | {"branch": [3, 5]}),
        branch_key(b"model", **base | {"scored": [True, False]}),
        branch_key(b"model", **base | {"scored": [False, True]}),
        branch_key(b"model", **base | {"trunk": [1, 2 + 2**32]}),
    ]
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {32}


def test_the_key_is_of_numbers_not_of_their_types():
    lists = branch_key(b"m", trunk=[1, 2], branch=[3], scored=[True])
    arrays = branch_key(
        b"m",
        trunk=np.array([1, 2], np.int32),
        branch=np.array([3], np.uint16),
        scored=np.array([1], np.uint8),
    )
    assert lists == arrays


def test_the_key_does_not_move_between_versions():
    """Pinned: a change here empties every user's cache, so it must be meant."""
    key = branch_key(b"model", trunk=[1, 2], branch=[3], scored=[True])
    assert key.hex() == "c4a3eb1d71156baa711cae14e5e944e4b01b18c08d80f0d89ccde64af3df6ba7"


@pytest.mark.parametrize("place", ["start", "middle", "end"])
def test_a_flipped_bit_in_the_values_loses_that_entry_alone(tmp_path, place, told):
    entries = dict(entry(number) for number in range(20))
    with LogpCache(tmp_path, report=told.append) as cache:
        cache.put(entries)
    key, values = entry(7)
    content = bytearray(cache.path.read_bytes())
    at = content.index(values.tobytes())
    content[at + {"start": 0, "middle": 80, "end": 159}[place]] ^= 1
    cache.path.write_bytes(content)
    with LogpCache(tmp_path, report=told.append) as cache:
        found = cache.get(list(entries))
        assert found.keys() == entries.keys() - {key}
        assert all(np.array_equal(found[other], entries[other]) for other in found)
        assert cache.damaged == 1
        assert cache.get([key]) == {}
        assert cache.damaged == 1, "dropped, so counted once"
        cache.put({key: values})
        assert np.array_equal(cache.get([key])[key], values)
    assert told == []


@pytest.mark.parametrize(
    "change",
    [
        "checksum = zeroblob(16)",
        "length = length - 1",
        "item_size = 8, length = length / 2",
        "item_size = 3",
        "item_size = 'four'",
        "length = 40.5",
        "payload = substr(payload, 2)",
        "payload = 'text'",
        "payload = CAST(x'ff' AS TEXT)",
        "payload = x''",
    ],
)
def test_no_column_can_lie(cache, change):
    key, values = entry(1)
    cache.put({key: values})
    with sqlite3.connect(cache.path) as other:
        other.execute(f"UPDATE entries SET {change}")
    other.close()
    assert cache.get([key]) == {}
    assert cache.damaged == 1


def test_values_under_anothers_key_are_damage(cache):
    one, two = entry(1), entry(2)
    cache.put(dict([one]))
    with sqlite3.connect(cache.path) as other:
        other.execute("UPDATE entries SET key = ?", (two[0],))
    other.close()
    assert cache.get([two[0]]) == {}
    assert cache.damaged == 1


def test_every_single_flipped_byte_gives_the_right_numbers_or_none(tmp_path, told):
    """Wherever the file is hurt: never an exception, never wrong values, and the cache works again after."""
    entries = dict(entry(number, 30) for number in range(30))
    with LogpCache(tmp_path, report=told.append) as cache:
        cache.put(entries)
    sound = cache.path.read_bytes()
    lost = 0
    for at in [*range(0, 100, 3), *range(100, len(sound), 251)]:
        cache.path.write_bytes(sound[:at] + bytes([sound[at] ^ 0xFF]) + sound[at + 1 :])
        with LogpCache(tmp_path, report=told.append) as cache:
            found = cache.get(list(entries))
            lost += len(entries) - len(found)
            assert all(found[key].tobytes() == entries[key].tobytes() for key in found), at
            cache.put(entries)
            again = cache.get(list(entries))
            assert again.keys() == entries.keys(), at
        for leftover in tmp_path.glob("*damaged*"):
            leftover.unlink()
    assert lost > 0
    assert told


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_moved_aside_with_a_message(tmp_path, told, share):
    entries = dict(entry(number) for number in range(400))
    with LogpCache(tmp_path, report=told.append) as cache:
        cache.put(entries)
    size = cache.path.stat().st_size
    os.truncate(cache.path, int(size * share))
    with LogpCache(tmp_path, report=told.append) as cache:
        found = cache.get(list(entries))
        assert all(found[key].tobytes() == entries[key].tobytes() for key in found)
        cache.put(entries)
        assert cache.get(list(entries)).keys() == entries.keys()
    # A cut within the last page may hit nothing that was read.
    assert len(told) == (0.0 < share < 0.9) or share >= 0.9
    if told:
        assert "was damaged" in told[0]
        (aside,) = tmp_path.glob("*damaged*")
        assert aside.name in told[0]
        assert aside.stat().st_size == int(size * share)


def test_a_file_that_is_no_database_is_moved_aside(tmp_path, told):
    with LogpCache(tmp_path, report=told.append) as cache:
        pass
    for content in (b"not a database at all " * 100, bytes(range(256)) * 64):
        cache.path.write_bytes(content)
        with LogpCache(tmp_path, report=told.append) as cache:
            cache.put(dict([entry(1)]))
            assert cache.get([entry(1)[0]])
    assert len(told) == 2
    assert len(list(tmp_path.glob("*damaged*"))) == 2


def test_a_database_of_another_layout_is_moved_aside(tmp_path, told):
    path = LogpCache(tmp_path).path
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE entries (something TEXT)")
    other.close()
    with LogpCache(tmp_path, report=told.append) as cache:
        cache.put(dict([entry(1)]))
    assert len(told) == 1


def test_damage_while_open_is_met_too(cache, told):
    entries = dict(entry(number) for number in range(400))
    cache.put(entries)
    with cache.path.open("r+b") as file:
        file.write(b"\0" * cache.path.stat().st_size)
    assert cache.get(list(entries)) == {}
    cache.put(entries)
    assert cache.get(list(entries)).keys() == entries.keys()
    assert len(told) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not let an open file go")
@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_file_taken_away_while_open_is_begun_anew(cache, told, how):
    cache.put(dict([entry(1)]))
    if how == "removed":
        cache.path.unlink()
    else:
        cache.path.rename(cache.path.with_name("elsewhere"))
    cache.put(dict([entry(2)]))
    with LogpCache(cache.path.parent) as other:
        assert other.get([entry(1)[0], entry(2)[0]]).keys() == {entry(2)[0]}
    assert told == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not let an open file go")
def test_a_second_user_of_a_damaged_file_joins_the_new_one(tmp_path, told):
    """Both meet the damage; only one moves the file, and the second does not move the new one away."""
    entries = dict(entry(number) for number in range(400))
    with LogpCache(tmp_path, report=told.append) as one, LogpCache(tmp_path, report=told.append) as two:
        one.put(entries)
        assert len(two.get(list(entries))) == 400
        with one.path.open("r+b") as file:
            file.write(b"\0" * one.path.stat().st_size)
        one.put(entries)
        two.put(dict([entry(1000)]))
        assert len(two.get(list(entries))) == 400
        assert len(one.get([entry(1000)[0]])) == 1
    assert len(told) == 1
    assert len(list(tmp_path.glob("*damaged*"))) == 1


def test_messages_go_to_stderr_unless_told_otherwise(tmp_path, capsys):
    LogpCache(tmp_path).path.write_bytes(b"rubbish" * 1000)
    LogpCache(tmp_path).close()
    output = capsys.readouterr()
    assert output.out == ""
    assert "was damaged (file is not a database)" in output.err
    assert len(output.err.splitlines()) == 1


def test_a_folder_that_cannot_be_made_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=r"cannot make the cache folder .*LIKELIER_CACHE"):
            LogpCache(folder)


def test_a_file_that_cannot_be_opened_is_a_usage_error(tmp_path):
    path = LogpCache(tmp_path).path
    path.unlink()
    path.mkdir()
    with pytest.raises(UsageError, match=r"cannot write the cache .*LIKELIER_CACHE"):
        LogpCache(tmp_path)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_read_only_folder_is_a_usage_error(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UsageError, match=r"cannot write the cache .*LIKELIER_CACHE"):
            LogpCache(tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_a_file_that_may_not_be_written_is_no_damage(tmp_path, told, monkeypatch):
    """The header's write version says "read-only" here; whether that is damage depends on the permissions."""
    with LogpCache(tmp_path, report=told.append) as cache:
        cache.put(dict([entry(1)]))
    content = bytearray(cache.path.read_bytes())
    content[18] = 9
    cache.path.write_bytes(content)
    with LogpCache(tmp_path, report=told.append) as cache, monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        with pytest.raises(UsageError, match=r"cannot write the cache .*LIKELIER_CACHE"):
            cache.put(dict([entry(2)]))
    assert told == []


def test_a_closed_cache_is_a_bug_of_ours_and_says_so(cache):
    cache.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        cache.get([b"key"])


def test_a_full_disk_is_a_work_error_and_loses_nothing(cache, monkeypatch):
    """SQLite is told that the file may not grow, which it reports as it does a full disk."""
    cache.put(dict([entry(1)]))
    (pages,) = cache._connection.execute("PRAGMA page_count").fetchone()
    cache._connection.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(WorkError, match="no space left for the cache"):
        cache.put(dict(entry(number) for number in range(2, 200)))
    assert cache.get([entry(1)[0], entry(2)[0]]).keys() == {entry(1)[0]}
    cache._connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
    cache.put(dict(entry(number) for number in range(2, 200)))
    assert len(cache.get([entry(number)[0] for number in range(1, 200)])) == 199


def test_a_file_held_too_long_is_a_work_error(tmp_path):
    with LogpCache(tmp_path) as first, LogpCache(tmp_path, busy_seconds=0.05) as second:
        first._connection.execute("BEGIN EXCLUSIVE")
        for work in (lambda: second.put(dict([entry(1)])), lambda: second.get([entry(1)[0]])):
            with pytest.raises(WorkError, match=r"another process holds the cache .* more than 0.05 s"):
                work()
        first._connection.execute("ROLLBACK")
        second.put(dict([entry(1)]))


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("LIKELIER_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.setenv("LIKELIER_CACHE", "~/own")
    assert cache_folder() == Path.home() / "own"
    monkeypatch.setenv("LIKELIER_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "likelier"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    for platform, ending in {
        "linux": ".cache/likelier",
        "darwin": "Library/Caches/likelier",
        "win32": "AppData/Local/likelier/Cache",
    }.items():
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.delenv("LOCALAPPDATA", raising=False)
        assert cache_folder() == Path.home() / ending
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert cache_folder() == tmp_path / "likelier" / "Cache"


def test_no_home_folder_is_a_usage_error(monkeypatch):
    monkeypatch.delenv("LIKELIER_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)

    def lost():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", lost)
    with pytest.raises(UsageError, match="LIKELIER_CACHE"):
        cache_folder()
