"""What a page is told: turns in their roles, tools, earlier answers in terms of places, and nothing that gives away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from likelier.data.reading import read
from likelier.labelling.items import build_items
from likelier.labelling.view import turn_view
from tests.labelling.desks import answer, choosing, given, open_desk

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "<Rome>"}}}
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "sunny"},
    {"role": "user", "content": "And?"},
]


def view(path: Path, row: dict[str, Any], **plan: Any) -> dict[str, Any]:
    desk = open_desk(path / "s", build_items(read([row]), rank=True).items, **plan)
    return turn_view(desk.next("ann", "a"), desk.state)


def test_turns_and_tools(tmp_path: Path) -> None:
    row = {"prompt": CHAT, "completions": ["It is *sunny*.", "No idea."], "tools": [CALL]}
    item = view(tmp_path, row)["item"]
    assert [turn["speaker"] for turn in item["prompt"]] == ["System", "Person", "Assistant", "Tool", "Person"]
    assert "weather" in item["tools"]
    assert "&lt;Rome&gt;" in item["prompt"][2]["html"]
    assert sorted(answer["turns"][0]["html"] for answer in item["answers"]) == [
        "<p>It is <em>sunny</em>.</p>\n",
        "<p>No idea.</p>\n",
    ]
    assert {answer["turns"][0]["speaker"] for answer in item["answers"]} == {""}
    assert {answer["text"] for answer in item["answers"]} == {"It is *sunny*.", "No idea."}


def test_a_transcript_is_shown_as_turns_and_raw_text_as_it_is(tmp_path: Path) -> None:
    transcript = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant:"
    item = view(tmp_path, {"prompt": transcript, "completions": [" Bye", " No"]})["item"]
    assert [turn["speaker"] for turn in item["prompt"]] == ["Person", "Assistant", "Person"]
    (tmp_path / "raw").mkdir()
    (turn,) = view(tmp_path / "raw", {"prompt": "  The cat", "completions": [" sat", " ran"]})["item"][
        "prompt"
    ]
    assert (turn["speaker"], turn["plain"]) == ("Prompt", '<div class="plain">  The cat</div>')


def test_an_answer_of_several_turns_says_who_speaks(tmp_path: Path) -> None:
    long = [
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
    ]
    short = [{"role": "assistant", "content": "d"}]
    item = view(tmp_path, {"prompt": CHAT[:2], "chosen": long, "rejected": short})["item"]
    speakers = sorted([turn["speaker"] for turn in answer["turns"]] for answer in item["answers"])
    assert speakers == [[""], ["Assistant", "Person", "Assistant"]]


def test_nothing_gives_away_where_an_answer_comes_from_nor_that_it_comes_again(tmp_path: Path) -> None:
    row = {"id": "gpt-9-vs-us", "prompt": "p", "chosen": "a", "rejected": "b", "source": "gpt-9", "model": "gpt-9",
           "score_chosen": 9, "score_rejected": 1, "margin": 3.5}  # fmt: skip
    rows = [row, row | {"id": "2", "prompt": "q"}]
    desk = open_desk(tmp_path / "s", build_items(read(rows)).items, repeat_share=1.0)
    turn = desk.next("ann", "a")
    first = turn_view(turn, desk.state)
    turn = answer(desk, "ann", "a", given(turn))
    turn = answer(desk, "ann", "a", given(turn))
    again = turn_view(turn, desk.state)
    assert again["item"].keys() == first["item"].keys()
    assert again["item"]["prompt"] == first["item"]["prompt"]
    assert again["item"]["answers"] == first["item"]["answers"][::-1]
    for told in (first, again):
        assert "gpt-9" not in json.dumps(told)
        assert "3.5" not in json.dumps(told)
    assert again["item"]["previous"] is None


def test_an_answer_that_was_taken_back_comes_in_terms_of_places(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "s", build_items(read([{"prompt": "p", "completions": ["a", "b"]}])).items)
    turn = answer(desk, "ann", "a", choosing(desk.next("ann", "a"), 1, reason="r"))
    assert turn.undo is not None
    item = turn_view(desk.undo("ann", "a", "k", turn.undo), desk.state)["item"]
    place = next(at for at, answer in enumerate(item["answers"]) if answer["text"] == "b")
    assert item["previous"] == {"verdict": "preference", "reason": "r", "ranking": [[place], [1 - place]]}
