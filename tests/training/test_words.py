"""What a run says: before its first step, as it goes, and where it is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from likelier import cli
from likelier.training.preparation import resolve_loss
from tests.training.support import model_of, pairs, rankings, train, write_rows


def said(
    capsys: pytest.CaptureFixture[str], model: Path, rows: list[dict[str, Any]], *words: str
) -> tuple[int, list[str]]:
    """Exit code and the lines on stderr."""
    data = write_rows(Path(words[words.index("--out") + 1]).with_suffix(".jsonl"), rows)
    start = ["dpo", "--model", str(model), "--data", str(data), "--precision", "float32"]
    code = cli.main([*start, *words])
    return code, capsys.readouterr().err.splitlines()


def test_a_paragraph_examples_and_a_warning(
    tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three updates at 1e-9 move nothing: said before the first of them, and written down."""
    out = tmp_path / "run"
    words = ["--out", str(out), "--batch-size", "4", "--learning-rate", "1e-9"]
    code, lines = said(capsys, tiny_llama, pairs(12), *words)
    assert code == 0
    (paragraph,) = [line for line in lines if line.startswith("3 steps of 4 pairs, one epoch of 12 pairs")]
    for part in ("Full training of", "against the policy before its first update", "Expected: about"):
        assert part in paragraph
    (warning,) = [line for line in lines if line.startswith("warning: ")]
    assert "these updates cannot move the model: 3 updates" in warning
    assert "raise --learning-rate" in warning
    assert lines.index(paragraph) < lines.index(warning)
    assert lines.index(warning) < min(i for i, line in enumerate(lines) if line.startswith("step 1/3"))
    assert warning.removeprefix("warning: ") in json.loads((out / "manifest.json").read_text())["notes"]
    examples = (out / "examples.txt").read_text()
    assert examples.count("── example row 0.") == 10
    assert f"⟦{pairs(12)[0]['chosen']}" in examples


def test_a_rate_that_moves_the_model_is_not_warned_of(
    tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--out", str(tmp_path / "run"), "--learning-rate", "1e-3"]
    assert not any("warning" in line for line in said(capsys, tiny_llama, pairs(4), *words)[1])


def test_signs_of_trouble_are_said_and_kept(
    tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rate below the spacing of float32 leaves every weight where it was."""
    out = tmp_path / "run"
    words = ["--out", str(out), "--batch-size", "1", "--learning-rate", "1e-30", "--epochs", "2"]
    _, lines = said(capsys, tiny_llama, pairs(6), *words)
    sign = "the policy has not moved in 10 steps"
    assert len([line for line in lines if line.startswith(f"warning: {sign}")]) == 1
    assert any(sign in note for note in json.loads((out / "manifest.json").read_text())["notes"])


def test_a_resumed_run_keeps_what_was_said_before(tmp_path: Path, tiny_llama: Path) -> None:
    data = str(write_rows(tmp_path / "data.jsonl", pairs(7)))
    settings: dict[str, Any] = {"precision": "float32", "learning_rate": 1e-30, "batch_size": 1, "epochs": 2}
    whole = train(str(tiny_llama), data, **settings)
    train(str(tiny_llama), data, **settings, out=tmp_path / "run", on_step=lambda line: line["step"] == 12)
    (tmp_path / "run" / "manifest.json").unlink()
    run = train(str(tiny_llama), data, **settings, out=tmp_path / "run", resume=True)
    assert run.notes == whole.notes
    assert sum("has not moved in 10 steps" in note for note in run.notes) == 1


def test_the_default_rate_of_lora_is_in_the_first_line(
    tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--out", str(tmp_path / "a"), "--lora-rank", "2", "--dry-run"]
    _, lines = said(capsys, tiny_llama, pairs(2), *words)
    assert lines[0].startswith("LoRA of rank 2: learning rate 1e-05, 10 times the default of full training")
    _, lines = said(capsys, tiny_llama, pairs(2), *words, "--learning-rate", "3e-4")
    assert lines[0] == "LoRA of rank 2: learning rate 0.0003, as given"


def test_the_reference_pass_is_counted_and_costs_nothing_the_second_time(
    tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, lines = said(capsys, tiny_llama, pairs(25), "--out", str(tmp_path / "a"))
    counted = [line for line in lines if line.startswith("reference: ")]
    assert counted[-1] == "reference: 25 of 25 prompts scored"
    assert len(counted) == 10
    _, lines = said(capsys, tiny_llama, pairs(25), "--out", str(tmp_path / "b"), "--beta", "0.5")
    assert not any(line.startswith("reference: ") for line in lines)


def test_margins_against_another_reference_are_said(
    tmp_path: Path, tiny_llama: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    model_of(tokenizer, precision="float32", seed=7, max_position_embeddings=512).save_pretrained(other)
    tokenizer.save_pretrained(other)
    out = tmp_path / "run"
    _, lines = said(capsys, tiny_llama, pairs(4), "--out", str(out), "--reference", str(other))
    (line,) = [line for line in lines if line.startswith(f"against {other} the first margins are ")]
    first = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])["rewards/margins"]
    assert float(line.split(" are ")[1].split(" on average")[0]) == pytest.approx(first, rel=1e-3)
    assert first != 0.0


def test_what_a_second_forward_costs_is_said(
    tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--batch-size", "64", "--max-tokens", "45"]
    _, lines = said(capsys, tiny_llama, rankings(3), "--out", str(tmp_path / "cut"), *words)
    assert any("exceed --max-tokens 45: they run in parts" in line for line in lines)
    loss = "tests.training.test_step:against_the_mean"
    _, lines = said(capsys, tiny_llama, pairs(3), "--out", str(tmp_path / "step"), "--loss", loss)
    assert any("takes a statistic over the whole step" in line and "third more" in line for line in lines)
    _, lines = said(capsys, tiny_llama, pairs(3), "--out", str(tmp_path / "plain"))
    assert not any("second forward" in line for line in lines)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_the_lines_of_the_run_also_after_a_resume(tmp_path: Path, tiny_llama: Path) -> None:
    from tests.training.test_trackers import scalars

    data = str(write_rows(tmp_path / "data.jsonl", pairs(6)))
    settings: dict[str, Any] = {
        "out": tmp_path / "run",
        "precision": "float32",
        "track": "tensorboard",
        "epochs": 2,
        "checkpoint_every": 2,
        "eval_data": pairs(2, seed=3),
        "eval_every": 2,
    }

    def fall(line: dict[str, Any]) -> None:
        if line["step"] == 4:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(str(tiny_llama), data, **settings, on_step=fall)
    run = train(str(tiny_llama), data, **settings, resume=True)
    shown = scalars(tmp_path / "run")
    for name in ("loss", "rewards/margins", "grad_norm", "eval/loss"):
        expected = [(line["step"], line[name]) for line in run.metrics if name in line]
        assert [step for step, _ in shown[name]] == [step for step, _ in expected]
        assert [v for _, v in shown[name]] == pytest.approx([v for _, v in expected], rel=1e-6)


def test_a_loss_of_the_table_needs_no_second_forward() -> None:
    """What is said of costs rests on this."""
    from likelier.training.config import DpoConfig

    config = DpoConfig.build({"data": ["d"]})
    assert not resolve_loss(config, "sigmoid", given=()).objective.stepwise
