"""Over two hundred malformed inputs: each is a fault or a DataError that names file and row, no traceback."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from likelier.cli import main as command_line
from likelier.data.faults import Fault
from likelier.data.reading import read
from likelier.data.records import Record
from likelier.errors import DataError

GOOD: dict[str, Any] = {"prompt": "How are you?", "chosen": " Fine, thanks.", "rejected": " Go away."}
TURNS = [{"role": "user", "content": "Hi"}]
WRONG_TEXT = [
    None,
    1,
    1.5,
    True,
    False,
    {},
    {"a": 1},
    [[]],
    [[["deep"]]],
    [1],
    "\ud800",
    "ab\udfffc",
    "nul \0 byte",
]
WRONG_NUMBER = ["1", True, False, [], {}, float("nan"), float("inf"), float("-inf"), 10**400, [1.0]]
WRONG_TURNS = [
    [{"role": "user"}],
    [{"content": "no role"}],
    [{"role": "usr", "content": "x"}],
    [{"role": None, "content": "x"}],
    [{"role": 7, "content": "x"}],
    [{"role": "user", "content": None}],
    [{"role": "user", "content": 3}],
    [{"role": "user", "content": "\ud800"}],
    [{"role": "user", "content": [{"type": "image", "image": "x.png"}]}],
    [{"role": "user", "content": [{"type": "text"}]}],
    [{"role": "user", "content": [5]}],
    ["user", "Hi"],
    [[{"role": "user", "content": "x"}]],
    [{"from": "human"}],
    [{"from": "narrator", "value": "x"}],
    [{"role": "user", "content": "x", "extra": "\ud800"}],
]


def rows_wrong_in_a_field() -> list[tuple[str, dict[str, Any]]]:
    """Rows that differ from a good one in one value."""
    cases: list[tuple[str, dict[str, Any]]] = []
    for field in ("prompt", "chosen", "rejected"):
        cases += [(field, {**GOOD, field: value}) for value in WRONG_TEXT]
        cases += [(field, {key: value for key, value in GOOD.items() if key != field})]
    cases += [(field, {**GOOD, field: ""}) for field in ("chosen", "rejected")]
    cases += [("rejected", {**GOOD, "rejected": GOOD["chosen"]})]
    cases += [("weight", {**GOOD, "weight": value}) for value in [*WRONG_NUMBER, -1, -0.001]]
    cases += [("margin", {**GOOD, "margin": value}) for value in WRONG_NUMBER]
    cases += [("id", {**GOOD, "id": value}) for value in (True, 1.5, [], {}, "\ud800", 10**100)]
    cases += [("source", {**GOOD, "source": value}) for value in (1, [], "\0")]
    cases += [
        ("tokens", {**GOOD, "tokens": value}) for value in ("x", [1], [[1], ["a"]], [[1], [-1]], [[], [1]])
    ]
    cases += [("finish", {**GOOD, "finish": value}) for value in ("stop", ["stop"], ["stop", "eos"], [1, 2])]
    cases += [("images", {**GOOD, "images": ["a.png"]}), ("image", {**GOOD, "image": b"png"})]
    cases += [("tools", {**GOOD, "tools": [{"name": "f"}]}), ("tools", {**GOOD, "tools": "[{"})]
    return cases


def rows_of_other_formats() -> list[tuple[str, dict[str, Any]]]:
    """Rows in every other form, each with something wrong."""
    pair = {"prompt": "p", "a": "x", "b": "y"}
    many = {"prompt": "p", "completions": ["x", "y", "z"]}
    cases: list[tuple[str, dict[str, Any]]] = []
    cases += [("winner", {**pair, "winner": w}) for w in ("c", "A", "both bad", "", None, 1, True, ["a"], {})]
    cases += [
        ("winner", pair),
        ("a", {"prompt": "p", "b": "y", "winner": "a"}),
        ("b", {**pair, "b": 3, "winner": "a"}),
    ]
    cases += [
        ("label", {"prompt": "p", "completion": "x", "label": v}) for v in (None, 1, 0, "true", "yes", [])
    ]
    cases += [
        ("ranking", {**many, "ranking": r}) for r in ([], [[0]], [[0, 1], [1, 2]], [[0], [1], [3]], [0, 1, 2])
    ]
    cases += [
        ("ranking", {**many, "ranking": r})
        for r in ([[0, 1, 2], []], "0>1>2", [[0.0], [1], [2]], [[True], [0], [2]])
    ]
    cases += [("ranking", {**many, "ranking": r}) for r in ([[[0]], [1], [2]], [[-1], [0], [1]], {"0": 1})]
    cases += [
        ("scores", {**many, "scores": s}) for s in ([1, 2], [1, 2, 3, 4], ["1", 2, 3], [1, 2, None], 5, "123")
    ]
    cases += [("scores", {**many, "scores": [1, 2, v]}) for v in (float("nan"), float("inf"), True, 10**400)]
    cases += [
        ("completions", {"prompt": "p", "completions": v}) for v in ([], None, "x", [None], [""], [[1]], [{}])
    ]
    cases += [("completions", {**many, "completions": ["x", "x", "z"], "scores": [1, 2, 3]})]
    cases += [("prompt", {"prompt": turns, "completion": "x"}) for turns in WRONG_TURNS]
    cases += [("completion", {"prompt": TURNS, "completion": turns}) for turns in WRONG_TURNS]
    cases += [
        ("completion", {"prompt": TURNS, "completion": v}) for v in ("", " \n", [], TURNS, {"text": None}, {})
    ]
    cases += [
        ("messages", {"messages": v})
        for v in (None, [], "Hi", TURNS, [{"role": "assistant", "content": " "}])
    ]
    cases += [("messages", {"messages": [*TURNS, {"role": "assistant", "content": "x"}, *TURNS]})]
    cases += [("messages", {"messages": TURNS, "label": True})]
    cases += [("text", {"text": v}) for v in WRONG_TEXT] + [("text", {"text": ""})]
    cases += [("prompt", {"chosen": "A and B", "rejected": "A and C"})]
    cases += [("prompt", {"chosen": [*TURNS, *TURNS], "rejected": TURNS})]
    cases += [("rejected", {"chosen": "text", "rejected": TURNS})]
    cases += [("system", {"prompt": [{"role": "system", "content": "a"}], "completion": "x", "system": "b"})]
    cases += [("system", {**GOOD, "system": 4})]
    cases += [("tools", {"prompt": TURNS, "completion": "x", "tools": {"a": 1}})]
    cases += [("chat_template_kwargs", {"prompt": TURNS, "completion": "x", "chat_template_kwargs": [1]})]
    return cases


def rows_of_foreign_formats() -> list[tuple[str | None, dict[str, Any]]]:
    """Rows of other projects' formats, each with something wrong."""
    shp = {"history": "h", "human_ref_A": "a", "human_ref_B": "b"}
    steer3 = {"context": TURNS, "response1": "a", "response2": "b"}
    panda = {"instruction": "i", "input": "", "response1": "a", "response2": "b"}
    node = {"message_id": "m", "role": "prompter", "text": "t"}
    cases: list[tuple[str | None, dict[str, Any]]] = []
    cases += [("labels", {**shp, "labels": v}) for v in (2, -1, None, True, "1")] + [("labels", shp)]
    cases += [
        ("overall_preference", {**steer3, "overall_preference": v}) for v in (4, -4, None, "1", float("nan"))
    ]
    cases += [("annotator1", {**panda, "annotator1": v}) for v in (3, -1, None, True, "1")]
    cases += [("response1", {**panda, "response1": True, "annotator1": 1})]
    cases += [
        ("conversations", {"conversations": v}) for v in (None, [], [{"from": "gpt", "value": ""}], "x")
    ]
    cases += [
        ("kto_tag", {"conversations": [{"from": "gpt", "value": "x"}], "kto_tag": v})
        for v in (None, 1, "true")
    ]
    cases += [("conversations", {"conversations": [{"from": "function_call", "value": "{"}]})]
    cases += [("output", {"instruction": "i", "output": v}) for v in (None, "", 3, ["x"])]
    cases += [
        ("history", {"instruction": "i", "output": "o", "history": v})
        for v in ([["q"]], ["q"], "q", [[1, 2]])
    ]
    cases += [
        ("prompt", {"message_tree_id": "t", "prompt": v}) for v in (None, "x", [], {**node, "replies": []})
    ]
    cases += [
        ("replies", {"message_tree_id": "t", "prompt": {**node, "replies": v}}) for v in ("x", [1], {"a": 1})
    ]
    cases += [
        ("completions", {"instruction": "i", "completions": v})
        for v in ([], None, ["x"], [{"response": "x"}])
    ]
    cases += [("helpfulness", {"prompt": "p", "response": "r", "helpfulness": v}) for v in (None, "4", True)]
    cases += [
        (None, row) for row in ({}, {"x\n": 1}, {"prompt": "p"}, {"question": "q", "answer": "a"}, {"": ""})
    ]
    return cases


