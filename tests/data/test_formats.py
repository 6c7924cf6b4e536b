"""Each format on small rows: the record it must give."""

from __future__ import annotations

import json
from typing import Any

import pytest

from likelier.data.faults import Fault
from likelier.data.formats import FORMATS
from likelier.data.reading import read
from likelier.data.records import Completion, Record
from likelier.errors import UsageError

HH = "\n\nHuman: Hi\n\nAssistant:"


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def bot(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def one(row: dict[str, Any], **options: Any) -> Record:
    (record,) = read([row], **options)
    assert isinstance(record, Record), record
    return record


def contents(record: Record) -> list[Any]:
    return [completion.content for completion in record.completions]


PAIRS: dict[str, tuple[dict[str, Any], Any, list[Any]]] = {
    "strings": ({"prompt": "p", "chosen": "x", "rejected": "y"}, "p", ["x", "y"]),
    "turns": (
        {"prompt": [user("p")], "chosen": [bot("x")], "rejected": [bot("y")]},
        [user("p")],
        [[bot("x")], [bot("y")]],
    ),
    "a turn alone": (
        {"prompt": [user("p")], "chosen": bot("x"), "rejected": bot("y")},
        [user("p")],
        [[bot("x")], [bot("y")]],
    ),
    "string answers to turns": (
        {"prompt": [user("p")], "chosen": "x", "rejected": "y"},
        [user("p")],
        [[bot("x")], [bot("y")]],
    ),
    "turns to a string": (
        {"prompt": "p", "chosen": [bot("x")], "rejected": [bot("y")]},
        [user("p")],
        [[bot("x")], [bot("y")]],
    ),
    "transcripts": ({"chosen": HH + " x", "rejected": HH + " y"}, HH, [" x", " y"]),
    "transcripts with their prompt": (
        {"prompt": HH, "chosen": HH + " x", "rejected": HH + " y"},
        HH,
        [" x", " y"],
    ),
    "conversations": (
        {"chosen": [user("p"), bot("x")], "rejected": [user("p"), bot("y")]},
        [user("p")],
        [[bot("x")], [bot("y")]],
    ),
    "ultrafeedback binarized": (
        {"prompt": "p", "prompt_id": "1", "chosen": [user("p"), bot("x")], "rejected": [user("p"), bot("y")]}
        | {"messages": [user("p"), bot("x")], "score_chosen": 8.0, "score_rejected": 2.5},
        [user("p")],
        [[bot("x")], [bot("y")]],
    ),
    "turns with the prompt in front": (
        {"prompt": [user("p")], "chosen": [user("p"), bot("x")], "rejected": [user("p"), bot("y")]},
        [user("p")],
        [[bot("x")], [bot("y")]],
    ),
    "system": (
        {"system": "s", "prompt": "p", "chosen": "x", "rejected": "y"},
        [{"role": "system", "content": "s"}, user("p")],
        [[bot("x")], [bot("y")]],
    ),
    "winner a": ({"prompt": "p", "a": "x", "b": "y", "winner": "a"}, "p", ["x", "y"]),
    "winner b": ({"prompt": "p", "a": "x", "b": "y", "winner": "b"}, "p", ["y", "x"]),
    "shp A": ({"history": "p", "human_ref_A": "x", "human_ref_B": "y", "labels": 1}, "p", ["x", "y"]),
    "shp B": ({"history": "p", "human_ref_A": "x", "human_ref_B": "y", "labels": 0}, "p", ["y", "x"]),
    "helpsteer2 first": (
        {"prompt": "p", "response_1": "x", "response_2": "y", "preference_strength": -2},
        "p",
        ["x", "y"],
    ),
    "helpsteer2 second": (
        {"prompt": "p", "response_1": "x", "response_2": "y", "preference_strength": 1},
        "p",
        ["y", "x"],
    ),
    "helpsteer3": (
        {"context": [user("p")], "response1": "x", "response2": "y", "overall_preference": 3},
        [user("p")],
        [[bot("y")], [bot("x")]],
    ),
    "pandalm": (
        {"instruction": "i", "input": "p", "response1": "x", "response2": "y"}
        | {"annotator1": 2, "annotator2": 1, "annotator3": 2},
        "i\np",
        ["y", "x"],
    ),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "p"}]}
        | {"chosen": {"from": "gpt", "value": "x"}, "rejected": {"from": "gpt", "value": "y"}},
        [user("p")],
        [[bot("x")], [bot("y")]],
    ),
    "alpaca": (
        {"instruction": "i", "input": "p", "chosen": "x", "rejected": "y", "history": [["q", "r"]]},
        [user("q"), bot("r"), user("i\np")],
        [[bot("x")], [bot("y")]],
    ),
    "alpaca, old": (
        {"instruction": "i", "input": "", "output": ["x", "y"]},
        [user("i")],
        [[bot("x")], [bot("y")]],
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_put_the_chosen_answer_first(name: str) -> None:
    row, prompt, answers = PAIRS[name]
    record = one(row)
    assert record.prompt == prompt
    assert contents(record) == answers
    assert (record.ranking, record.verdict, record.label) == ([[0], [1]], None, None)


TIES = {
    "tie": {"prompt": "p", "a": "x", "b": "y", "winner": "tie"},
    "both_bad": {"prompt": "p", "a": "x", "b": "y", "winner": "both_bad"},
    "helpsteer2": {"prompt": "p", "response_1": "x", "response_2": "y", "preference_strength": 0},
    "helpsteer3": {"context": [user("p")], "response1": "x", "response2": "y", "overall_preference": 0},
    "pandalm, all tie": {"instruction": "i", "response1": "x", "response2": "y", "annotator1": 0},
    "pandalm, one each": {"instruction": "i", "response1": "x", "response2": "y"}
    | {"annotator1": 0, "annotator2": 1, "annotator3": 2},
    "pandalm, split": {
        "instruction": "i",
        "response1": "x",
        "response2": "y",
        "annotator1": 1,
        "annotator2": 2,
    },
}


@pytest.mark.parametrize("name", TIES)
def test_ties_are_no_preference(name: str) -> None:
    record = one(TIES[name])
    assert record.ranking == [[0, 1]]
    assert record.verdict == ("both_bad" if name == "both_bad" else "tie")


SINGLE = {
    "completion": ({"prompt": "p", "completion": "x"}, "p", "x", None),
    "unpaired": ({"prompt": "p", "completion": "x", "label": False}, "p", "x", False),
    "labelled turns": (
        {"messages": [user("a"), bot("b"), user("c"), bot("d")], "label": True},
        [user("a"), bot("b"), user("c")],
        [bot("d")],
        True,
    ),
    "turns": (
        {"messages": [user("a"), bot("b"), user("c"), bot("d")]},
        [user("a")],
        [bot("b"), user("c"), bot("d")],
        None,
    ),
    "text": ({"text": "x"}, "", "x", None),
    "sharegpt kto": (
        {"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "x"}], "kto_tag": True},
        [user("p")],
        [bot("x")],
        True,
    ),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "x"}]},
        [user("p")],
        [bot("x")],
        None,
    ),
    "alpaca kto": ({"instruction": "p", "output": "x", "kto_tag": False}, [user("p")], [bot("x")], False),
    "alpaca": ({"instruction": "p", "input": None, "output": "x"}, [user("p")], [bot("x")], None),
}


