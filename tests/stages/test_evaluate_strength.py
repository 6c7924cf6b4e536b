"""`--strength` in `evaluate winrate` and `temperature`: the answers that `sample --strength` draws, and said so."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import likelier
from likelier import cli
from likelier.models.loading import load_model
from likelier.stages.sample import sample
from tests.stages.test_sample_strength import PROMPTS, SIZE, run
from tests.training.support import write_rows

__all__ = ["run"]

ROWS = [{**row, "human": " on the mat and away"} for row in PROMPTS]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIKELIER_CACHE", str(tmp_path / "cache"))
    write_rows(tmp_path / "prompts.jsonl", ROWS)
    return tmp_path


def evaluated(what: str, runs: Any, **more: Any) -> Any:
    return likelier.evaluate(what, runs, prompts="prompts.jsonl", reward="length", out="out", **SIZE | more)


def texts(rows: list[dict[str, Any]]) -> list[list[str]]:
    return [[answer["text"] for answer in row["completions"]] for row in rows]


def written(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(f"out/{name}.answers.jsonl").read_text().splitlines()]


def test_a_run_at_a_strength_against_itself_as_it_is(run: Path, tiny_llama: Path) -> None:
    (win,) = evaluated("winrate", [str(run)], against=str(run), strength=2.0)
    rows = written("winrate")
    assert texts(rows[:2]) == texts(sample(str(run / "model"), PROMPTS, strength=2.0, **SIZE))
    assert texts(rows[2:]) == texts(sample(str(run / "model"), PROMPTS, **SIZE))
    assert texts(rows[:2]) != texts(rows[2:])
    assert (win.first, win.strength, win.second) == (f"{run} at strength 2", 2.0, str(run))
    result = json.loads(Path("out/winrate.json").read_text())
    assert (result["strength"], result["references"]) == (2.0, {str(run): str(tiny_llama)})
    assert result["words"][0].startswith(f"{run} at strength 2 against {run}: win rate")
    assert f"strength 2: next tokens of {run} mixed with those of {tiny_llama}" in result["words"][0]
    (row,) = csv.DictReader(Path("out/winrate.csv").read_text().splitlines())
    assert (row["first"], row["strength"]) == (f"{run} at strength 2", "2.0")
    assert json.loads(Path("out/winrate.manifest.json").read_text())["config"]["strength"] == 2.0


def test_the_ends_are_the_models_themselves(run: Path, tiny_llama: Path) -> None:
    """At 0 what it was trained from, at 1 itself: ties alone, since the random numbers are the same."""
    for strength, other in ((0.0, tiny_llama), (1.0, run)):
        (win,) = evaluated("winrate", [str(run)], against=str(other), strength=strength)
        assert (win.ties, win.wins, win.losses, win.strength) == (4, 0, 0, strength)


def test_two_runs_are_both_at_the_strength_and_a_reference_may_be_named(run: Path, tiny_llama: Path) -> None:
    (win,) = evaluated("winrate", [str(run), str(tiny_llama)], strength=0.5, reference=str(run / "model"))
    assert (win.first, win.second) == (f"{run} at strength 0.5", f"{tiny_llama} at strength 0.5")
    other = sample(str(tiny_llama), PROMPTS, strength=0.5, reference=str(run / "model"), **SIZE)
    assert texts(written("winrate")[2:]) == texts(other)


def test_temperatures_at_a_strength(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "temperature", str(run), "--prompts", "prompts.jsonl", "--baseline", "human"]
    words += [
        "--reward",
        "length",
        "--temperatures",
        "0.5,1",
        "--strength",
        "1.5",
        "--n",
        "2",
        "--out",
        "out",
    ]
    assert cli.main([*words, "--max-new-tokens", "5", "--precision", "float32"]) == 0
    assert f"{run} at strength 1.5 wins most at temperature" in capsys.readouterr().out
    rows = written("temperature")
    for place, temperature in enumerate((0.5, 1.0)):
        own = rows[2 * place : 2 * place + 2]
        drawn = sample(str(run / "model"), PROMPTS, strength=1.5, temperature=temperature, **SIZE)
        assert texts(own) == texts(drawn)
        assert own[0]["sampling"]["strength"] == 1.5
        assert own[0]["sampling"]["temperature"] == temperature
    table = list(csv.DictReader(Path("out/temperature.csv").read_text().splitlines()))
    assert [row["strength"] for row in table] == ["1.5", "1.5"]
    result = json.loads(Path("out/temperature.json").read_text())
    assert result["sweeps"][0]["run"] == f"{run} at strength 1.5"
    assert "at strength 1.5" in Path("out/temperature.svg").read_text()


def test_what_the_dial_drew_is_not_drawn_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated("frontier", [str(run)], dial=True, strengths=[1.5])
    words = [
        "evaluate",
        "winrate",
        str(run),
        "--baseline",
        "human",
        "--prompts",
        "prompts.jsonl",
        "--strength",
    ]
    words += ["1.5", "--reward", "length", "--n", "2", "--max-new-tokens", "5", "--precision", "float32"]
    assert cli.main([*words, "--out", "won"]) == 0
    assert "at strength 1.5, temperature 1: 2 prompts, 2 of them answered before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("winrate RUN --against a.jsonl --strength=-1", "--strength: input should be greater than or equal to 0"),
        ("winrate RUN --against a.jsonl --strength nan", "--strength: input should be a finite number"),
        ("winrate RUN a.jsonl --strength 2", "a.jsonl holds answers: draw those by `likelier sample --strength`"),
        ("winrate BASE --against a.jsonl --strength 2", "which it does not say: give --reference MODEL"),
        ("temperature BASE --baseline human --strength 2", "which it does not say: give --reference MODEL"),
        ("winrate RUN --against a.jsonl --reference BASE", "--reference is what --strength mixes with; give both"),
        ("frontier RUN --strength 2", "--strength is for evaluate winrate or temperature, not evaluate frontier"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_what_is_refused(
    words: str, told: str, dry: list[str], run: Path, tiny_llama: Path, capsys: Any
) -> None:
    rows = [{**row, "completions": [{"text": "a", "tokens": [5], "finish": "stop"}]} for row in PROMPTS]
    write_rows(Path("a.jsonl"), rows)
    given = words.replace("RUN", str(run)).replace("BASE", str(tiny_llama)).split()
    more = ["--prompts", "prompts.jsonl", "--reward", "length", "--out", "out", *dry]
    assert cli.main(["evaluate", *given, *more]) == 2
    assert told in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_dry_run_counts_both_models(
    run: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two prompts of 2 tokens and 1, or what the tokeniser makes of them, and 2 answers of 5 tokens to each."""
    tokenizer = load_model(str(tiny_llama)).tokenizer
    read = sum(len(tokenizer(row["prompt"])["input_ids"]) for row in PROMPTS) + 2 * 2 * 5
    words = (
        f"evaluate temperature {run} --prompts prompts.jsonl --baseline human --reward length --n 2 --out out"
    )
    words += " --max-new-tokens 5 --temperatures 0.5,1,2 --dry-run --json"
    for strength, models in ((None, 1), ("0", 1), ("1", 1), ("1.5", 2)):
        assert cli.main([*words.split(), *([] if strength is None else ["--strength", strength])]) == 0
        said = capsys.readouterr()
        assert json.loads(said.out)["tokens_at_most"] == 3 * read * models
        assert (f", mixed with {tiny_llama} (" in said.err) == (models == 2)