BAD_ROWS = [*rows_wrong_in_a_field(), *rows_of_other_formats(), *rows_of_foreign_formats()]

NOT_ROWS = [None, 1, 1.5, True, "text", [], [1], [[GOOD]], b"bytes"]

BAD_LINES = [
    b"{",
    b"}",
    b'{"prompt": "a"',
    b'{"prompt": "a", "chosen": "b", "rejected": "c',
    b'{"prompt": "a",}',
    b"{'prompt': 'a'}",
    b'{"prompt" "a"}',
    b"[]",
    b'["a", "b"]',
    b"null",
    b"true",
    b"12",
    b'"text"',
    b"text",
    b"nan",
    b"\x00\x00\x00\x00",
    b'{"prompt": "a\x00b"}',
    b'{"prompt": "\xff\xfe"}',
    b"\xff\xfe{\x00}\x00",
    b'{"prompt": "\\ud800", "completion": "x"}',
    b'{"prompt": "\\u12", "completion": "x"}',
    b'{"prompt": "a", "prompt": "b", "chosen": "c", "rejected": "d"}',
    b'{"prompt": "a", "chosen": "b", "rejected": "c"} {"prompt": "d"}',
    b'{"prompt": "a", "chosen": "b", "rejected": "c", "weight": NaN}',
    b'{"prompt": "a", "chosen": "b", "rejected": "c", "weight": -Infinity}',
    b'{"prompt": "a", "chosen": "b", "rejected": "c", "weight": 1e999}',
    b'{"prompt": "a", "chosen": "b", "rejected": "c", "weight": ' + b"9" * 5000 + b"}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"prompt": ' + b"[" * 500 + b"]" * 500 + b', "completion": "x"}',
    b'{"prompt": [{"role": "user", "content": "x", "extra": '
    + b"[" * 90
    + b"]" * 90
    + b'}], "completion": "x"}',
    b"x" * 1_000_000,
    b'{"prompt": "' + b"x" * 1_000_000,
    b'{"prompt": "' + b"x" * 1_000_000 + b'"}',
]

