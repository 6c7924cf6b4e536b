"""Preferences by a reward: which pairs, which are left out and why, and labels that are drawn."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import likelier
from likelier import cli
from likelier.data.reading import load_records
from likelier.data.records import Completion
from likelier.errors import DataError, UsageError, WorkError
from likelier.stages import label_reward
from likelier.stages.label_outcome import Labelled
from likelier.stages.label_pairs import pairs_by_score, pairs_of, unfit, win_probability

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def answers(*lengths: int) -> list[str]:
    """Answers of so many words, all different."""
    return [" ".join([f"w{index}", *WORDS][:length]) for index, length in enumerate(lengths)]


def label(rows: Any, **config: Any) -> Labelled:
    return likelier.label(rows, **({"with_": "reward", "reward": "length"} | config))


def prompt(*lengths: int, id: str = "p") -> dict[str, Any]:
    return {"id": id, "prompt": "Go on:", "completions": answers(*lengths)}


def chosen(labelled: Labelled) -> list[tuple[str, float, float]]:
    return [(row["id"], row["score_chosen"], row["score_rejected"]) for row in labelled.rows]


def test_all_pairs_by_hand() -> None:
    labelled = label([prompt(2, 5, 2)], pairs="all")
    assert chosen(labelled) == [("p:1-2", 5, 2), ("p:2-3", 5, 2)]
    assert labelled.left_out == {"equal scores": 1}
    assert labelled.rows[0]["chosen"] == "w1 one two three four"
    assert labelled.rows[0]["reason"] == "words in the answer: 5 against 2"
    assert labelled.rows[0]["labeller"] == "reward length"


def test_neighbours_and_extremes_by_hand() -> None:
    four = prompt(2, 5, 2, 9)
    assert chosen(label([four], pairs="adjacent")) == [("p:2-4", 9, 5), ("p:1-2", 5, 2)]
    assert label([four], pairs="adjacent").left_out == {"equal scores": 1}
    assert chosen(label([four], pairs="best-worst")) == [("p:3-4", 9, 2)]  # the last of the two worst


def test_a_gap_is_reached_or_not() -> None:
    labelled = label([prompt(1, 3, 6)], min_gap=3.0)
    assert chosen(labelled) == [("p:1-3", 6, 1), ("p:2-3", 6, 3)]
    assert labelled.left_out == {"closer than --min-gap": 1}
    pair = [Completion(content="a"), Completion(content="b")]
    assert 0.3 - 0.2 < 0.1
    assert unfit([0.3, 0.2], pair, (0, 1), 0.1, drawn=False) is None


def test_a_ranking_keeps_all_and_is_the_default() -> None:
    labelled = label([prompt(2, 5, 2, 9), prompt(3, 3, id="q"), prompt(1, 4, id="r")])
    assert labelled.rows[0]["ranking"] == [[3], [1], [0, 2]]
    assert labelled.rows[0]["scores"] == [2, 5, 2, 9]
    assert (labelled.rows[1]["id"], labelled.rows[1]["score_chosen"]) == ("r", 4)
    assert (labelled.pairs, labelled.prompts, labelled.undecided) == (6, 2, 1)
    assert labelled.left_out == {"equal scores": 2}


def test_old_labels_give_way() -> None:
    rows = [
        {"id": "a", "prompt": "Go on:", "chosen": "one", "rejected": "one two", "margin": 2.0, "weight": 3.0},
        {"id": "b", "prompt": "Go on:", "a": "one", "b": "one two", "winner": "tie"},
    ]
    (first, second) = label(rows).rows
    assert (first["chosen"], first["rejected"], first["weight"]) == ("one two", "one", 3.0)
    assert "margin" not in first
    assert (second["chosen"], second["rejected"]) == ("one two", "one")


def test_tokens_and_finish_are_handed_on(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}]
    sampled = [
        {"text": "one", "tokens": [5, 2], "logp": -1.0, "finish": "stop"},
        {"text": "one two", "tokens": [6, 7], "logp": -1.5, "finish": "length"},
    ]
    out = tmp_path / "p.jsonl"
    label(
        [{"prompt": turns, "completions": [*sampled, {"text": "a b c", "tokens": [9]}]}], pairs="all", out=out
    )
    records, _ = load_records(out)
    better, worse = records[0].completions
    assert (better.tokens, better.finish, worse.tokens, worse.finish) == ([6, 7], "length", [5, 2], "stop")
    assert better.content == [{"role": "assistant", "content": "one two"}]
    assert json.loads(out.read_text().splitlines()[0])["chosen"]["text"] == "one two"


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=6), min_size=1, max_size=5),
    st.sampled_from(["all", "adjacent", "best-worst"]),
    st.sampled_from([0.0, 1.0, 2.0]),
    st.booleans(),
)
def test_no_pair_is_lost(lengths: list[list[int]], choice: Any, min_gap: float, drawn: bool) -> None:
    """Every pair that is considered is a row or counted, and every row's label is what the scores allow."""
    rows = [prompt(*row, id=f"p{number}") for number, row in enumerate(lengths)]
    config = {"pairs": choice, "min_gap": min_gap} | ({"draw": "bradley-terry"} if drawn else {})
    considered = [pair for row in lengths for pair in pairs_by_score(list(map(float, row)), choice)]
    expected = {"all": lambda n: n * (n - 1) // 2, "adjacent": lambda n: n - 1, "best-worst": lambda n: n > 1}
    assert len(considered) == sum(expected[choice](len(row)) for row in lengths)
    try:
        labelled = label(rows, **config)
    except DataError:
        assert drawn is False or min_gap or all(len(row) == 1 for row in lengths)
        return
    assert labelled.pairs + labelled.left_out.total() == len(considered)
    assert labelled.prompts + labelled.undecided == len(rows)
    assert labelled.all_answers == sum(map(len, lengths))
    for _, better, worse in chosen(labelled):
        assert abs(better - worse) >= min_gap
        assert drawn or better > worse


@given(st.integers(0, 12))
def test_designs_of_pairs(count: int) -> None:
    assert pairs_of(count, "all") == list(combinations(range(count), 2))
    assert pairs_of(count, "adjacent") == [(i, i + 1) for i in range(count - 1)]
    ring = pairs_of(count, "ring")
    assert len(set(ring)) == len(ring) == (count if count > 2 else max(0, count - 1))
    if count > 2:
        assert Counter(index for pair in ring for index in pair) == dict.fromkeys(range(count), 2)


# Drawn labels


@pytest.mark.parametrize(
    ("lengths", "temperature"), [((1, 3), 2.0), ((4, 3), 0.5), ((2, 2), 1.0), ((1, 9), 3.0)]
)
def test_drawn_labels_follow_bradley_terry(lengths: tuple[int, int], temperature: float) -> None:
    """Within an exact binomial bound that a right program misses once in ten million runs."""
    count = 3000
    rows = [prompt(*lengths, id=f"p{number}") for number in range(count)]
    labelled = label(rows, draw="bradley-terry", label_temperature=temperature, seed=7)
    first = answers(*lengths)[0]
    wins = sum(row["chosen"] == first for row in labelled.rows)
    gap = (lengths[0] - lengths[1]) / temperature
    p = 1 / (1 + 2.718281828459045**-gap)
    assert win_probability(*lengths, temperature) == pytest.approx(p, rel=1e-12)
    low, high = stats.binom.ppf([5e-8, 1 - 5e-8], count, p)
    assert low <= wins <= high
    assert len(labelled.rows) == count
    against = min(wins, count - wins) if gap else 0
    assert labelled.figures == {"against_scores": against}


def test_a_draw_depends_on_its_own_pair_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [prompt(1, 2, 3, id=f"p{number}") for number in range(40)]

    def drawn(rows: list[dict[str, Any]], seed: int = 0) -> dict[str, str]:
        made = label(rows, draw="bradley-terry", label_temperature=5.0, seed=seed)
        return {row["id"]: row["chosen"] for row in made.rows}

    labels = drawn(rows)
    assert len(labels) == 120
    shuffled = random.Random(1).sample(rows, 40)
    monkeypatch.setattr(label_reward, "PROMPTS", 3)
    assert drawn(shuffled) == labels
    assert drawn(rows[:5]) == dict(list(labels.items())[:15])
    assert drawn(rows, seed=1) != labels
    # Pairs of one prompt do not share their noise, nor do rows that share an id.
    assert len({tuple(labels[f"p{n}:{pair}"] for pair in ("1-2", "1-3", "2-3")) for n in range(40)}) >= 4
    twins = [{"id": "x", "prompt": "?", "completions": [f"a{n}", f"b{n}"]} for n in range(60)]
    wins = Counter(row["chosen"][0] for row in label(twins, draw="bradley-terry").rows)
    assert 10 < wins["a"] < 50


def test_the_same_answer_twice_is_no_question() -> None:
    rows = [{"prompt": "Go on:", "completions": ["one", "one", "one two"]}]
    labelled = label(rows, draw="bradley-terry")
    assert labelled.left_out == {"the same answer twice": 1}
    assert labelled.pairs == 2


@pytest.mark.parametrize(
    ("config", "said"),
    [({}, "deterministic: the higher score"), ({"draw": "bradley-terry"}, "drawn from Bradley-Terry")],
)
def test_the_manifest_says_what_kind_of_labels(config: dict[str, Any], said: str, tmp_path: Path) -> None:
    out = tmp_path / "new" / "p.jsonl"
    labelled = label([prompt(1, 2)], out=out, **config)
    manifest = json.loads((out.parent / "p.manifest.json").read_text())
    assert said in manifest["labels"]
    assert manifest["config"]["with_"] == "reward"
    assert manifest["left_out"] == {}
    assert [json.loads(line) for line in out.read_text().splitlines()] == labelled.rows
    assert labelled.rows[0]["time"].endswith("Z")


# The command


def run(words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.main(words.split())
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [prompt(1, 2), prompt(3, 3, id="q"), {"id": "e", "prompt": "?", "completions": ["", "a"]}]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_the_command(samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run("label s.jsonl --with reward --reward length --out p.jsonl", capsys)
    assert (code, out) == (0, "")
    assert "pairs: 1; prompts with a pair: 1, without: 1; labels deterministic" in err
    assert (
        "rows that cannot be used and are left out: 1 (empty answer: 1); the first: s.jsonl, row 3: " in err
    )
    assert "; pairs left out: equal scores: 1" in err
    code, out, _ = run("label s.jsonl --with reward --reward length", capsys)
    assert code == 0
    assert [json.loads(line)["chosen"] for line in out.splitlines()] == ["w1 one"]
    code, out, _ = run("label s.jsonl --with reward --reward length --json --draw bradley-terry", capsys)
    assert json.loads(out)["rows"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--with reward --pairs ring", "--pairs ring is for --with judge"),
        ("--with reward --pairs ranking --min-gap 1", "--min-gap is about two answers"),
        ("--with reward --pairs ranking --draw bradley-terry", "--draw is about two answers"),
        ("--with reward --label-temperature 2", "--label-temperature needs --draw"),
        ("--with reward --seed 2", "--seed needs --draw"),
        ("--with reward --draw bradley-terry --label-temperature 0", "should be greater than 0"),
        ("--with reward --min-gap -1", "greater than or equal to 0"),
        ("--with judge --draw bradley-terry", "--draw is for --with reward, not --with judge"),
        ("--with human", "--with human needs --out"),
        ("--with reward --out s.jsonl", "is the data itself"),
        ("--with reward --out .", "is a folder"),
        ("--with reward --reward lenght", "unknown reward `lenght`; did you mean `length`"),
        ("--with reward --reward length --min-gap 9", "no pair of answers is left (closer than --min-gap: 1"),
    ],
)
def test_what_cannot_be_is_refused(
    words: str, said: str, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(f"label s.jsonl {words}", capsys)
    assert (code, out) == (2, "")
    assert said in err.splitlines()[-1]


def test_a_file_cut_short_is_not_half_labelled(samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (samples / "s.json").write_text('[{"prompt": "a", "completions": ["b", "c d"]}, {"prompt": ')
    code, _, err = run("label s.json --with reward --reward length", capsys)
    assert code == 2
    assert "s.json, row 2" in err


# Rewards of users


def test_functions_of_lists_and_of_one_answer(samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (samples / "users_rewards.py").write_text(
        "calls = []\n"
        "def together(prompts, completions):\n"
        "    calls.append(len(prompts))\n"
        "    return [len(c.split()) for c in completions]\n"
        "def alone(prompt, completion): return len(completion.split())\n"
        "def short(prompts, completions): return [1.0]\n"
        "def nothing(prompts, completions): return None\n"
        "def fails(prompt, completion): raise KeyError('x')\n"
        "def text(prompt, completion): return '3'\n"
    )
    rows = [prompt(1, 2, id=f"p{n}") for n in range(70)]
    one, many = (label(rows, reward=f"users_rewards:{name}", pairs="all") for name in ("alone", "together"))
    assert chosen(one) == chosen(many)
    import users_rewards  # type: ignore[import-not-found]

    assert users_rewards.calls == [128, 12]
    for name, said in (
        ("short", "gave 1 numbers for 4 answers"),
        ("nothing", r"failed for <rows>, row 1 and those after it \(TypeError"),
        ("fails", r"failed for <rows>, row 1 \(KeyError: 'x'\)"),
        ("text", "gave '3' for <rows>, row 1, not a finite number"),
    ):
        with pytest.raises(WorkError, match=said):
            label(rows[:2], reward=f"users_rewards:{name}")


def test_a_function_in_memory(tmp_path: Path) -> None:
    def vowels(prompt: Any, answer: str) -> int:
        return sum(letter in "aeiou" for letter in answer)

    rows = [{"prompt": "?", "completions": ["sky", "aeon"]}]
    labelled = likelier.label(rows, with_="reward", reward=vowels, out=tmp_path / "p.jsonl")
    assert labelled.rows[0]["chosen"] == "aeon"
    assert labelled.rows[0]["labeller"].endswith("test_a_function_in_memory.<locals>.vowels")
    assert "vowels" in json.loads((tmp_path / "p.manifest.json").read_text())["config"]["reward"]


def test_json_validity() -> None:
    texts = ['{"a": [1, 2]}', " 3 ", "NaN", "{'a': 1}", '{"a": 1} and more', "[" * 100_000]
    rows = [{"prompt": "?", "completions": texts}]
    assert label(rows, reward="json").rows[0]["scores"] == [1, 1, 0, 0, 0, 0]


def test_python_refuses_the_page() -> None:
    with pytest.raises(UsageError, match="a page to be opened"):
        likelier.label("s.jsonl", with_="human", out="p.jsonl")
