"""`likelier evaluate winrate` and `temperature`: against arithmetic by hand, with judges of every temper."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import likelier
from likelier import cli
from likelier.engines.drawing import Sampler
from likelier.engines.prompts import Prompt
from likelier.engines.sampling import sample
from likelier.errors import WorkError
from likelier.models.loading import load_model
from likelier.stats import accuracy_interval
from likelier.stats.best import drops_from_best
from likelier.stats.length_control import control_length
from tests.engines.stub_server import Status, StubServer, answers
from tests.engines.test_rubric import blocks
from tests.training.conftest import no_timing, own_cache
from tests.training.support import write_rows

__all__ = ["no_timing", "own_cache"]

PROMPTS = [
    {"id": f"p{i}", "prompt": f"The cat sat {i}", "human": " on the mat" * (1 + i % 3), "other": " down"}
    for i in range(8)
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIKELIER_CACHE", str(tmp_path / "cache"))
    write_rows(tmp_path / "prompts.jsonl", PROMPTS)
    return tmp_path


def samples(name: str, *texts: list[str]) -> str:
    """A file as `likelier sample` writes it, with these answers to each prompt in turn."""
    rows = [
        {
            "id": row["id"],
            "prompt": row["prompt"],
            "completions": [
                {"text": text, "tokens": [5], "finish": "stop"} for text in texts[i % len(texts)]
            ],
        }
        for i, row in enumerate(PROMPTS)
    ]
    write_rows(Path(name), rows)
    return name


def opinion(body: dict[str, Any]) -> str:
    """Likes words; takes the first where one is a coin; says nothing of mumbles."""
    shown = blocks(body["messages"][0]["content"])
    first, second = (shown[f"answer {letter}"] for letter in "AB")
    if "mumble" in (first, second):
        return "Both have their merits."
    if "coin" in (first, second):
        return "Verdict: A"
    gap = len(first.split()) - len(second.split())
    return f"Verdict: {'A' if gap > 0 else 'B' if gap < 0 else 'tie'}"


def server(behaviour: Any = None) -> StubServer:
    return StubServer(behaviour or (lambda number, body: answers(body, opinion(body))))


def judged(url: str, *runs: str, **more: Any) -> Any:
    settings = {"judge": "openai", "judge_model": "wise", "base_url": url, "timeout": 5, "retries": 0}
    return likelier.evaluate("winrate", list(runs), out="out", **{**settings, **more})


# Win rates


def test_by_hand_with_a_reward() -> None:
    """Words 2 against 1, 1 against 1 and 1 against 2 in turn: 3 wins, 3 ties, 2 losses."""
    first, second = samples("a.jsonl", ["a b", "x"], ["c"], ["d"]), samples("b.jsonl", ["e"], ["f"], ["g h"])
    (win,) = likelier.evaluate("winrate", [first, second], out="out", reward="length")
    # The first prompts' second answer, "x", meets the second's only one: a tie more each time.
    outcomes = [1, 0.5, 0.5, 0] * 2 + [1, 0.5, 0.5]
    prompts = [0, 0, 1, 2, 3, 3, 4, 5, 6, 6, 7]
    lengths = [2, 0, 0, -2] * 2 + [2, 0, 0]
    assert (win.wins, win.ties, win.losses) == (3, 6, 2)
    assert win.win_rate == accuracy_interval([o - 0.5 for o in outcomes], clusters=prompts)
    assert win.controlled == control_length(outcomes, lengths, clusters=prompts)
    assert win.lengths[0].value == pytest.approx(np.mean([3, 1, 1, 1] * 2 + [3, 1, 1]))
    assert win.per_prompt[0] == 0.75
    assert (win.temperature, win.unjudged, win.judge) == (None, {}, {})


def test_the_files_say_the_same(capsys: Any) -> None:
    first, second = samples("a.jsonl", ["a b"], ["c"]), samples("b.jsonl", ["e"])
    assert (
        cli.main(["evaluate", "winrate", first, "--against", second, "--reward", "length", "--out", "out"])
        == 0
    )
    said = capsys.readouterr().out
    assert "a.jsonl against b.jsonl: win rate 75.0 % [" in said
    assert "8 comparisons on 8 prompts, clustered by prompt; 4 wins, 4 ties that count half, 0 losses" in said
    assert "at equal lengths" in said
    assert "by the reward length" in said
    result = json.loads(Path("out/winrate.json").read_text())
    (row,) = csv.DictReader(Path("out/winrate.csv").read_text().splitlines())
    assert float(row["win_rate"]) == result["comparisons"][0]["win_rate"]["value"] == 0.75
    assert float(row["controlled"]) == result["comparisons"][0]["controlled"]["win_rate"]["value"]
    assert result["words"][0] in said
    assert Path("out/winrate.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in Path("out/winrate.svg").read_text()
    assert len(Path("out/winrate.answers.jsonl").read_text().splitlines()) == 16
    assert set(json.loads(Path("out/winrate.manifest.json").read_text())["inputs"]) == {"a.jsonl", "b.jsonl"}


def test_several_against_a_column_of_the_prompts() -> None:
    names = [samples("a.jsonl", [" on the mat, and so on for long"]), samples("b.jsonl", ["x"])]
    one, other = likelier.evaluate(
        "winrate", names, prompts="prompts.jsonl", baseline="human", reward="length", out="out"
    )
    assert (one.wins, other.losses) == (8 - 2, 8)  # nine words beat 3 and 6 and tie with 9; one word loses
    assert one.second == other.second == "column human"


def test_a_model_answers_itself_with_ties_alone(tiny_llama: Path) -> None:
    """The same random numbers for both: differences are the models'."""
    (win,) = likelier.evaluate(
        "winrate", str(tiny_llama), against=str(tiny_llama), prompts="prompts.jsonl", reward="length", out="out",
        n=2, max_new_tokens=5, precision="float32",
    )  # fmt: skip
    assert (win.ties, win.win_rate.value, win.temperature) == (16, 0.5, 1.0)
    assert not win.win_rate.excludes(0.5)


