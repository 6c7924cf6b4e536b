"""CSV and Parquet where they are odd: a fault costs its row, a wrong header the file, and both say why."""

from __future__ import annotations

import decimal
from pathlib import Path
from typing import Any

import pytest

from likelier.data.faults import Fault
from likelier.data.reading import read
from likelier.data.records import Record
from likelier.errors import DataError

HEADER = b"prompt,chosen,rejected\n"


def kinds(path: Path) -> list[Any]:
    """Row by row, the chosen answer or the kind of fault."""
    items = list(read(path))
    assert [item.row for item in items] == list(range(1, len(items) + 1))
    return [item.kind if isinstance(item, Fault) else item.completions[0].content for item in items]


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def parquet(path: Path, **columns: Any) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path)
    return path


def test_bytes_that_are_not_utf8_cost_their_row_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", HEADER + b"p,one,x\np,\xff,x\np,\xc3\xa9,x\n")
    assert kinds(path) == ["one", "malformed", "é"]
    _, fault, _ = read(path)
    assert isinstance(fault, Fault)
    assert (fault.field, "`chosen` holds bytes that are not UTF-8" in fault.message) == ("chosen", True)


@pytest.mark.parametrize(
    ("rows", "said"),
    [(b'p,one,x\np,"two,x\np,three,x\n', "never closed"), (b'p,one,x\np,"two" 2,x\np,three,x\n', "twice")],
)
def test_wrong_quotes_are_named_with_their_row_and_end_the_file(
    rows: bytes, said: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.csv", HEADER + rows)
    assert kinds(path) == ["one", "malformed"]
    fault = list(read(path))[-1]
    assert said in str(fault)
    assert "the rest of the file cannot be read" in str(fault)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"prompt,chosen,chosen,rejected\np,a,b,c\n", "two columns are named 'chosen'"),
        ("a.csv", b"prompt;chosen;rejected\na;b;c\n", "parted by `;`"),
        ("a.csv", b"prompt\tchosen\trejected\na\tb\tc\n", r"save it as \.tsv with a tab"),
        ("a.tsv", HEADER + b"a,b,c\n", r"save it as \.csv with a comma"),
        ("a.csv", b"\xff\x00\x80\x81\n", "not UTF-8"),
        ("a.csv", "prompt,chosen\na,b\n".encode("utf-16"), "UTF-16"),
    ],
)
def test_a_wrong_header_is_an_error_of_the_file(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{name}.*{said}"):
        list(read(written(tmp_path / name, content)))


def test_a_nameless_first_column_is_no_fault(tmp_path: Path) -> None:
    """pandas writes its index so; two of them are still no column that a format reads."""
    assert kinds(written(tmp_path / "a.csv", b",,prompt,chosen,rejected\n0,7,p,one,x\n")) == ["one"]


def test_two_parquet_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [pa.array([text]) for text in "pabc"]
    table = pa.table(columns, names=["prompt", "chosen", "chosen", "rejected"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="two columns are named 'chosen'"):
        list(read(tmp_path / "a.parquet"))


def test_a_parquet_value_that_is_not_utf8_costs_its_row_alone(tmp_path: Path) -> None:
    import pyarrow as pa

    raw = pa.array([b"one", b"\xff\xfe", b"three"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    path = parquet(tmp_path / "a.parquet", prompt=["p"] * 3, chosen=text, rejected=["x"] * 3)
    assert kinds(path) == ["one", "malformed", "three"]


@pytest.mark.parametrize("value", [decimal.Decimal("0.5"), 0.5])
def test_numbers_of_databases_are_numbers(value: Any, tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", prompt=["p"], chosen=["a"], rejected=["b"], weight=[value])
    (record,) = read(path)
    assert isinstance(record, Record)
    assert (record.weight, type(record.weight)) == (0.5, float)


@pytest.mark.parametrize("value", ["NaN", "sNaN", "Infinity", "1e999"])
def test_decimals_that_are_no_number_are_faults(value: str) -> None:
    (fault,) = read([{"prompt": "p", "chosen": "a", "rejected": "b", "weight": decimal.Decimal(value)}])
    assert isinstance(fault, Fault)
    assert (fault.field, fault.kind) == ("weight", "not finite")


@pytest.mark.parametrize("values", [[1], [b"p"], [[("a", 1)]], [1.5], [True], [None]])
def test_prompts_of_other_types_are_faults(values: list[Any], tmp_path: Path) -> None:
    import pyarrow as pa

    odd = pa.array(values, pa.map_(pa.string(), pa.int64())) if isinstance(values[0], list) else values
    (fault,) = read(parquet(tmp_path / "a.parquet", prompt=odd, chosen=["a"], rejected=["b"]))
    assert isinstance(fault, Fault)
    assert (fault.field or "").startswith("prompt")


def test_text_of_every_arrow_kind_is_text(tmp_path: Path) -> None:
    import pyarrow as pa

    large, coded = pa.array(["p"], pa.large_string()), pa.array(["one"]).dictionary_encode()
    assert kinds(parquet(tmp_path / "a.parquet", prompt=large, chosen=coded, rejected=["x"])) == ["one"]
