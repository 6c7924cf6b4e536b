"""From labels to rows: every verdict, every policy, what is left out and why; and the rows read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from likelier.data.reading import load_records, read
from likelier.labelling.desk import Desk
from likelier.labelling.events import Verdict
from likelier.labelling.export import BOTH_BAD, DISAGREEMENT, SKIPPED, TIE, UNLABELLED, export
from likelier.labelling.items import ONE_ANSWER, REPEATED, TOO_MANY, UNUSABLE, Item, build_items
from likelier.labelling.turns import Turn
from likelier.labelling.votes import NO_MAJORITY
from tests.labelling.desks import answer, choosing, given, open_desk, pairs

KINDS: dict[str, tuple[Verdict, list[list[int]]]] = {
    "0": ("preference", [[0], [1]]),
    "1": ("preference", [[1], [0]]),
    "t": ("tie", [[0, 1]]),
    "b": ("both_bad", [[0, 1]]),
    "s": ("skip", []),
}


def say(desk: Desk, name: str, turn: Turn, kind: str, **more: Any) -> Turn:
    """An annotator's word in terms of the item's answers."""
    verdict, ranking = KINDS[kind]
    assert turn.showing is not None
    placed = [[turn.showing.order.index(index) for index in group] for group in ranking]
    return answer(desk, name, name, given(turn, placed, verdict=verdict, **more))


def labelled(path: Path, words: list[str]) -> Desk:
    """Item n has the labels of words[n], one letter per annotator; `.` is none."""
    overlap = max(map(len, words))
    desk = open_desk(path / "s", pairs(len(words)), overlap=overlap, repeat_share=0.0)
    for number in range(overlap):
        name = f"p{number}"
        turn = desk.next(name, name)
        for word in words:
            if number < len(word) and word[number] != ".":
                turn = say(desk, name, turn, word[number])
    return desk


def test_every_verdict_makes_its_own_row(tmp_path: Path) -> None:
    rows = export(
        labelled(tmp_path, ["0", "1", "t", "b"]).state, ties="keep", disagreements="majority"
    ).preferences
    assert [rows[0]["chosen"], rows[0]["rejected"]] == ["one 0", "two 0"]
    assert [rows[1]["chosen"], rows[1]["rejected"]] == ["two 1", "one 1"]
    assert [rows[2]["a"], rows[2]["b"], rows[2]["winner"]] == ["one 2", "two 2", "tie"]
    assert [rows[3]["a"], rows[3]["b"], rows[3]["winner"]] == ["one 3", "two 3", "both_bad"]
    assert [row["id"] for row in rows] == ["row0", "row1", "row2", "row3"]
    records, faults = load_records(rows)
    assert faults == []
    assert [record.ranking for record in records] == [[[0], [1]], [[0], [1]], [[0, 1]], [[0, 1]]]
    assert [record.verdict for record in records] == [None, None, "tie", "both_bad"]


@pytest.mark.parametrize(
    ("ties", "disagreements", "kept", "left_out"),
    [
        ("keep", "majority", ["0", "1", "2", "3", "4"], {NO_MAJORITY: 2, UNLABELLED: 1, SKIPPED: 1}),
        ("drop", "majority", ["0", "1", "2"], {NO_MAJORITY: 2, UNLABELLED: 1, SKIPPED: 1, TIE: 1, BOTH_BAD: 1}),
        ("keep", "drop", ["0", "1", "4"], {DISAGREEMENT: 4, UNLABELLED: 1, SKIPPED: 1}),
        ("drop", "drop", ["0", "1"], {DISAGREEMENT: 4, UNLABELLED: 1, SKIPPED: 1, BOTH_BAD: 1}),
        ("drop", "all", ["0"] * 3 + ["1"] * 3 + ["2"] * 3 + ["3"] + ["5"] * 2 + ["6"],
         {UNLABELLED: 1, SKIPPED: 1, TIE: 3, BOTH_BAD: 3}),
    ],
)  # fmt: skip
def test_policies(
    tmp_path: Path, ties: Any, disagreements: Any, kept: list[str], left_out: dict[str, int]
) -> None:
    """Labels of nine items by three annotators: two draws, one item that nobody saw, one that all skipped."""
    words = ["000", "111", "001", "t0t", "bbb", "01s", "1ts", "...", "sss"]
    exported = export(labelled(tmp_path, words).state, ties=ties, disagreements=disagreements)
    assert [row["id"].removeprefix("row") for row in exported.preferences] == kept
    assert dict(exported.left_out) == left_out


def test_the_decision_of_an_adjudicator_goes_before_all(tmp_path: Path) -> None:
    desk = labelled(tmp_path, ["01", "00"])
    for item in pairs(2):
        turn = desk.adjudicate("eve", "e", item.id)
        say(desk, "eve", turn, "1", reason="the facts")
    for policy in ("majority", "drop", "all"):
        rows = export(desk.state, ties="keep", disagreements=policy).preferences  # type: ignore[arg-type]
        assert [row["chosen"] for row in rows] == ["two 0", "two 1"]
        assert {(row["labeller"], row["reason"], row["adjudicated"]) for row in rows} == {
            ("human eve", "the facts", True)
        }


def test_neither_a_repeat_nor_a_decision_is_a_second_label(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "s", pairs(2), repeat_share=1.0)
    turn = desk.next("ann", "ann")
    for kind in "001":  # the third is the first item again
        turn = say(desk, "ann", turn, kind)
    assert [bool(again.answer) for again in desk.state.repeats["ann"].values()] == [True, False]
    assert [row["chosen"] for row in _exported(desk)] == ["one 0", "one 1"]
    say(desk, "eve", desk.adjudicate("eve", "e", pairs(2)[1].id), "1")
    assert [list(desk.state.labels[item.id]) for item in pairs(2)] == [["ann"], ["ann"]]
    assert [row["chosen"] for row in _exported(desk)] == ["one 0", "two 1"]


def _exported(desk: Desk) -> list[dict[str, Any]]:
    return export(desk.state, ties="keep", disagreements="majority").preferences


def test_rows_say_who_when_why_and_how_many(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "s", pairs(1), overlap=3, strength=True)
    for name, kind, more in (
        ("ann", "0", {"reason": "clear", "strength": 3}),
        ("ben", "0", {"reason": "short", "strength": 2}),
        ("eve", "1", {"reason": "wrong"}),
    ):
        turn = desk.next(name, name)
        desk.flag(name, f"flag {name}", turn.showing.id, f"odd {name}")  # type: ignore[union-attr]
        say(desk, name, turn, kind, **more)
    exported = export(desk.state, ties="keep", disagreements="majority")
    (row,) = exported.preferences
    assert row["labeller"] == "human ann, ben, eve"
    assert row["reason"] == "clear; short"
    assert (row["labels"], row["agreeing"], row["strength"]) == (3, 2, 2.5)
    assert row["flags"] == ["odd ann", "odd ben", "odd eve"]
    assert row["time"] == desk.state.events[-1].time
    assert exported.incomplete == 0


def test_items_with_too_few_labels_are_told_of(tmp_path: Path) -> None:
    exported = export(labelled(tmp_path, ["00", "0."]).state, ties="keep", disagreements="majority")
    assert (len(exported.preferences), exported.incomplete) == (2, 1)


def sampled(*, chat: bool = False) -> Item:
    prompt: Any = [{"role": "user", "content": "Hi"}] if chat else "Hi"
    answers = [
        {"text": "a", "tokens": [1, 2], "finish": "stop"},
        {"text": "b", "tokens": [3], "finish": "length"},
    ]
    tools = {"tools": [{"type": "function", "function": {"name": "f"}}]} if chat else {}
    rows = [{"id": "x", "prompt": prompt, "completions": answers, "source": "s", "weight": 2.0, **tools}]
    (item,) = build_items(read(rows)).items
    return item


@pytest.mark.parametrize("chat", [False, True])
def test_tokens_and_finish_are_handed_on(tmp_path: Path, chat: bool) -> None:
    desk = open_desk(tmp_path / "s", [sampled(chat=chat)])
    answer(desk, "ann", "a", choosing(desk.next("ann", "a"), 1, edit="c"))
    exported = export(desk.state, ties="keep", disagreements="majority")
    (record,) = load_records(exported.preferences)[0]
    assert [completion.tokens for completion in record.completions] == [[3], [1, 2]]
    assert [completion.finish for completion in record.completions] == ["length", "stop"]
    assert (record.source, record.weight, bool(record.tools)) == ("s", 2.0, chat)
    (better,) = load_records(exported.better_answers)[0]
    wanted = [{"role": "assistant", "content": "c"}] if chat else "c"
    assert [completion.content for completion in better.completions] == [wanted]
    assert better.completions[0].tokens is None
    assert bool(better.tools) == chat


def test_an_answer_that_is_taken_back_leaves_no_row(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "s", pairs(1))
    turn = answer(desk, "ann", "a", given(desk.next("ann", "a"), edit="better"))
    assert turn.undo is not None
    desk.undo("ann", "a", "undo", turn.undo)
    exported = export(desk.state, ties="keep", disagreements="majority")
    assert (exported.preferences, exported.better_answers) == ([], [])
    assert dict(exported.left_out) == {UNLABELLED: 1}


def ranked(*rankings: list[list[int]], path: Path) -> Any:
    rows = [{"id": "k", "prompt": "Hi", "completions": ["a", "b", "c"]}]
    desk = open_desk(path, build_items(read(rows), rank=True).items, overlap=len(rankings))
    for number, ranking in enumerate(rankings):
        name = f"p{number}"
        turn = desk.next(name, name)
        assert turn.showing is not None
        placed = [[turn.showing.order.index(index) for index in group] for group in ranking]
        answer(desk, name, name, given(turn, placed))
    return desk.state


def test_rankings(tmp_path: Path) -> None:
    state = ranked([[2], [0, 1]], path=tmp_path / "s")
    (row,) = export(state, ties="keep", disagreements="majority").preferences
    assert (row["completions"], row["ranking"]) == (["a", "b", "c"], [[2], [0, 1]])
    (record,) = load_records([row])[0]
    assert record.ranking == [[2], [0, 1]]


def test_the_majority_of_rankings_is_taken_two_by_two(tmp_path: Path) -> None:
    state = ranked([[0], [1], [2]], [[0], [2], [1]], [[1], [0], [2]], path=tmp_path / "s")
    (row,) = export(state, ties="keep", disagreements="majority").preferences
    assert (row["ranking"], row["labels"], row["agreeing"]) == ([[0], [1], [2]], 3, 1)
    circle = ranked([[0], [1], [2]], [[1], [2], [0]], [[2], [0], [1]], path=tmp_path / "t")
    assert dict(export(circle, ties="keep", disagreements="majority").left_out) == {
        "a majority that goes in a circle": 1
    }
    assert len(export(circle, ties="keep", disagreements="all").preferences) == 3


def test_items_of_rows() -> None:
    rows = [
        {"prompt": "p", "completions": ["a", "b", "c"]},
        {
            "prompt": "p",
            "chosen": "a",
            "rejected": "b",
            "margin": 3.0,
            "score_chosen": 1,
            "score_rejected": 0,
        },
        {"prompt": "q", "a": "x", "b": "y", "winner": "b"},
        {"prompt": "q", "completion": "x"},
        {"prompt": "q", "completions": ["x", "x"]},
        {"prompt": "q"},
        {"prompt": "many", "completions": list("abcdefghij")},
    ]
    built = build_items(read(rows))
    assert [item.record.id for item in built.items][:4] == ["1:1-2", "1:1-3", "1:2-3", "3"]
    assert len(built.items) == 4 + 45
    assert built.left_out == {REPEATED: 1, ONE_ANSWER: 2, UNUSABLE: 1}
    assert all(
        item.record.ranking is item.record.scores is item.record.verdict is None for item in built.items
    )
    assert {item.record.margin for item in built.items} == {0.0}
    whole = build_items(read(rows), rank=True)
    assert [item.count for item in whole.items] == [3, 2, 2]
    assert whole.left_out[TOO_MANY] == 1


def test_a_limit_of_pairs_is_drawn_by_the_seed() -> None:
    rows = [{"prompt": f"p{number}", "completions": list("abcd")} for number in range(30)]
    chosen = [
        [item.record.id for item in build_items(read(rows), pairs_per_prompt=2, seed=seed).items]
        for seed in (0, 0, 1)
    ]
    assert len(chosen[0]) == 60
    assert chosen[0] == chosen[1] != chosen[2]
