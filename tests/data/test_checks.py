"""What the text checks count, on rows made to hold it."""

from __future__ import annotations

from typing import Any

import pytest

from likelier.data.checks import Summary, TextChecks
from likelier.data.length_bias import LengthBias
from likelier.data.reading import read
from likelier.stages.check_lengths import length_bias

PAIR = {"prompt": "How are you?", "chosen": " Fine.", "rejected": " Go away."}


def check(*rows: Any, keep: int = 3) -> Summary:
    checks = TextChecks(keep=keep)
    for item in read(list(rows)):
        checks.add(item)
    return checks.summary()


def test_good_rows_warn_of_nothing() -> None:
    summary = check(PAIR, {**PAIR, "prompt": "And you?"})
    assert (summary.rows, summary.unusable, summary.records) == (2, 0, 2)
    assert not summary.warnings
    assert not summary.examples


def test_faults_are_counted_by_kind_with_their_places() -> None:
    summary = check(
        PAIR, {**PAIR, "chosen": None}, 3, {**PAIR, "rejected": " Fine."}, {**PAIR, "chosen": None}, keep=1
    )
    assert summary.faults == {"null": 2, "wrong type": 1, "chosen equals rejected": 1}
    assert (summary.rows, summary.unusable, summary.records) == (5, 4, 1)
    assert [(e.file, e.row) for e in summary.examples["null"]] == [("<rows>", 2)]


def test_duplicates_count_every_repeat_and_name_the_first() -> None:
    other = {**PAIR, "prompt": "And you?"}
    summary = check(PAIR, other, {**PAIR, "id": "x", "weight": 2}, other, PAIR)
    assert summary.warnings == {"duplicate": 3}
    assert [(e.row, e.message) for e in summary.examples["duplicate"]] == [
        (3, "says the same as <rows>, row 1"),
        (4, "says the same as <rows>, row 2"),
        (5, "says the same as <rows>, row 1"),
    ]


def swapped(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "chosen": row["rejected"], "rejected": row["chosen"]}


def test_one_pair_labelled_both_ways_is_no_duplicate() -> None:
    summary = check({**PAIR, "prompt": "x?"}, PAIR, swapped(PAIR), swapped(PAIR))
    assert summary.warnings == {"labelled both ways": 1, "duplicate": 1}
    (example,) = summary.examples["labelled both ways"]
    assert (example.row, example.message) == (3, "prefers the other answer than <rows>, row 2")


@pytest.mark.parametrize(
    "rows",
    [
        (
            {"prompt": "p?", "completion": "x", "label": True},
            {"prompt": "p?", "completion": "x", "label": False},
        ),
        (
            {"prompt": "p?", "completions": ["x", "y", "z"], "scores": [3, 2, 1]},
            {"prompt": "p?", "completions": ["z", "y"], "ranking": [[0], [1]]},
        ),
        (
            {"prompt": "p?", "a": "x", "b": "y", "winner": "a"},
            {"prompt": "p?", "a": "y", "b": "x", "winner": "a"},
        ),
    ],
)
def test_contradictions_in_every_form(rows: tuple[dict[str, Any], ...]) -> None:
    assert check(*rows).warnings["labelled both ways"] == 1


@pytest.mark.parametrize("winner", ["tie", "both_bad"])
def test_a_verdict_contradicts_nothing_and_is_no_preference(winner: str) -> None:
    row = {"prompt": "p?", "a": "x", "b": "yy"}
    summary = check({**row, "winner": winner}, {**row, "winner": "b"})
    assert summary.forms == {winner: 1, "pair": 1}
    assert "labelled both ways" not in summary.warnings
    assert "duplicate" not in summary.warnings
    assert summary.bias == LengthBias(longer=1, shorter=0, equal=0)


def test_tied_answers_in_another_order_are_the_same() -> None:
    row = {"prompt": "p?", "winner": "tie"}
    assert check({**row, "a": "x", "b": "y"}, {**row, "a": "y", "b": "x"}).warnings == {"duplicate": 1}


def test_an_answer_that_stands_in_its_prompt() -> None:
    leak = {
        **PAIR,
        "prompt": "Is it that I am quite fine, thanks? Say so.",
        "chosen": " I am quite fine, thanks",
    }
    assert check(leak).warnings == {"answer in prompt": 1}
    assert not check({**PAIR, "prompt": "Fine or not? Fine."}).warnings