BAD_ARRAYS = [
    b"[",
    b'[{"prompt": "a"',
    b'[{"prompt": "a"}, ',
    b'[{"prompt": "a"},]',
    b'[{"prompt": "a"} {"prompt": "b"}]',
    b'[{"prompt": "a"}] trailing',
    b"[1, 2]",
    b"[[]]",
    b'[{"prompt": "a", "prompt": "b"}]',
    b'[{"prompt": "\xff"}]',
    b"[" * 100_000,
    b'{\n"prompt": "a",\n"chosen":',
    b'{"data": [{"prompt": "a"}]}',
    b"nonsense",
    b"[{]",
]

BAD_CSV = [
    b"prompt,chosen,rejected\na,b\n",
    b"prompt,chosen,rejected\na,b,c,d\n",
    b'prompt,chosen,rejected\n"a,b,c\n',
    b'prompt,chosen,rejected\n"a"x,b,c\n',
    b"prompt,chosen,rejected\na,,c\n",
    b"prompt,chosen,rejected\na,\x00,c\n",
    b"prompt,chosen,rejected\na,\xff,c\n",
    b"prompt,chosen,rejected,weight\na,b,c,heavy\n",
    b"prompt,chosen,rejected,weight\na,b,c,nan\n",
    b"prompt,completion,label\na,b,maybe\n",
    b"prompt,completion,label\na,b,\n",
    b"x,y\n1,2\n",
    b"prompt,chosen,rejected,weight\na,b,c,1e999\n",
    b"prompt,chosen,rejected\na,b,b\n",
    b"prompt,chosen,rejected\n\xed\xa0\x80,b,c\n",
]


