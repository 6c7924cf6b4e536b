"""`--keep-best`: the best by its figure, on its rows, and still there for whichever checkpoint a run goes on from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from likelier.errors import UsageError
from likelier.training import preferences
from likelier.training.best import improved
from likelier.training.checkpoint import Position, read_state
from tests.training.support import pairs, train, weights_of, write_rows


def steps_that_improve(values: list[float], figure: str = "eval/loss") -> list[int]:
    position, better = Position(), []
    for position.step, value in enumerate(values):
        if improved(position, {figure: value}, figure):
            better.append(position.step)
            assert (position.best, position.best_step) == (value, position.step)
    return better


def test_the_best_is_the_smallest_loss_or_the_largest_of_the_rest() -> None:
    assert steps_that_improve([0.7, 0.6, 0.6, 0.9, 0.1]) == [0, 1, 4]
    assert steps_that_improve([0.5, 0.4, 0.6], "eval/rewards/accuracies") == [0, 2]
    assert steps_that_improve([9.0, 9.5, 8.0], "eval/perplexity") == [0, 2]


def test_what_is_not_finite_is_never_the_best() -> None:
    assert steps_that_improve([math.nan, 0.7, math.nan, 0.6, -math.inf]) == [1, 3]
    assert steps_that_improve([math.inf, 0.7], "eval/rewards/margins") == [1]


def test_evaluations_without_a_better_one_are_counted() -> None:
    position = Position()
    for value, count in ((0.7, 0), (0.8, 1), (math.nan, 2), (0.6, 0), (0.6, 1)):
        improved(position, {"eval/loss": value}, "eval/loss")
        assert position.evaluations_since_best == count


def test_a_figure_that_the_run_lacks_is_named_with_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"--keep-best eval/los: .*did you mean `eval/loss`\?; it has eval/loss"
    ):
        improved(Position(), {"step": 1, "eval/loss": 1.0, "eval/low": None}, "eval/los")


def test_what_was_best_by_another_figure_or_on_other_rows_is_forgotten() -> None:
    position = Position()
    line = {"eval/loss": 0.1, "eval/rewards/accuracies": 0.6}
    assert improved(position, line, "eval/loss", rows="a")
    assert improved(position, line | {"eval/loss": 0.5}, "eval/loss", rows="b")
    assert improved(position, line, "eval/rewards/accuracies", rows="b")
    assert not improved(position, line, "eval/rewards/accuracies", rows="b")


class Killed(Exception):
    """Stands for the end of the process: nothing of the run catches it."""


def kept(folder: Path) -> set[str]:
    return {path.name for path in (folder / "checkpoints").glob("best-*")}


def test_a_checkpoint_finds_the_best_that_it_names(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after a better step than the checkpoint's best, and not going that far again."""
    losses = iter([0.7, 0.6, 0.65, 0.4])
    monkeypatch.setattr(preferences, "evaluate", lambda *_: {"eval/loss": next(losses)})
    data = write_rows(tmp_path / "data.jsonl", pairs(6))
    settings: dict[str, Any] = {
        "out": tmp_path / "run",
        "precision": "float32",
        "epochs": 2,
        "keep_best": "eval/loss",
        "eval_every": 1,
        "checkpoint_every": 2,
        "eval_data": pairs(2, seed=4),
    }

    def on_step(line: dict[str, Any]) -> None:
        if line["step"] == 4:
            raise Killed

    with pytest.raises(Killed):
        train(str(tiny_llama), str(data), **settings, on_step=on_step)
    assert kept(tmp_path / "run") == {"best-1", "best-3"}
    run = train(str(tiny_llama), str(data), **settings, resume=True, max_steps=2)
    assert kept(tmp_path / "run") <= {"best-1", "best-3"}
    alone = train(str(tiny_llama), str(data), precision="float32", epochs=2, max_steps=1).model
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    expected = weights_of(alone)
    assert all(torch.equal(found, expected[name]) for name, found in saved.named_parameters())
    assert run.result["step"] == 2


def test_one_folder_is_left_in_the_end(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([0.7, 0.6, 0.5, 0.4, 0.45])
    monkeypatch.setattr(preferences, "evaluate", lambda *_: {"eval/loss": next(losses)})
    settings: dict[str, Any] = {"precision": "float32", "epochs": 2, "eval_every": 1, "checkpoint_every": 2}
    train(
        *(str(tiny_llama), pairs(6)),
        **settings,
        out=tmp_path,
        keep_best="eval/loss",
        eval_data=pairs(2, seed=4),
    )
    assert kept(tmp_path) == {"best-3"}


def test_the_last_checkpoint_knows_the_last_evaluation(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four steps, evaluated after the third and, since it is the last, the fourth."""
    losses = iter([0.7, 0.6, 0.5])
    monkeypatch.setattr(preferences, "evaluate", lambda *_: {"eval/loss": next(losses)})
    train(
        *(str(tiny_llama), pairs(4)),
        precision="float32",
        batch_size=1,
        eval_every=3,
        checkpoint_every=2,
        out=tmp_path,
        keep_best="eval/loss",
        eval_data=pairs(2, seed=4),
    )
    position, _ = read_state(tmp_path / "checkpoints" / "step-4")
    assert (position.best_step, position.best) == (4, 0.5)


def test_damaged_best_weights_are_named(tmp_path: Path, tiny_llama: Path) -> None:
    settings: dict[str, Any] = {"precision": "float32", "eval_every": 1, "eval_data": pairs(2, seed=4)}

    def spoil(line: dict[str, Any]) -> None:
        if line["step"] == 2:
            for path in tmp_path.glob("run/checkpoints/best-*/weights.safetensors"):
                path.write_bytes(b"xx")

    # A rate so high that nothing after the start is better.
    with pytest.raises(UsageError, match=r"best-\d+ are damaged .*--resume without --keep-best"):
        train(
            *(str(tiny_llama), pairs(6)),
            **settings,
            out=tmp_path / "run",
            keep_best="eval/logps/chosen",
            learning_rate=1.0,
            on_step=spoil,
        )
