"""Every container gives the same rows under the same numbers."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from likelier.data.faults import Fault
from likelier.data.files import raw_rows
from likelier.data.reading import read
from likelier.data.records import Record
from likelier.errors import DataError

ROWS = [
    {"prompt": f"Say {n}, “ü”:", "chosen": f" {n}\nand more", "rejected": f' "{n + 1}", no'}
    for n in range(1500)
]


def lines() -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode()


def table(delimiter: str) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["prompt", "chosen", "rejected"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def parquet() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


CONTAINERS = {
    "lines.jsonl": lines,
    "lines.ndjson": lambda: b"\xef\xbb\xbf" + lines() + b"\r\n",
    "lines.json": lines,
    "array.json": lambda: json.dumps(ROWS).encode(),
    "indented.json": lambda: json.dumps(ROWS, indent=2, ensure_ascii=False).encode(),
    "objects.json": lambda: "\n\n".join(json.dumps(row, indent=1) for row in ROWS).encode(),
    "table.csv": lambda: table(","),
    "table.tsv": lambda: b"\xef\xbb\xbf" + table("\t"),
    "table.parquet": parquet,
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", CONTAINERS)
def test_rows_and_numbers_are_the_same_in_every_container(name: str, zipped: bool, tmp_path: Path) -> None:
    content = CONTAINERS[name]()
    path = tmp_path / (f"{name}.gz" if zipped else name)
    path.write_bytes(gzip.compress(content) if zipped else content)
    assert list(raw_rows(str(path))) == list(enumerate(ROWS, start=1))


def test_a_row_longer_than_the_buffer_is_read_whole(tmp_path: Path) -> None:
    rows = [
        {"prompt": "x" * 3_000_000, "n": [1.5, True, None]},
        {"prompt": "é" * 1_000_000},
        {"prompt": "short"},
    ]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    assert [value for _, value in raw_rows(str(path))] == rows  # type: ignore[misc]


def test_blank_lines_count_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('\n{"text": "a"}\n\n  \n{"text": "b"}\n')
    assert [number for number, _ in raw_rows(str(path))] == [2, 5]  # type: ignore[misc]


def test_one_bad_line_of_a_json_file_costs_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('{"text": "a"\n{"text": "b"}\n')
    fault, second = raw_rows(str(path))
    assert isinstance(fault, Fault)
    assert second == (2, {"text": "b"})


def test_a_doubled_key_in_an_array_costs_its_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"text": "a"}, {"text": "b", "text": "c"}, {"text": "d"}]')
    first, fault, third = raw_rows(str(path))
    assert (first, third) == ((1, {"text": "a"}), (3, {"text": "d"}))
    assert isinstance(fault, Fault)
    assert (fault.row, fault.kind, fault.field) == (2, "duplicate key", "text")


def test_csv_cells_hold_numbers_labels_and_turns(tmp_path: Path) -> None:
    turns = json.dumps([{"role": "user", "content": "Hi"}])
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ["prompt", "completion", "label", "weight"],
                [turns, '["a list", "as text"]', "True", "0.5"],
                ["p", "7", "false", ""],
            ]
        )
    first, second = (item for item in read(path) if isinstance(item, Record))
    assert first.prompt == [{"role": "user", "content": "Hi"}]
    assert first.completions[0].content == [{"role": "assistant", "content": '["a list", "as text"]'}]
    assert (first.label, first.weight) == (True, 0.5)
    assert (second.completions[0].content, second.label, second.weight) == ("7", False, 1.0)


def test_nulls_that_parquet_adds_to_turns_are_no_content(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"messages": [{"role": "user", "content": "a", "name": "x"}, {"role": "assistant", "content": "b"}]},
        {"messages": [{"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    first, second = (item for item in read(tmp_path / "rows.parquet") if isinstance(item, Record))
    assert first.prompt == [{"role": "user", "content": "a", "name": "x"}]
    assert second.prompt == [{"role": "user", "content": "c"}]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from datasets import Dataset, DatasetDict

    folder = tmp_path_factory.mktemp("saved")
    Dataset.from_list(ROWS[:5]).save_to_disk(str(folder / "one"))
    splits = {"train": Dataset.from_list(ROWS[:3]), "test": Dataset.from_list(ROWS[3:5])}
    DatasetDict(splits).save_to_disk(str(folder / "two"))
    return folder


def test_saved_datasets_are_read_by_split(saved: Path) -> None:
    assert list(raw_rows(str(saved / "one"))) == list(enumerate(ROWS[:5], start=1))
    assert list(raw_rows(str(saved / "two"))) == list(enumerate(ROWS[:3], start=1))
    assert list(raw_rows(f"{saved / 'two'}:test")) == list(enumerate(ROWS[3:5], start=1))


@pytest.mark.parametrize("name", ["two:validation", "one:train"])
def test_a_split_that_is_not_there_is_named(saved: Path, name: str) -> None:
    with pytest.raises(DataError, match=name.partition(":")[2]):
        raw_rows(f"{saved}/{name}")


def test_a_dataset_in_memory_is_read(saved: Path) -> None:
    from datasets import load_from_disk

    records = [item for item in read(load_from_disk(str(saved / "one"))) if isinstance(item, Record)]
    assert [record.row for record in records] == [1, 2, 3, 4, 5]


def test_hub_names_carry_configuration_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def load(*arguments: Any) -> Any:
        asked.append(arguments)
        return {"train": ROWS[:2], "test": ROWS[2:3]}

    monkeypatch.setattr("datasets.load_dataset", load)
    assert [value for _, value in raw_rows("who/what")] == ROWS[:2]  # type: ignore[misc]
    assert [value for _, value in raw_rows("who/what:test")] == ROWS[2:3]  # type: ignore[misc]
    assert [value for _, value in raw_rows("who/what:hard:test")] == ROWS[2:3]  # type: ignore[misc]
    assert asked == [("who/what", None), ("who/what", None), ("who/what", "hard")]


def test_a_hub_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*arguments: Any) -> Any:
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr("datasets.load_dataset", load)
    with pytest.raises(
        DataError, match=r"`who/what` is no file here and cannot be had .* no network"
    ) as caught:
        raw_rows("who/what")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_another_encoding_is_one_error_and_not_a_fault_a_line(
    encoding: str, name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes('{"text": "a"}\n{"text": "b"}\n'.encode(encoding))
    with pytest.raises(DataError, match=rf"{name} is not UTF-8 but UTF-16 or UTF-32"):
        list(raw_rows(str(path)))


@pytest.mark.parametrize(
    ("make", "said"),
    [(lambda: gzip.compress(gzip.compress(lines())), "compressed twice"), (parquet, r"end in \.parquet")],
)
def test_contents_that_belie_their_name_are_told(make: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(make())
    with pytest.raises(DataError, match=said):
        list(raw_rows(str(path)))


@pytest.mark.parametrize("name", ["", " ", "\0", "a\nb.jsonl", "x" * 5000 + ".jsonl"])
def test_names_that_are_none_are_one_line(name: str) -> None:
    with pytest.raises(DataError) as caught:
        raw_rows(name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 6000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_told_apart_from_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match=r"a\.jsonl is a pipe or a device"):
        raw_rows(str(tmp_path / "a.jsonl"))


def test_pictures_in_a_dataset_are_refused_by_name_and_not_decoded() -> None:
    from datasets import Dataset, Features, Image, Value

    features = Features(
        {**dict.fromkeys(["prompt", "chosen", "rejected"], Value("string")), "image": Image()}
    )
    picture = {"bytes": b"no picture at all", "path": None}
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b", "image": picture}]
    (fault,) = read(Dataset.from_list(rows, features=features))
    assert isinstance(fault, Fault)
    assert (fault.field, fault.kind) == ("image", "images")


def test_a_dataset_that_breaks_while_it_is_read_is_a_fault() -> None:
    from datasets import IterableDataset

    def rows() -> Any:
        yield {"text": "a"}
        raise RuntimeError("the\nnetwork is gone")

    first, fault = read(IterableDataset.from_generator(rows))
    assert isinstance(first, Record)
    assert isinstance(fault, Fault)
    assert (fault.row, "the network is gone" in str(fault)) == (2, True)


@pytest.mark.parametrize("name", ["pairs.json", "pair.jsonl", "pairs"])
def test_a_name_that_is_nearly_right_is_told_the_right_one(name: str, tmp_path: Path) -> None:
    """A hub name too, where a file begins like it: asking the hub takes half a minute to fail."""
    (tmp_path / "pairs.jsonl").write_text('{"text": "a"}')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path.parent)
        patch.setattr("datasets.load_dataset", None)
        with pytest.raises(DataError, match=r"no such file: .*; did you mean `pairs\.jsonl`\?"):
            raw_rows(f"{tmp_path.name}/{name}")