def assert_named(data: Any, file: str, row: int = 1) -> Fault | DataError:
    """All of `data` is one fault at `row`, or an error, on one short line that names the file."""
    try:
        items = list(read(data))
    except DataError as error:
        items, told = [], error
    if not items:
        assert file in str(told)
        return told
    faults = [item for item in items if isinstance(item, Fault)]
    assert faults, f"read without complaint: {items}"
    first = faults[0]
    assert (first.file, first.row) == (file, row)
    assert str(first).startswith(f"{file}, row {row}: ")
    assert "\n" not in str(first)
    assert len(first.message) < 400
    assert first.kind
    first.message.encode("utf-8")
    return first


@pytest.mark.parametrize("field", ["id", "weight", "prompt", "tokens", "tools"])
def test_numbers_that_python_itself_will_not_write_are_faults(field: str) -> None:
    fault = assert_named([{**GOOD, field: 10**5000}], "<rows>")
    assert isinstance(fault, Fault)
    assert fault.field == field


def test_there_are_two_hundred() -> None:
    assert len(BAD_ROWS) + len(NOT_ROWS) + len(BAD_LINES) + len(BAD_ARRAYS) + len(BAD_CSV) > 250


@pytest.mark.parametrize(("field", "row"), BAD_ROWS, ids=lambda value: repr(value)[:60])
def test_a_bad_row_is_a_fault_of_its_field(field: str | None, row: dict[str, Any]) -> None:
    fault = assert_named([row], "<rows>")
    assert isinstance(fault, Fault)
    assert field is None or (fault.field or "").split("[")[0].split(".")[0] == field or field in fault.message