def test_a_judge_sees_both_orders_and_what_does_not_survive_the_swap_is_a_tie() -> None:
    first, second = (
        samples("a.jsonl", ["a b"], ["coin"], ["same"]),
        samples("b.jsonl", ["e"], ["f"], ["same"]),
    )
    with server() as stub:
        (win,) = judged(stub.url, first, second)
    assert (win.wins, win.ties, win.losses) == (3, 5, 0)
    assert win.judge["the same answer"] == 2
    assert win.judge["orders_agree"]["value"] == 0.5
    assert win.judge["first_shown_wins"]["value"] == pytest.approx((3 + 6) / 12)
    assert len(stub.bodies) == 12


def test_what_cannot_be_read_is_counted_and_left_out(capsys: Any) -> None:
    first, second = samples("a.jsonl", ["a b"], ["mumble"]), samples("b.jsonl", ["e"])
    with server() as stub:
        words = ["evaluate", "winrate", first, second, "--judge", "openai", "--judge-model", "wise"]
        assert cli.main([*words, "--base-url", stub.url, "--out", "out"]) == 0
    said = capsys.readouterr().out
    assert "win rate 100.0 %" in said
    assert "4 comparisons on 4 prompts" in said
    assert "4 without a verdict left out" in said
    assert json.loads(Path("out/winrate.json").read_text())["comparisons"][0]["unjudged"] == {
        "no verdict in the answer": 4
    }


def test_a_judge_that_never_gives_a_verdict_has_no_win_rate(capsys: Any) -> None:
    first, second = samples("a.jsonl", ["mumble"]), samples("b.jsonl", ["e"])
    with server() as stub:
        words = ["evaluate", "winrate", first, second, "--judge", "openai", "--judge-model", "wise"]
        assert cli.main([*words, "--base-url", stub.url, "--out", "out"]) == 1
    error = capsys.readouterr().err
    assert "wise gave no verdict on any of 8 pairs (no verdict in the answer: 8)" in error
    assert not Path("out/winrate.json").exists()


def test_a_server_that_fails_ends_with_1_and_is_asked_again(capsys: Any) -> None:
    first, second = samples("a.jsonl", ["a b"]), samples("b.jsonl", ["e"])
    words = [
        "evaluate",
        "winrate",
        first,
        second,
        "--judge",
        "openai",
        "--judge-model",
        "wise",
        "--retries",
        "0",
    ]
    with server(lambda number, body: Status(400) if number == 3 else answers(body, opinion(body))) as stub:
        assert cli.main([*words, "--base-url", stub.url, "--out", "out", "--concurrency", "1"]) == 1
        assert json.loads(Path("out/winrate.json").read_text())["comparisons"][0]["unjudged"] == {
            "HTTP 400": 1
        }
        asked = len(stub.bodies)
        assert cli.main([*words, "--base-url", stub.url, "--out", "out", "--concurrency", "1"]) == 0
        assert len(stub.bodies) == asked + 1
    assert "8 comparisons" in capsys.readouterr().out


