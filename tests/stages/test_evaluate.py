"""`likelier evaluate preferences`: rewards of every kind on the same pairs, and what is refused."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import likelier
from likelier import cli
from likelier.engines.judges import Said
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


def test_figures_by_category(runs: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    """Rows name their category as `source`, or in a column that is given as one: the same as each part alone."""
    rows = [row | {"topic": "rain" if place < 7 else "sun"} for place, row in enumerate(pairs(12, seed=4))]
    reward, out = str(runs[0]), tmp_path / "out"
    data = write_rows(tmp_path / "rows.jsonl", rows)
    words = ["evaluate", "preferences", reward, "--data", str(data), "--columns", "source=topic"]
    assert cli.main([*words, "--out", str(out), "--precision", "float32"]) == 0
    assert "  of rain: accuracy " in capsys.readouterr().out
    found = json.loads((out / "preferences.json").read_text())[reward]
    assert [one["name"] for one in found["by_category"]] == ["rain", "sun"]
    for one, part in zip(found["by_category"], (rows[:7], rows[7:]), strict=True):
        alone = likelier.evaluate("preferences", reward, part, out=tmp_path / "part", precision="float32")[
            reward
        ]
        assert alone.by_category == ()
        for figure in ("accuracy", "log_loss"):
            assert one[figure]["value"] == pytest.approx(getattr(alone, figure).value, rel=1e-6)
            assert one[figure]["n"] == len(part)
        assert one["calibration_error"] == pytest.approx(alone.calibration_error, rel=1e-5)
    table = list(csv.DictReader((out / "preferences.csv").read_text().splitlines()))
    assert {row["figure"] for row in table if row["category"] == "sun"} == {
        *("accuracy", "log_loss", "calibration_error", "calibration_error_if_calibrated")
    }


def test_a_judge_on_what_people_preferred(patient_llama: Path, tmp_path: Path, capsys: Any) -> None:
    """By log-odds with a margin, worked out anew from what `label` says of each pair; beside a policy or alone."""
    rows = [*pairs(6, seed=4), {"prompt": "Hi", "a": "Yes.", "b": "No.", "winner": "tie"}]
    data, out = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out"
    judge = ["--judge-model", str(patient_llama), "--verdict", "log-odds", "--precision", "float32"]
    assert cli.main(["evaluate", "preferences", "--data", str(data), "--out", str(out), *judge]) == 0
    told = capsys.readouterr().out
    assert "the answer shown first wins" in told
    found = json.loads((out / "preferences.json").read_text())[f"judge {patient_llama}"]
    labelled = tmp_path / "labelled.jsonl"
    words = ["label", str(data), "--with", "judge", *judge, "--min-gap", "0", "--out", str(labelled)]
    assert cli.main(words) == 0
    by_id = {row["id"]: row for row in map(json.loads, labelled.read_text().splitlines())}
    margins = []
    for row in (json.loads(line) for line in data.read_text().splitlines()[:6]):
        said = by_id[row["id"]]
        gap = float(said["reason"].split("= ")[1].split(" ")[0])
        probability = (1 + abs(gap)) / 2
        margin = math.log(probability / (1 - probability))
        # `label` puts its own favourite first, and its gap is that of the row's first answer.
        margins.append(margin if said["chosen"] == row["chosen"] else -margin)
    assert found["pairs"] == 6
    assert found["accuracy"]["value"] == sum(margin > 0 for margin in margins) / 6
    expected = sum(math.log1p(math.exp(-margin)) for margin in margins) / 6
    assert found["log_loss"]["value"] == pytest.approx(expected, abs=1e-4)
    assert found["judge"]["accuracy"]["value"] == found["accuracy"]["value"]
    assert found["unit"] == "characters"


def test_a_judge_that_writes_has_no_margin(
    patient_llama: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signs alone: accuracy with ties half, and neither log loss nor calibration; unread verdicts are left out."""
    verdicts = {"A": ("A", "B"), "both": ("A", "A"), "B": ("B", "A"), "?": ("A", None)}
    kinds = list(verdicts)
    rows = [
        {"prompt": f"{kind}: go on", "chosen": "Yes, I will.", "rejected": "No.", "source": kind[0]}
        for kind in kinds
    ]

    def replies(judge: Any, questions: list[str], *, say: Any) -> Any:
        sides = [verdicts[kind][order] for kind in kinds for order in (0, 1)]
        return [Said(text=f"Verdict: {side}" if side else "I cannot say.") for side in sides], 0

    monkeypatch.setattr("likelier.engines.judging._replies", replies)
    out = tmp_path / "out"
    name = f"judge {patient_llama}"
    found = likelier.evaluate("preferences", data=rows, judge_model=str(patient_llama), out=out)[name]
    assert (found.pairs, found.accuracy.value) == (3, 0.5)
    assert (found.log_loss, found.margin, found.calibration_error, found.reliability) == (None,) * 3 + ((),)
    assert [(one.name, one.accuracy.value, one.log_loss) for one in found.by_category] == [
        ("A", 1.0, None), ("B", 0.0, None), ("b", 0.5, None),
    ]  # fmt: skip
    result = json.loads((out / "preferences.json").read_text())
    assert result[name]["judge"]["unparsable"] == 1
    assert cli.main(["report", str(out), "--out", str(tmp_path / "page.html")]) == 0
    assert name in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["frontiers", "a"], "--what: input should be 'preferences', 'frontier', 'winrate' or 'temperature'"),
        (
            ["preferences", "a", "--prompts", "b"],
            "--prompts is for evaluate frontier or winrate or temperature",
        ),
        (["preferences"], "--runs is missing"),
        (["preferences", "a", "--judge", "local"], "--judge is for a judge: give --judge-model"),
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