@pytest.mark.parametrize("value", NOT_ROWS, ids=repr)
def test_what_is_no_object_is_a_fault(value: Any) -> None:
    good, fault = read([GOOD, value])
    assert isinstance(good, Record)
    assert isinstance(fault, Fault)
    assert (fault.row, fault.kind) == (2, "wrong type")


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: repr(line[:40]))
def test_a_bad_line_costs_its_line_alone(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps(GOOD).encode()
    path.write_bytes(good + b"\n" + line + b"\n" + good + b"\n")
    items = list(read(path))
    assert [isinstance(item, Fault) for item in items] == [False, True, False]
    assert_named(path, str(path), row=2)


@pytest.mark.parametrize("text", BAD_ARRAYS, ids=lambda text: repr(text[:40]))
def test_a_bad_array_is_named(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(text)
    assert_named(path, str(path), row=1)


@pytest.mark.parametrize("text", BAD_CSV, ids=repr)
def test_a_bad_csv_is_named(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(text)
    assert_named(path, str(path))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz", "a.parquet.gz"])
@pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08\x00garbage", b"\x1f\x8b", b"PAR1PAR1", b"\0" * 64])
def test_files_that_are_no_data_are_named(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert_named(path, str(path))


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.csv.gz"])
def test_a_truncated_gzip_ends_in_a_fault(name: str, kept: float, tmp_path: Path) -> None:
    rows = [{**GOOD, "prompt": f"{n} {n * 7919 % 10007}"} for n in range(2000)]
    text = json.dumps(rows) if "json.gz" in name else "\n".join(map(json.dumps, rows))
    if "csv" in name:
        text = "prompt,chosen,rejected\n" + "\n".join(f"{r['prompt']},b,c" for r in rows)
    packed = gzip.compress(text.encode())
    path = tmp_path / name
    path.write_bytes(packed[: int(len(packed) * kept)])
    items = list(read(path))
    last = items[-1]
    assert isinstance(last, Fault)
    assert "breaks off" in last.message
    assert last.row == len(items)
    assert not any(isinstance(item, Fault) for item in items[:-1])


@pytest.mark.parametrize(
    "make", [lambda p: p / "none.jsonl", lambda p: p / "a.txt", lambda p: p, lambda p: "a b"]
)
def test_sources_that_cannot_be_read_are_errors_at_once(make: Callable[[Path], Any], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DataError):
        read(make(tmp_path))


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("likelier.data.json_rows.MAX_ROW_BYTES", 1 << 20)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"x" * (5 << 20) + b"\n" + json.dumps(GOOD).encode())
    fault, record = read(path)
    assert isinstance(fault, Fault)
    assert fault.kind == "too long"
    assert isinstance(record, Record)
    assert record.row == 2


def json_lines() -> list[bytes]:
    """All bad rows that JSON can hold, and all bad lines, as lines of one file."""
    rows = [row for _, row in BAD_ROWS if not any(isinstance(value, bytes) for value in row.values())]
    return [*(json.dumps(row).encode() for row in rows), *BAD_LINES]


def test_the_command_names_file_row_and_reason_of_every_bad_line(tmp_path: Path) -> None:
    lines = json_lines()
    assert len(lines) >= 250
    path, rejected = tmp_path / "rows.jsonl", tmp_path / "bad.jsonl"
    path.write_bytes(b"\n".join(lines))
    command = [sys.executable, "-m", "likelier", "check", "--data", str(path), "--json"]
    done = subprocess.run([*command, "--rejected", str(rejected)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["unusable"] == len(lines)
    reasons = [json.loads(line) for line in rejected.read_text().splitlines()]
    assert [reason["row"] for reason in reasons] == list(range(1, len(lines) + 1))
    assert {reason["file"] for reason in reasons} == {str(path)}
    assert all(reason["message"].isprintable() and reason["kind"] for reason in reasons)


FILES = {
    **{f"{n}.json": text for n, text in enumerate(BAD_ARRAYS)},
    **{f"{n}.csv": text for n, text in enumerate(BAD_CSV)},
    **{f"lone-{n}.jsonl": line for n, line in enumerate(BAD_LINES)},
    "empty.jsonl": b"",
    "blank.jsonl": b"\n \n",
    "header.csv": b"prompt,chosen,rejected\n",
    "semicolons.csv": b"prompt;chosen;rejected\na;b;c\n",
    "twice.csv": b"prompt,chosen,chosen,rejected\na,b,c,d\n",
    "utf16.jsonl": '{"text": "a"}\n'.encode("utf-16"),
    "garbage.parquet": b"PAR1PAR1",
    "cut.jsonl.gz": gzip.compress(b'{"text": "a"}\n' * 999)[:30],
    "twice.jsonl.gz": gzip.compress(gzip.compress(b'{"text": "a"}\n')),
    "picture.png": b"\x89PNG\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("name", FILES)
def test_the_command_ends_with_a_line_and_no_traceback(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name])
    code = command_line(["check", "--data", str(path), "--json"])
    captured = capsys.readouterr()
    if code == 2:  # the file as a whole
        assert captured.out == ""
        (told,) = captured.err.splitlines()
        assert told.startswith("likelier: ")
        assert str(path) in told
        return
    assert (code, captured.err) == (1, "")
    found = json.loads(captured.out)
    places = [example for examples in found["examples"].values() for example in examples]
    assert found["unusable"] >= 1
    assert {place["file"] for place in places} == {str(path)}
    assert all(place["row"] >= 1 and place["message"] for place in places)


@pytest.mark.parametrize("name", ["none.jsonl", "a.jsonl=2", "a.jsonl=x", "folder", "a\nb.jsonl", "", "\0"])
def test_names_that_the_command_cannot_read_are_usage_or_data_errors(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.jsonl").write_text(json.dumps(GOOD))
    assert command_line(["check", f"--data={name}"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("likelier: ")
    assert captured.err.count("\n") == 1