@pytest.mark.parametrize("name", SINGLE)
def test_single_answers(name: str) -> None:
    row, prompt, answer, label = SINGLE[name]
    record = one(row)
    assert (record.prompt, contents(record), record.label) == (prompt, [answer], label)
    assert record.ranking == [[0]]


def test_rankings_scores_and_unlabelled_samples() -> None:
    row = {"prompt": "p", "completions": ["x", "y", "z"]}
    assert one({**row, "ranking": [[2], [0, 1]]}).ranking == [[2], [0, 1]]
    scored = one({**row, "scores": [1, 2.5, 1]})
    assert (scored.ranking, scored.scores) == ([[1], [0, 2]], [1.0, 2.5, 1.0])
    assert one(row).ranking is None


def test_sampled_answers_keep_their_tokens_and_how_they_ended() -> None:
    sampled = {
        "id": "s",
        "prompt": "p",
        "completions": [{"text": "x", "tokens": [5, 6], "logp": -1, "finish": "length"}, {"text": "y"}],
    }
    assert one(sampled).completions == [
        Completion(content="x", tokens=[5, 6], finish="length"),
        Completion(content="y"),
    ]


@pytest.mark.parametrize(
    "details",
    [
        {"tokens": [[1], [2, 3]], "finish": ["stop", "length"]},
        {"tokens": {"chosen": [1], "rejected": [2, 3]}, "finish": {"chosen": "stop", "rejected": "length"}},
    ],
)
def test_tokens_and_finish_of_pairs(details: dict[str, Any]) -> None:
    record = one({"prompt": "p", "chosen": "x", "rejected": "y", **details})
    assert [answer.tokens for answer in record.completions] == [[1], [2, 3]]
    assert [answer.finish for answer in record.completions] == ["stop", "length"]


