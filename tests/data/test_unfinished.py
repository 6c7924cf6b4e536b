"""Parts of a file on their way: kept at once, told apart by what is made, by one process at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from likelier.data.unfinished import Unfinished, partial_path
from likelier.errors import DataError, UsageError, WorkError

SAME = {"seed": 1, "names": ["a", "b"]}


def begin(out: Path, *indices: int) -> None:
    with Unfinished(out, SAME, resume=True) as unfinished:
        for index in indices:
            unfinished.add(index, {"text": f"part {index}\n\ud83d"})


def found(out: Path) -> list[int]:
    with Unfinished(out, SAME, resume=True) as unfinished:
        return sorted(unfinished.parts)


def test_parts_come_back(tmp_path: Path) -> None:
    out = tmp_path / "folder" / "f.jsonl"
    begin(out, 3, 1)
    begin(out, 2)
    with Unfinished(out, SAME, resume=True) as unfinished:
        assert unfinished.parts == {i: {"text": f"part {i}\n\ud83d"} for i in (3, 1, 2)}
        unfinished.delete()
    assert list(out.parent.iterdir()) == []


def test_every_cut_of_the_file_loses_at_most_the_last_part(tmp_path: Path) -> None:
    out = tmp_path / "f.jsonl"
    begin(out, 0, 1, 2)
    raw = partial_path(out).read_bytes()
    ends = [place for place in range(len(raw)) if raw[place : place + 1] == b"\n"]
    for size in range(len(raw) + 1):
        partial_path(out).write_bytes(raw[:size])
        whole = sum(end < size for end in ends)
        assert found(out) == list(range(max(0, whole - 1)))
        begin(out, 7)
        assert found(out) == [*range(max(0, whole - 1)), 7]


def test_not_resuming_begins_anew(tmp_path: Path) -> None:
    out = tmp_path / "f.jsonl"
    begin(out, 0, 1)
    with Unfinished(out, {"seed": 2}, resume=False) as unfinished:
        assert unfinished.parts == {}
    with pytest.raises(UsageError, match="`seed` was 2 and is 1"):
        found(out)


def test_a_key_more_or_less_is_other_work(tmp_path: Path) -> None:
    out = tmp_path / "f.jsonl"
    begin(out)
    for other in ({"seed": 1}, {**SAME, "more": None, "top": 1}):
        with (
            pytest.raises(UsageError, match="begun with other settings"),
            Unfinished(out, other, resume=True),
        ):
            pass


@pytest.mark.parametrize("line", ["nonsense", "[]", "{}", '{"index": "x"}', "null"])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    out = tmp_path / "f.jsonl"
    begin(out, 0, 1)
    lines = partial_path(out).read_text().splitlines()
    lines[1] = line
    partial_path(out).write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"f\.jsonl\.partial, line 2 is damaged"):
        found(out)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "f.jsonl"
    with Unfinished(out, SAME, resume=True) as unfinished:
        unfinished.add(0, {})
        with pytest.raises(UsageError, match="another process"):
            found(out)
    assert found(out) == [0]


def test_a_place_that_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkError, match="cannot write"):
        found(tmp_path / "file" / "f.jsonl")


def test_values_are_those_that_json_knows(tmp_path: Path) -> None:
    out = tmp_path / "f.jsonl"
    identity = {"pair": (1, 2), "path": None, "x": 0.1}
    with Unfinished(out, identity, resume=True):
        pass
    with Unfinished(out, json.loads(json.dumps(identity)), resume=True) as unfinished:
        assert unfinished.parts == {}
