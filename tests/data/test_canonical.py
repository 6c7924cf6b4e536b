"""A record written and read is the same record."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likelier.data.canonical import canonical_row, digest
from likelier.data.reading import read
from likelier.data.records import Completion, Record

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=6)
ANSWER_TEXT = WORDS.filter(lambda text: bool(text.strip()))
NUMBER = st.floats(-1e6, 1e6)


def turns(role: str) -> st.SearchStrategy[Any]:
    return ANSWER_TEXT.map(lambda text: [{"role": role, "content": text}])


def completion(structured: bool) -> st.SearchStrategy[Completion]:
    return st.builds(
        Completion,
        content=turns("assistant") if structured else WORDS,
        tokens=st.none() | st.lists(st.integers(0, 99), min_size=1, max_size=3),
        finish=st.sampled_from([None, "stop", "length"]),
    )


@st.composite
def records(draw: st.DrawFn) -> Record:
    structured = draw(st.booleans())
    count = draw(st.integers(1, 4))
    answers = draw(
        st.lists(completion(structured), min_size=count, max_size=count, unique_by=lambda c: str(c.content))
    )
    order = draw(st.permutations(range(count)))
    cut = draw(st.integers(1, count))
    details: dict[str, Any] = {"ranking": [[*order[:cut]], *([i] for i in order[cut:])]}
    if count == 1 and draw(st.booleans()):
        details["label"] = draw(st.booleans())
    elif count == 2 and draw(st.booleans()):
        details |= {"ranking": [[0, 1]], "verdict": draw(st.sampled_from(["tie", "both_bad"]))}
    elif draw(st.booleans()):
        details["scores"] = draw(st.lists(NUMBER, min_size=count, max_size=count))
    return Record(
        file="<rows>",
        row=1,
        id=draw(WORDS),
        prompt=draw(turns("user") if structured else WORDS),
        completions=answers,
        weight=abs(draw(NUMBER)),
        margin=draw(NUMBER),
        source=draw(st.none() | WORDS),
        tools=draw(st.none() | st.just([{"name": "f", "parameters": {"x": None}}])) if structured else None,
        chat_template_kwargs={"thinking": draw(st.booleans())} if structured else {},
        **details,
    )


@given(record=records())
def test_every_record_reads_back_as_it_was(record: Record) -> None:
    assert list(read([json.loads(json.dumps(canonical_row(record)))])) == [record]


@pytest.mark.parametrize(
    ("row", "written"),
    [
        ({"text": "x"}, {"id": "1", "text": "x"}),
        ({"prompt": "p", "completions": ["x", "y"]}, {"id": "1", "prompt": "p", "completions": ["x", "y"]}),
        ({"prompt": "p", "chosen": "x", "rejected": "y", "weight": 2}, None),
    ],
)
def test_the_form_is_the_plainest(row: dict[str, Any], written: dict[str, Any] | None) -> None:
    (record,) = read([row])
    assert isinstance(record, Record)
    assert canonical_row(record) == (written or {"id": "1", **row})
    assert list(read([canonical_row(record)])) == [record]


def test_digests_tell_text_from_turns_and_not_the_order_of_keys() -> None:
    turn = [{"role": "user", "content": "x"}]
    assert digest(turn) == digest([{"content": "x", "role": "user"}])
    assert len({digest(turn), digest(json.dumps(turn)), digest("x"), digest(["x"]), digest("")}) == 5
    assert digest("\ud800") != digest("\udfff")


def test_records_differ_where_any_content_does() -> None:
    (record,) = read([{"prompt": "p", "chosen": "x", "rejected": "y"}])
    assert isinstance(record, Record)
    for change in ({"weight": 2.0}, {"margin": 1.0}, {"source": "s"}, {"scores": [1.0, 0.0]}, {"id": "2"}):
        assert canonical_row(replace(record, **change)) != canonical_row(record)