def test_ultrafeedback_takes_the_fine_grained_score() -> None:
    answers = [
        {"response": "x", "fine-grained_score": 1.5, "overall_score": 10},
        {"response": "y", "fine-grained_score": 4.0, "overall_score": 7},
        {"response": "z", "fine-grained_score": None, "overall_score": 1.5},
    ]
    record = one({"instruction": "p", "source": "flan", "models": [], "completions": answers})
    assert (record.ranking, record.scores, record.source) == ([[1], [0, 2]], [1.5, 4.0, 1.5], "flan")


def test_helpsteer_gathers_the_rows_of_a_prompt() -> None:
    rows = [
        {"prompt": p, "response": r, "helpfulness": s}
        for p, r, s in [("p", "x", 1), ("p", "y", 4), ("q", "z", 3)]
    ]
    first, second = read(rows)
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert (first.row, contents(first), first.ranking, first.scores) == (
        1,
        ["x", "y"],
        [[1], [0]],
        [1.0, 4.0],
    )
    assert (second.row, contents(second), second.ranking) == (3, ["z"], [[0]])


def test_a_fault_in_a_gathered_row_names_every_row_of_the_group() -> None:
    rows = [{"prompt": "p", "response": r, "helpfulness": 1} for r in ("x", None)]
    faults = list(read([*rows, {"prompt": "q", "chosen": "x", "rejected": "y"}]))
    assert [(type(item), item.row) for item in faults] == [(Fault, 1), (Fault, 2), (Record, 3)]


def message(name: str, role: str, text: str, rank: int | None = None, replies: Any = ()) -> dict[str, Any]:
    return {"message_id": name, "role": role, "text": text, "rank": rank, "replies": list(replies)}


def test_oasst_trees_rank_the_answers_to_each_turn() -> None:
    follow = message(
        "f", "prompter", "more", 0, [message("g", "assistant", "g", 1), message("h", "assistant", "h", 0)]
    )
    answers = [
        message("a", "assistant", "a", 2),
        message("b", "assistant", "b", 0, [follow]),
        message("c", "assistant", "c", 2),
    ]
    answers.append(message("d", "assistant", "unranked"))
    first, second = read([{"message_tree_id": "t", "prompt": message("t", "prompter", "hi", None, answers)}])
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert (first.id, first.prompt, contents(first)) == (
        "t",
        [user("hi")],
        [[bot("a")], [bot("b")], [bot("c")]],
    )
    assert first.ranking == [[1], [0, 2]]
    assert (second.id, second.prompt) == ("f", [user("hi"), bot("b"), user("more")])
    assert second.ranking == [[1], [0]]


def test_oasst_messages_of_the_hub_are_the_same_tree() -> None:
    def flat(name: str, parent: str | None, role: str, rank: int | None) -> dict[str, Any]:
        place = {"message_tree_id": "t", "message_id": name, "parent_id": parent}
        return {**place, "role": role, "text": name, "rank": rank}

    rows = [flat("t", None, "prompter", None), flat("a", "t", "assistant", 1), flat("b", "t", "assistant", 0)]
    (record,) = read(rows)
    assert isinstance(record, Record)
    assert (record.prompt, contents(record), record.ranking) == (
        [user("t")],
        [[bot("a")], [bot("b")]],
        [[1], [0]],
    )
    (fault,) = read(rows[1:2])
    assert isinstance(fault, Fault)
    assert "parent" in fault.message


