"""Whatever JSON or bytes a file holds: a record, a fault, or one named error, and what is read reads back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from likelier.data.canonical import canonical_row
from likelier.data.checks import TextChecks
from likelier.data.encoding import encode
from likelier.data.faults import Fault
from likelier.data.formats import FORMATS, known_columns
from likelier.data.reading import read
from likelier.data.records import Record
from likelier.data.tokens import Tokenization
from likelier.errors import DataError
from tests.data.tiny_tokenizers import byte_level

TOKENS = Tokenization(byte_level())
WORDS = st.sampled_from(
    ["a", "", " ", "\n", "b c", "\ud800", "\0", "é", "user", "assistant", "system", "human", "gpt"]
)
NUMBERS = st.sampled_from([0, 1, -1, 2, 0.5, 10**20, float("nan"), float("inf"), True, False, None])
TURN = st.fixed_dictionaries({"role": WORDS, "content": WORDS}) | st.fixed_dictionaries(
    {"from": WORDS, "value": WORDS}
)
TURNS = st.lists(TURN, max_size=4)
GOOD_TURNS = st.just([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
LEAF = WORDS | NUMBERS | TURN | TURNS | GOOD_TURNS
ANY = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=5
)
ROW = st.dictionaries(
    st.sampled_from(sorted(known_columns() | {"images", "input", "replies"})), ANY, max_size=7
)
TURN_COLUMNS = {"messages", "conversations", "context"}
NODE = {"message_id": "m", "role": "prompter", "text": "t"}
REPLIES = [{**NODE, "role": "assistant", "text": text, "rank": rank} for rank, text in enumerate("xy")]


def usable(column: str) -> Any:
    """What a column may hold."""
    if column in TURN_COLUMNS:
        return GOOD_TURNS
    kinds = {
        "label": st.booleans(),
        "winner": st.sampled_from(["a", "b", "tie", "both_bad"]),
        "completions": st.sampled_from(
            [["x", "y", "z"], [{"text": "x", "tokens": [10**6]}, {"text": "y", "finish": "length"}]]
        ),
        "scores": st.lists(st.integers(0, 2), min_size=2, max_size=3),
        "labels": st.integers(0, 1),
        "message_tree_id": st.just("t"),
        "replies": st.just(REPLIES),
    }
    numbers = {"annotator1", "helpfulness", "overall_preference", "preference_strength"}
    return kinds.get(column, st.integers(0, 2) if column in numbers else st.sampled_from(["a", "b c", "d"]))


def columns(names: list[str]) -> Any:
    """A row with these columns, all usable but for one, perhaps."""
    more = {"system": WORDS, "id": LEAF, "scores": usable("scores"), "weight": NUMBERS}
    optional = {name: cell for name, cell in more.items() if name not in names}
    whole = st.fixed_dictionaries({name: usable(name) for name in names}, optional=optional)
    damaged = st.builds(lambda row, name, value: row | {name: value}, whole, st.sampled_from(names), ANY)
    return whole | damaged


FORM = st.sampled_from([sorted({"prompt", *form.columns}) for form in FORMATS]).flatmap(columns)
TREE = st.fixed_dictionaries(
    {"message_tree_id": st.just("t"), "prompt": st.just({**NODE, "replies": REPLIES}) | ANY}
)
EXAMPLES = 400
FEW = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])


FIELDS = (
    "id",
    "prompt",
    "completions",
    "ranking",
    "scores",
    "label",
    "verdict",
    "weight",
    "margin",
    "source",
)


def assert_one_or_the_other(rows: list[Any], as_messages: bool) -> None:
    """Every row is accounted for; what is usable can be checked, written, read again, and made tokens of."""
    items = list(read(rows, as_messages=as_messages))
    assert {item.row for item in items} <= set(range(1, len(rows) + 1))
    checks = TextChecks()
    for item in items:
        checks.add(item)
        if isinstance(item, Fault):
            assert str(item).isprintable()
            assert item.kind
            continue
        written = json.loads(json.dumps(canonical_row(item), allow_nan=False))
        (again,) = read([written])
        assert isinstance(again, Record), (item, again)
        assert [getattr(again, name) for name in FIELDS] == [getattr(item, name) for name in FIELDS]
    checks.summary()
    records = [item for item in items if isinstance(item, Record)]
    encoded = encode(records, TOKENS, need="completions", max_length=64, cut_answers=True)
    told = {(fault.file, fault.row) for fault in encoded.refused}
    planted = {records[place[0]].row for tree in encoded.trees for source in tree.sources for place in source}
    silent = [r for r in records if r.completions and r.row not in planted and (r.file, r.row) not in told]
    assert not silent


@FEW
@given(rows=st.lists(FORM | FORM | TREE | ROW | ANY, min_size=1, max_size=4), as_messages=st.booleans())
def test_any_json_is_a_record_or_a_fault(rows: list[Any], as_messages: bool) -> None:
    if all(isinstance(row, str) for row in rows):
        rows = [{"text": row} for row in rows]  # a list of strings is a list of names of files
    assert_one_or_the_other([{}, *rows], as_messages)


GOOD = {"prompt": "How are you?", "chosen": " Fine.", "rejected": ' "No", é', "weight": 0.5}
CONTENTS = {
    "a.jsonl": "\n".join(json.dumps({**GOOD, "id": n}, ensure_ascii=False) for n in range(3)).encode(),
    "a.json": json.dumps([{**GOOD, "id": n} for n in range(3)], indent=1).encode(),
    "a.csv": b'prompt,chosen,rejected,weight\n"a, b",c,"d ""e""",0.5\nx,"y\nz",\xc3\xa9,\n',
}


@pytest.mark.parametrize("name", CONTENTS)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    at=st.integers(0, 10**6),
    length=st.integers(0, 8),
    put=st.binary(max_size=4)
    | st.sampled_from([b'"', b"{", b"}", b"[", b",", b"\\", b"\n", b"\r", b"\0", b"\xff"]),
)
def test_any_damage_is_a_record_a_fault_or_a_named_error(
    name: str, at: int, length: int, put: bytes, tmp_path: Path
) -> None:
    content = CONTENTS[name]
    at %= len(content)
    path = tmp_path / name
    path.write_bytes(content[:at] + put + content[at + length :])
    told = None
    items: list[Any] = []
    try:
        items = list(read(path))
    except DataError as error:
        told = str(error)
    if told is not None:
        assert str(path) in told
        assert told.isprintable()
        return
    assert items
    for item in items:
        assert isinstance(item, (Record, Fault))
        assert item.file == str(path)
        assert item.row >= 1