@pytest.mark.parametrize(
    ("prompt", "chosen", "joined"),
    [("Say it", "now", True), ("Say it", " now", False), ("Say it:", "now", False), ("说", "好", False)],
)
def test_words_joined_where_prompt_and_answer_meet(prompt: str, chosen: str, joined: bool) -> None:
    warnings = check({"prompt": prompt, "chosen": chosen, "rejected": " no"}).warnings
    assert warnings == ({"joined words": 1} if joined else {})


def test_empty_prompts_and_blank_answers_are_usable_and_counted() -> None:
    summary = check({**PAIR, "prompt": ""}, {**PAIR, "rejected": " \n"}, {"text": "no prompt wanted"})
    assert summary.warnings == {"empty prompt": 1, "blank answer": 1}
    assert summary.unusable == 0


def test_length_bias_is_over_strict_pairs_of_unequal_length() -> None:
    ranked = {"prompt": "p?", "completions": ["aaa", "bb", "c", "dd"], "ranking": [[0], [1, 2], [3]]}
    summary = check(PAIR, {"prompt": "q?", "chosen": "xx", "rejected": "yy"}, ranked)
    # PAIR: shorter; q: equal; aaa>bb, aaa>c, aaa>dd: longer; bb>dd: equal; c>dd: shorter
    assert summary.bias == LengthBias(longer=3, shorter=2, equal=2)
    assert summary.lengths["prompt"].tolist() == [12, 2, 2]
    assert sorted(summary.lengths["answer"].tolist()) == [1, 2]


def test_forms_are_told_apart() -> None:
    many = {"prompt": "p?", "completions": ["x", "y", "z"]}
    summary = check(PAIR, {**many, "scores": [1, 2, 3]}, {**many, "scores": [1, 1, 1]}, many, {"text": "t"})
    assert summary.forms == {"pair": 1, "ranking": 1, "tie": 1, "unlabelled": 1, "single": 1}


def test_asking_twice_counts_once() -> None:
    checks = TextChecks()
    for item in read([PAIR, PAIR]):
        checks.add(item)
    assert checks.summary().warnings == checks.summary().warnings == {"duplicate": 1}


def test_nothing_read_is_nothing_found() -> None:
    summary = TextChecks().summary()
    assert (summary.rows, summary.bias.n) == (0, 0)


def test_answers_that_repeat_the_prompt_are_counted() -> None:
    prompt = "Question: what is rain?\nAnswer:"
    row = {"prompt": prompt, "chosen": f"{prompt} Water.", "rejected": f"{prompt} No."}
    assert check(row).warnings == {"prompt in answers": 1}
    assert not check({**row, "rejected": " No."}).warnings


def test_a_prompt_that_ends_with_the_assistant_is_counted() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert check({**PAIR, "prompt": turns}).warnings == {"no user turn": 1}
    assert not check({**PAIR, "prompt": turns[:1]}).warnings


def test_pairs_of_one_ranking_do_not_pass_for_independent() -> None:
    """Against the clustered interval of `stats`, which keeps every pair."""
    from likelier.stats.intervals import accuracy_interval

    rows, margins, clusters = [], [], []
    for number in range(60):
        lengths = [(7 * number + 3 * place) % 11 + 1 for place in range(3)]
        if number % 3:
            lengths.sort(reverse=True)
        answers = ["x" * length + f"{place}" for place, length in enumerate(lengths)]
        rows.append({"prompt": f"p{number}?", "completions": answers, "ranking": [[0], [1], [2]]})
        pairs = [(0, 1), (0, 2), (1, 2)]
        unequal = [float(lengths[a] - lengths[b]) for a, b in pairs if lengths[a] != lengths[b]]
        margins += unequal
        clusters += [number] * len(unequal)
    bias = check(*rows).bias
    expected = accuracy_interval(margins, clusters=clusters)
    assert (bias.n, bias.longer / bias.n) == (len(margins), expected.value)
    found = length_bias(bias)
    assert found is not None
    assert bias.independent is not None
    assert bias.independent < 0.7 * bias.n
    # That one has Student's t and m / (m - 1) clusters, which at 60 widens it by some hundredths.
    assert found.low == pytest.approx(expected.low, abs=0.01)
    assert found.high == pytest.approx(expected.high, abs=0.01)
    assert check(PAIR, {**PAIR, "prompt": "And you?"}).bias.independent == 2