def test_function_calls_of_sharegpt_become_tool_calls() -> None:
    turns = [
        {"from": "human", "value": "p"},
        {"from": "function_call", "value": json.dumps({"name": "f", "arguments": {"x": 1}})},
        {"from": "observation", "value": "7"},
        {"from": "gpt", "value": "seven"},
    ]
    record = one({"conversations": turns, "tools": json.dumps([{"name": "f"}])})
    assert record.tools == [{"name": "f"}]
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    assert contents(record)[0][0] == {"role": "assistant", "content": "", "tool_calls": [call]}
    assert [turn["role"] for turn in contents(record)[0]] == ["assistant", "tool", "assistant"]


def test_common_columns_are_kept() -> None:
    row = {
        "prompt": [user("p")],
        "chosen": "x",
        "rejected": "y",
        "id": 7,
        "weight": 0.5,
        "margin": -1,
        "source": "s",
    }
    record = one(
        {**row, "tools": [{"name": "f"}], "chat_template_kwargs": {"thinking": False, "other": None}}
    )
    assert (record.id, record.weight, record.margin, record.source) == ("7", 0.5, -1.0, "s")
    assert (record.tools, record.chat_template_kwargs) == ([{"name": "f"}], {"thinking": False})
    bare = one(
        {
            "prompt": "p",
            "chosen": "x",
            "rejected": "y",
            "id": None,
            "weight": None,
            "tools": None,
            "images": None,
        }
    )
    assert (bare.id, bare.weight, bare.tools) == ("1", 1.0, None)


