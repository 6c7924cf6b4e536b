"""`likelier evaluate preferences`: rewards of every kind on the same pairs, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import likelier
from likelier import cli
from likelier.stats import evaluate_preferences
from tests.training.conftest import no_timing, own_cache
from tests.training.support import pairs, write_rows

__all__ = ["no_timing", "own_cache"]

SETTINGS: dict[str, Any] = {"precision": "float32", "learning_rate": 1e-3, "batch_size": 4}


@pytest.fixture
def runs(tiny_llama: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A reward model, and a policy at β = 0.3."""
    reward, policy = tmp_path / "reward", tmp_path / "policy"
    likelier.reward(str(tiny_llama), pairs(12), out=reward, eval_share=0.3, **SETTINGS)
    likelier.dpo(str(tiny_llama), pairs(12), out=policy, beta=0.3, eval_share=0.3, **SETTINGS)
    return reward, policy


def test_a_reward_model_and_a_policy_side_by_side(
    runs: tuple[Path, Path], tiny_llama: Path, tmp_path: Path, capsys: Any
) -> None:
    reward, policy = runs
    data, out = write_rows(tmp_path / "rows.jsonl", pairs(20, seed=4)), tmp_path / "compared"
    words = ["evaluate", "preferences", str(reward), str(policy), "--data", str(data), "--out", str(out)]
    assert cli.main([*words, "--precision", "float32"]) == 0
    said = capsys.readouterr().out
    assert said.count("accuracy 0.") + said.count("accuracy 1 ") >= 2
    result = json.loads((out / "preferences.json").read_text())
    assert list(result) == [str(reward), str(policy)]
    lines = {
        str(reward): likelier.score(reward=str(reward / "model"), data=str(data), precision="float32"),
        str(policy): likelier.score(
            str(policy / "model"), str(data), reference=str(tiny_llama), beta=0.3, precision="float32"
        ),
    }
    for name, found in result.items():
        margins = [line["rewards"][0] - line["rewards"][1] for line in lines[name]]
        expected = evaluate_preferences(
            margins,
            length_differences=[line["lengths"][0] - line["lengths"][1] for line in lines[name]],
            prompts=range(20),
        ).as_dict()
        assert found == json.loads(json.dumps(expected))
        assert found["pairs"] == 20
    table = list(csv.DictReader((out / "preferences.csv").read_text().splitlines()))
    accuracies = [row for row in table if row["figure"] == "accuracy"]
    assert [float(row["value"]) for row in accuracies] == [
        one["accuracy"]["value"] for one in result.values()
    ]
    groups = [row for row in table if row["figure"] == "by_length" and row["reward"] == str(reward)]
    assert sum(int(row["pairs"]) for row in groups) == 20
    assert (out / "preferences.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (out / "preferences.svg").read_text()
    assert json.loads((out / "preferences.manifest.json").read_text())["stage"] == "evaluate"


def test_only_what_a_run_held_out(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """The accuracy is that of the run's own last evaluation, but for centring."""
    _, policy = runs
    found = likelier.evaluate(
        "preferences", policy, pairs(12), out=tmp_path / "out", eval_share=0.3, precision="float32"
    )[str(policy)]
    last = [json.loads(line) for line in (policy / "metrics.jsonl").read_text().splitlines()][-1]
    assert found.pairs == last["eval/pairs"] == 4
    assert found.accuracy.value == last["eval/rewards/accuracies"]
    assert found.log_loss.value == pytest.approx(last["eval/loss"], rel=1e-5)
    assert np.isclose(found.margin.value, last["eval/rewards/margins"], rtol=1e-4)


def test_rows_that_it_was_trained_on_are_spoken_of(
    runs: tuple[Path, Path], tmp_path: Path, capsys: Any
) -> None:
    run = tmp_path / "all"
    likelier.reward(str(runs[0] / "model"), pairs(6), out=run, **SETTINGS)
    data = write_rows(tmp_path / "rows.jsonl", pairs(6))
    words = [
        "evaluate",
        "preferences",
        str(run),
        "--data",
        str(data),
        "--out",
        str(tmp_path / "out"),
        "--json",
    ]
    assert cli.main([*words, "--precision", "float32"]) == 0
    streams = capsys.readouterr()
    assert "trained on these very rows" in streams.err
    assert json.loads(streams.out)[str(run)]["pairs"] == 6


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["frontiers", "a"], "--what: input should be 'preferences', 'frontier', 'winrate' or 'temperature'"),
        (
            ["preferences", "a", "--prompts", "b"],
            "--prompts is for evaluate frontier or winrate or temperature",
        ),
        (["preferences"], "--runs is missing"),
        (["preferences", "{policy}"], "needs the policy that it started from: --reference MODEL"),
        (["preferences", "nowhere/at/all"], "nowhere/at/all"),
    ],
)
def test_what_is_refused(words: list[str], told: str, tiny_llama: Path, tmp_path: Path, capsys: Any) -> None:
    data = write_rows(tmp_path / "rows.jsonl", pairs(3))
    given = [word.replace("{policy}", str(tiny_llama)) for word in words]
    assert cli.main(["evaluate", *given, "--data", str(data), "--out", str(tmp_path / "out")]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--reward", "length", "--model", "smollm2"], "--reward gives rewards by itself, without --model"),
        (["--reward", "length", "--beta", "1"], "without --beta"),
        (["--reward", "lenght"], "did you mean `length`?"),
        (["--reward", "{policy}"], "which does not classify"),
    ],
)
def test_what_score_refuses(
    words: list[str], told: str, tiny_llama: Path, tmp_path: Path, capsys: Any
) -> None:
    data = write_rows(tmp_path / "rows.jsonl", pairs(3))
    given = [word.replace("{policy}", str(tiny_llama)) for word in words]
    assert cli.main(["score", *given, "--data", str(data)]) == 2
    assert told in capsys.readouterr().err


def test_rules_score_texts() -> None:
    lines = likelier.score(reward="length", data=[{"prompt": "a", "chosen": " b c", "rejected": " d"}])
    assert lines == [{"id": "1", "row": 1, "rewards": [2.0, 1.0]}]