def test_how_often_the_judge_agrees_with_people(shared_data: Path) -> None:
    """On PandaLM's test set by this judge's liking for words: the share by hand, a tie being one half."""
    rows = json.loads((shared_data / "pandalm-testset" / "testset-v1.json").read_text())[:60]
    Path("labels.json").write_text(json.dumps(rows))
    first, second = samples("a.jsonl", ["a b"]), samples("b.jsonl", ["e"])
    with server() as stub:
        judged(stub.url, first, second, human_labels="labels.json")
    found = json.loads(Path("out/winrate.json").read_text())["agreement_with_people"]
    hits = []
    for row in rows:
        votes = [row[f"annotator{k}"] for k in (1, 2, 3)]
        winner = next((vote for vote in (1, 2) if votes.count(vote) > 1), 0)
        texts = row["response1"], row["response2"]
        if winner and texts[0] != texts[1] and all(text.strip() for text in texts):
            gap = len(texts[0].split()) - len(texts[1].split())
            hits.append(0.5 if gap == 0 else float((gap > 0) == (winner == 1)))
    assert found["accuracy"]["n"] == found["pairs"] == len(hits)
    assert found["accuracy"]["value"] == pytest.approx(np.mean(hits))


def test_a_model_here_as_judge_by_log_odds(patient_llama: Path) -> None:
    first, second = samples("a.jsonl", ["a b"], ["c"]), samples("b.jsonl", ["e"])
    (win,) = likelier.evaluate(
        "winrate",
        [first, second],
        judge_model=str(patient_llama),
        verdict="log-odds",
        precision="float32",
        out="out",
    )
    assert win.wins + win.ties + win.losses == 8
    assert win.judge["unparsable"] == 0


# Temperatures


def test_every_temperature_on_the_same_prompts(tiny_llama: Path, capsys: Any) -> None:
    words = ["evaluate", "temperature", str(tiny_llama), "--prompts", "prompts.jsonl", "--baseline", "human"]
    words += [
        "--reward",
        "length",
        "--temperatures",
        "1,0,0.5",
        "--n",
        "2",
        "--max-new-tokens",
        "6",
        "--out",
        "out",
    ]
    assert cli.main([*words, "--precision", "float32"]) == 0
    said = capsys.readouterr().out
    (sweep,) = json.loads(Path("out/temperature.json").read_text())["sweeps"]
    assert [one["temperature"] for one in sweep["temperatures"]] == [0.0, 0.5, 1.0]
    loaded = load_model(str(tiny_llama))
    prompts = [Prompt(id=row["id"], content=row["prompt"]) for row in PROMPTS]
    per_prompt = []
    for one in sweep["temperatures"]:
        sampled = sample(
            loaded.model, loaded.tokenizer, prompts, n=2, max_new_tokens=6,
            sampler=Sampler(temperature=one["temperature"]),
        )  # fmt: skip
        outcomes = [
            [
                0.5 + 0.5 * np.sign(len(answer.text.split()) - len(row["human"].split()))
                for answer in own.completions
            ]
            for own, row in zip(sampled, PROMPTS, strict=True)
        ]
        per_prompt.append([float(np.mean(own)) for own in outcomes])
        assert one["win_rate"]["value"] == pytest.approx(np.mean(outcomes))
        assert one["win_rate"]["n"] == (8 if one["temperature"] == 0 else 16)
    drops = drops_from_best(np.array(per_prompt).T)
    for one, drop in zip(sweep["temperatures"], drops, strict=True):
        assert one["drop"]["value"] == pytest.approx(drop.value)
        assert one["drop"]["low"] == pytest.approx(drop.low)
    assert "wins most at temperature" in said
    assert "paired over 8 prompts" in said
    rows = list(csv.DictReader(Path("out/temperature.csv").read_text().splitlines()))
    assert [float(row["drop"]) for row in rows] == pytest.approx([drop.value for drop in drops])
    assert Path("out/temperature.png").read_bytes().startswith(b"\x89PNG")


def test_temperatures_with_no_prompt_in_common_have_no_drop() -> None:
    from likelier.report.winrate import Compared, sweep_of, win_of

    def win(prompt: int) -> Any:
        return win_of(
            [Compared(prompt=prompt, outcome=1.0, lengths=(1, 2))],
            first="a", second="b", temperature=0.0, unjudged={}, cut=0, judge={},
        )  # fmt: skip

    with pytest.raises(ValueError, match="drops need a table"):
        sweep_of("a", [win(0), win(1)])


# What is refused