def test_text_in_parts_is_joined() -> None:
    parts = [{"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}]
    assert one({"prompt": [{"role": "user", "content": parts}], "completion": "x"}).prompt == [
        user("Hi there")
    ]


def test_prompts_are_read_where_they_are_asked_for() -> None:
    records = [
        item
        for item in read([{"prompt": "p"}, {"prompt": [user("q")]}, "r"], format="prompts")
        if isinstance(item, Record)
    ]
    assert [record.prompt for record in records] == ["p", [user("q")], "r"]
    assert all(not record.completions for record in records)


def test_a_named_format_is_used() -> None:
    row = {"messages": [user("p"), bot("x")], "prompt": "p", "completion": "y"}
    assert contents(one(row)) == ["y"]
    assert contents(one(row, format="messages")) == [[bot("x")]]


def test_an_unknown_format_is_named_with_its_neighbour() -> None:
    with pytest.raises(UsageError, match=r"unknown format `ultrafeedbak`; did you mean `ultrafeedback`\?"):
        read([], format="ultrafeedbak")
    assert {"hh", "shp", "ultrafeedback", "helpsteer", "helpsteer2", "helpsteer3", "oasst"} <= {
        form.name for form in FORMATS
    }


def test_questions_of_other_projects_are_prompts() -> None:
    rows: list[dict[str, Any]] = [
        {"question_id": 3, "turns": ["Why?"]},
        {"id": "u", "instruction": "Shorten.", "instances": [{"input": "A long text.", "output": "A text."}]},
        {"instruction": "Greet.", "instances": [{"input": "", "output": "Hi"}]},
        {"instruction": "Add.", "input": "1 + 1"},
    ]
    found = [(item.id, item.prompt) for item in read(rows, format="prompts") if isinstance(item, Record)]
    assert found == [("3", "Why?"), ("u", "Shorten.\nA long text."), ("3", "Greet."), ("4", "Add.\n1 + 1")]


@pytest.mark.parametrize(
    ("field", "row"),
    [
        ("turns", {"turns": ["a", "b"]}),
        ("turns", {"turns": []}),
        ("turns", {"turns": "a"}),
        ("turns[0]", {"turns": [1]}),
        ("instances", {"instruction": "i", "instances": "x"}),
        ("instances[0]", {"instruction": "i", "instances": ["x"]}),
        ("input", {"instruction": "i", "instances": [{"input": 3}]}),
        ("instruction", {"instruction": None}),
        ("prompt", {"question": "q"}),
    ],
)
def test_questions_that_are_none_are_faults(field: str, row: dict[str, Any]) -> None:
    (fault,) = read([row], format="prompts")
    assert isinstance(fault, Fault)
    assert fault.field == field


def test_one_transcript_that_holds_its_prompt_is_not_doubled_either() -> None:
    record = one({"prompt": HH, "chosen": HH + " x", "rejected": " y"})
    assert (record.prompt, contents(record)) == (HH, [" x", " y"])
    assert contents(one({"prompt": HH, "chosen": " x", "rejected": HH + " y"})) == [" x", " y"]


@pytest.mark.parametrize(
    ("field", "chosen", "rejected"),
    [
        ("chosen", [user("p"), bot("x")], [bot("y")]),
        ("rejected", [bot("x")], [user("p"), bot("y")]),
        ("prompt", [user("q"), bot("x")], [user("q"), bot("y")]),
    ],
)
@pytest.mark.parametrize("prompt", ["p", [user("p")]])
def test_conversations_at_odds_with_their_prompt_are_faults(
    field: str, chosen: Any, rejected: Any, prompt: Any
) -> None:
    (fault,) = read([{"prompt": prompt, "chosen": chosen, "rejected": rejected}])
    assert isinstance(fault, Fault)
    assert (fault.field, fault.kind) == (field, "contradiction")


POST = {"subreddit": "tea", "title": " Cold ", "post": "My tea is cold.\n"}
AS_A_PROMPT = "SUBREDDIT: r/tea\nTITLE: Cold\nPOST: My tea is cold.\nTL;DR:"
COMPARED = {
    "info": {"id": "t3", "site": None, "article": None, **POST},
    "summaries": [{"text": " Cold tea", "policy": "ref", "note": ""}, {"text": "It is.", "policy": "sup2"}],
    "choice": 1,
    "worker": "w",
    "batch": "batch3",
    "split": "train",
    "extra": {"confidence": 4},
}


def test_comparisons_of_summaries() -> None:
    """Every value of `choice`, in the fields of openai/summarize_from_feedback."""
    second, first = one(COMPARED), one({**COMPARED, "choice": 0})
    assert (second.prompt, contents(second), second.ranking) == (
        AS_A_PROMPT,
        [" It is.", " Cold tea"],
        [[0], [1]],
    )
    assert (first.prompt, contents(first), first.ranking) == (
        AS_A_PROMPT,
        [" Cold tea", " It is."],
        [[0], [1]],
    )


def test_a_post_with_its_own_summary_asks_the_same() -> None:
    record = one({"id": "t3", **POST, "summary": "Cold tea"})
    assert (record.prompt, contents(record), record.id) == (AS_A_PROMPT, [" Cold tea"], "t3")


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"choice": 2}, "wrong value", "`choice` must be 0 or 1"),
        ({"choice": True}, "wrong type", "`choice`"),
        ({"summaries": COMPARED["summaries"][:1]}, "wrong length", "1 summaries"),  # type: ignore[index]
        ({"info": {"post": None, "article": "News", "title": "t"}}, "no Reddit post", "a news article"),
        ({"info": {"title": "t", "subreddit": "s"}}, "missing", "`post` is missing"),
        ({"summaries": [{"text": " "}, {"text": "It is."}]}, "empty answer", "`summaries[0]`"),
        (
            {"summaries": [{"text": "It is."}, {"text": " It is. "}]},
            "chosen equals rejected",
            "nothing to prefer",
        ),
    ],
)
def test_comparisons_that_say_nothing(change: dict[str, Any], kind: str, said: str) -> None:
    (fault,) = read([{**COMPARED, **change}])
    assert isinstance(fault, Fault)
    assert fault.kind == kind
    assert said in fault.message
