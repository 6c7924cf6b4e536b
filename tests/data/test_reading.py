"""Renaming, shares, transcripts as turns, several sources, and what training does with faults."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from likelier.data.faults import Fault
from likelier.data.reading import load_records, read
from likelier.data.records import Record
from likelier.errors import DataError, UsageError

PAIR = {"prompt": "p", "chosen": "x", "rejected": "y"}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def records(data: Any, **options: Any) -> list[Record]:
    items = list(read(data, **options))
    assert all(isinstance(item, Record) for item in items), items
    return items  # type: ignore[return-value]


def test_columns_are_renamed() -> None:
    rows = [{"instruction": "i", "response1": "x", "response2": "y", "annotator1": 2}]
    (record,) = records(
        rows, columns={"prompt": "instruction", "chosen": "response1", "rejected": "response2"}
    )
    assert (record.prompt, [c.content for c in record.completions]) == ("i", ["x", "y"])


def test_a_renamed_column_that_is_not_there_is_a_fault() -> None:
    (fault,) = read([PAIR], columns={"prompt": "question"})
    assert isinstance(fault, Fault)
    assert (fault.field, fault.kind) == ("question", "missing")


def test_renaming_to_an_unknown_column_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match=r"`chosn`; did you mean `chosen`\?"):
        read([PAIR], columns={"chosn": "x"})


def test_transcripts_become_turns_when_asked() -> None:
    opening = "\n\nHuman: Hi \n\nAssistant: Hello\n\nHuman: Bye?\n\nAssistant:"
    row = {"chosen": f"{opening} Bye!", "rejected": f"{opening} No.\n\nHuman: Why?\n\nAssistant: Because."}
    split = {"prompt": opening, "chosen": " Bye!", "rejected": " No.\n\nHuman: Why?\n\nAssistant: Because."}
    for given in (row, split):
        (record,) = records([given], as_messages=True)
        assert [(turn["role"][0], turn["content"]) for turn in record.prompt] == [  # type: ignore[index]
            ("u", "Hi"),
            ("a", "Hello"),
            ("u", "Bye?"),
        ]
        assert record.completions[0].content == [{"role": "assistant", "content": "Bye!"}]
        assert [turn["content"] for turn in record.completions[1].content] == ["No.", "Why?", "Because."]  # type: ignore[index]


def test_plain_strings_become_turns_when_asked_and_text_alone_does_not() -> None:
    pair, text = records([PAIR, {"text": "t"}], as_messages=True)
    assert pair.prompt == [{"role": "user", "content": "p"}]
    assert pair.completions[1].content == [{"role": "assistant", "content": "y"}]
    assert (text.prompt, text.completions[0].content) == ("", "t")


def test_several_sources_follow_one_another(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", [PAIR, PAIR])
    second = write(tmp_path / "b=1.jsonl", [PAIR])
    places = [(record.file, record.row) for record in records([first, Path(second)])]
    assert places == [(first, 1), (first, 2), (second, 1)]


def test_a_share_takes_whole_prompts_and_is_the_same_each_time(tmp_path: Path) -> None:
    rows = [{**PAIR, "prompt": f"p{n // 2}", "margin": n} for n in range(2000)]
    name = write(tmp_path / "a.jsonl", rows)
    taken = records([f"{name}=0.25"])
    assert taken == records(f"{name}=0.25")
    assert 400 < len(taken) < 600
    prompts = [record.prompt for record in taken]
    assert all(prompts.count(prompt) == 2 for prompt in set(map(str, prompts)))
    assert {r.row for r in taken} < {r.row for r in records([f"{name}=0.5"])}
    assert len(records([f"{name}=1"])) == 2000


@pytest.mark.parametrize("share", ["0", "1.5", "-0.5", "nan", "inf"])
def test_a_share_that_is_none_is_refused(share: str, tmp_path: Path) -> None:
    name = write(tmp_path / "a.jsonl", [PAIR])
    with pytest.raises(UsageError, match="share"):
        read(f"{name}={share}")


def test_faults_are_kept_whatever_the_share(tmp_path: Path) -> None:
    name = write(tmp_path / "a.jsonl", [{"prompt": str(n)} for n in range(50)])
    assert len([item for item in read(f"{name}=0.01") if isinstance(item, Fault)]) == 50


def test_faults_stand_where_their_rows_stood() -> None:
    items = list(read([PAIR, {}, PAIR, {"prompt": "p"}, PAIR]))
    assert [(type(item), item.row) for item in items] == [
        (Record, 1),
        (Fault, 2),
        (Record, 3),
        (Fault, 4),
        (Record, 5),
    ]


def test_records_pass_through() -> None:
    (record,) = records([PAIR])
    assert records([record]) == [record]


def test_training_refuses_faults_or_counts_them() -> None:
    rows = [PAIR, {**PAIR, "chosen": "y"}, {**PAIR, "chosen": None}]
    with pytest.raises(
        DataError,
        match=r"2 of 3 rows cannot be used \(chosen equals rejected: 1, null: 1\).*row 2.*--skip-bad-rows",
    ):
        load_records(rows)
    kept, faults = load_records(rows, skip_bad_rows=True)
    assert ([record.row for record in kept], [fault.row for fault in faults]) == ([1], [2, 3])


@pytest.mark.parametrize("data", [[], [{"prompt": "p"}]])
def test_no_usable_row_is_an_error(data: Any) -> None:
    with pytest.raises(DataError):
        load_records(data, skip_bad_rows=True)


@pytest.mark.parametrize("data", [3, None, {"prompt": "p"}])
def test_what_is_no_data_is_refused(data: Any) -> None:
    with pytest.raises(UsageError):
        read(data)


def test_a_share_that_is_no_number_or_takes_nothing_is_told(tmp_path: Path) -> None:
    name = write(tmp_path / "a.jsonl", [PAIR])
    with pytest.raises(UsageError, match=r"a share must be .* not `half`"):
        read(f"{name}=half")
    with pytest.raises(DataError, match=r"a share of 1e-09 takes none of its 1 rows"):
        list(read(f"{name}=1e-9"))


@pytest.mark.parametrize("key", ["data", "train", "rows"])
def test_an_object_around_the_rows_is_told(key: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({key: [PAIR]}))
    (fault,) = read(path)
    assert isinstance(fault, Fault)
    assert f"the rows stand inside the key '{key}'" in fault.message


def test_a_column_renamed_twice_is_refused() -> None:
    from likelier.data.columns import parse_columns

    with pytest.raises(UsageError, match="`chosen` twice"):
        parse_columns("chosen=a,prompt=p,chosen=b")


def test_messages_are_one_line_whatever_a_column_is_called() -> None:
    for fault in read([{"ch\nosen\x1b[2J": "x", "prompt\u2028": 1}, {"prompt": "p", "completion\r": "x"}]):
        assert isinstance(fault, Fault)
        assert (str(fault).isprintable(), fault.message.isprintable()) == (True, True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b'[{"text": "a"}, {"text": ], {"text": "c"}]'),
        ("a.csv", b'text\na\n"b\nc\n'),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n' + b'{"text": "b"}\n' * 9999, mtime=0)[:90]),
    ],
    ids=["json", "csv", "gz"],
)
def test_what_was_never_read_cannot_be_skipped(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert sum(isinstance(item, Record) for item in read(tmp_path / name)) >= 1
    with pytest.raises(DataError, match=r"row \d+: .*the rest of a file"):
        load_records(tmp_path / name, skip_bad_rows=True)


@pytest.mark.parametrize(
    "bad", [b'{"text": "b", "text": "c"}', b'{"text": "\xff"}', b'{"text": "\xed\xa0\x80"}']
)
def test_a_row_that_is_bad_alone_can_be_skipped(bad: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'[{"text": "a"}, ' + bad + b', {"text": "d"}]')
    kept, faults = load_records(tmp_path / "a.json", skip_bad_rows=True)
    assert ([record.row for record in kept], [fault.row for fault in faults]) == ([1, 3], [2])


def test_data_without_a_usable_row_says_why() -> None:
    with pytest.raises(
        DataError, match=r"2 of 2 rows cannot be used \(null: 2\); the first: .*row 1: `chosen`"
    ):
        load_records([{**PAIR, "chosen": None}] * 2, skip_bad_rows=True)