TEMPERATURE = "temperature m --reward length --prompts prompts.jsonl --baseline human"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("winrate a.jsonl b.jsonl", "who says which answer is better? --reward NAME, or --judge-model MODEL"),
        ("winrate a.jsonl b.jsonl --reward length --judge-model m", "give one of them"),
        ("winrate a.jsonl --reward length", "name two runs, or what to compare with by --against RUN or --baseline"),
        ("winrate a.jsonl --reward length --baseline human", "--baseline is a column of --prompts"),
        ("winrate a.jsonl --reward length --against b.jsonl --baseline x", "give one of them"),
        ("winrate a.jsonl b.jsonl --reward lenght", "did you mean `length`?"),
        ("winrate a.jsonl b.jsonl --reward length --verdict log-odds", "--verdict is for a judge"),
        ("winrate a.jsonl b.jsonl --reward length --human-labels x", "--human-labels is for a judge"),
        ("winrate a.jsonl b.jsonl --judge-model m --retries 2", "--retries says nothing to --judge local"),
        ("winrate a.jsonl b.jsonl --reward length --temperatures 1", "--temperatures is for evaluate temperature"),
        ("winrate a.jsonl few.jsonl --reward length", "few.jsonl has no answer to 6 of 8 prompts; the first is"),
        ("winrate m n --reward length", "needs --prompts, unless one side is a file of samples"),
        ("winrate a.jsonl --baseline nothing --prompts prompts.jsonl --reward length", "row 1: `nothing` is missing"),
        ("winrate a.jsonl --baseline human --prompts p.txt --reward length", "p.txt holds prompts alone"),
        ("temperature m --reward length --prompts prompts.jsonl", "needs --baseline COLUMN"),
        ("temperature m --reward length --baseline human", "needs --prompts"),
        (f"{TEMPERATURE} --temperatures 0,warm", "--temperatures: input should be a valid number"),
        (f"{TEMPERATURE} --temperatures=-1", "--temperatures: a temperature is 0 or more"),
        (f"{TEMPERATURE} --temperatures 1,1", "--temperatures: each temperature once"),
        ("temperature m --reward length --prompts empty.jsonl --baseline human", "row 2: `human` is empty"),
        ("temperature m --reward length --prompts number.jsonl --baseline human", "row 1: `human` is no text"),
        ("temperature ./m --reward length --prompts prompts.jsonl --baseline human", "no model at m"),
        ("winrat a b --reward length", "--what"),
    ],
)  # fmt: skip
def test_what_is_refused_in_one_line(words: str, told: str, capsys: Any) -> None:
    samples("a.jsonl", ["a"])
    samples("b.jsonl", ["b"])
    write_rows(Path("few.jsonl"), [json.loads(line) for line in Path("b.jsonl").read_text().splitlines()][:2])
    write_rows(Path("empty.jsonl"), [{"prompt": "a", "human": "x"}, {"prompt": "b", "human": " "}])
    write_rows(Path("number.jsonl"), [{"prompt": "a", "human": 4}])
    Path("p.txt").write_text("The cat sat 0\n")
    assert cli.main(["evaluate", *words.split(), "--out", "out"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert told in error
    assert not Path("out").exists()


def test_a_reward_that_is_no_number_names_the_prompt(capsys: Any) -> None:
    first, second = samples("a.jsonl", ["a"]), samples("b.jsonl", ["b"])
    Path("nan_reward.py").write_text("def score(prompt, answer):\n    return float('nan')\n")
    words = ["evaluate", "winrate", first, second, "--reward", "nan_reward:score", "--out", "out"]
    assert cli.main(words) == 1
    assert "nan for an answer to prompt 'p0', not a finite number" in capsys.readouterr().err


def test_labels_in_which_nobody_prefers_anything_are_no_test_of_a_judge(capsys: Any) -> None:
    first, second = samples("a.jsonl", ["a b"]), samples("b.jsonl", ["b"])
    write_rows(Path("ties.jsonl"), [{"prompt": "x", "a": "y", "b": "z", "winner": "tie"}])
    with server() as stub:
        words = ["evaluate", "winrate", first, second, "--judge", "openai", "--judge-model", "wise"]
        words += ["--base-url", stub.url, "--human-labels", "ties.jsonl", "--out", "out"]
        assert cli.main(words) == 2
    assert "in no row is one answer better than another" in capsys.readouterr().err


def test_in_python_a_function_is_a_reward() -> None:
    first, second = samples("a.jsonl", ["aaa"]), samples("b.jsonl", ["b"])
    (win,) = likelier.evaluate(
        "winrate", [first, second], reward=lambda prompt, answer: -len(answer), out="out"
    )
    assert win.losses == 8
    with pytest.raises(WorkError, match="not a finite number"):
        likelier.evaluate("winrate", [first, second], reward=lambda prompt, answer: None, out="out")
