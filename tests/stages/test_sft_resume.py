"""Promise 5 for `likelier sft`: killed and resumed equals never stopped, also where the model grew new tokens."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.models.test_chat import base_tokenizer
from tests.stages.test_sft import answers, turn
from tests.training.support import contents, metrics_of, model_of, pairs, write_rows
from tests.training.test_resume import KILLED, Case, run_all

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")


def conversations(count: int, *, seed: int) -> list[dict[str, Any]]:
    """Two turns of the assistant each."""
    rows = []
    for row in answers(count, seed=seed):
        asked, said = turn("user", row["prompt"]), turn("assistant", row["completion"].strip())
        rows.append({"id": row["id"], "messages": [asked, said, turn("user", "and?"), said]})
    return rows


class SftCase(Case):
    """The same of `likelier sft`, evaluated on `held_out`."""

    def __init__(
        self, tmp: Path, model: Path, rows: list[dict[str, Any]], held_out: list[dict[str, Any]], *more: str
    ) -> None:
        super().__init__(tmp, model, rows, "--batch-size", "3", *more)
        self.words[0] = "sft"
        write_rows(tmp / "eval.jsonl", held_out)


def test_conversations_with_a_template_of_new_tokens(tmp_path: Path) -> None:
    """Before the first step, inside the accumulation of a step of epoch 1, and in epoch 2."""
    tokenizer, base = base_tokenizer(), tmp_path / "base"
    model_of(tokenizer, precision="float32", max_position_embeddings=512).save_pretrained(base)
    tokenizer.save_pretrained(base)
    case = SftCase(
        *(tmp_path, base, conversations(10, seed=0), conversations(4, seed=9), "--template", "chatml"),
    )
    case.words[case.words.index("--max-tokens") + 1] = "150"
    points = (("step", 1), ("second backward", 4), ("step", 8))
    jobs = [case.job("whole")]
    for number, (at, nth) in enumerate(points):
        jobs += [case.job(str(number), at=at, nth=nth), case.job(str(number), "--resume")]
    results = run_all(jobs)
    assert [result["ended"] for result in results] == [0, *[KILLED, 0] * len(points)], results
    for number in range(len(points)):
        case.require_equal(str(number))


def test_the_chosen_side_with_lora(tmp_path: Path, tiny_llama: Path) -> None:
    case = SftCase(
        *(tmp_path, tiny_llama, pairs(10), pairs(4, seed=9)),
        *("--on", "chosen", "--lora-rank", "2", "--optimizer", "rmsprop"),
    )
    jobs = [case.job("whole"), case.job("a", at="half a file", nth=3), case.job("a", "--resume")]
    # What a run trains on is part of what it is.
    jobs.append({**case.job("b", at="step", nth=6)})
    jobs.append(case.job("b", "--resume", "--weigh", "prompts"))
    results = run_all(jobs)
    assert [result["ended"] for result in results] == [0, KILLED, 0, KILLED, 2], results
    assert "--resume: --weigh was rows when this run began" in results[-1]["errors"]
    assert metrics_of(tmp_path / "a") == metrics_of(tmp_path / "whole")
    assert contents(tmp_path / "a" / "checkpoints") == contents(tmp_path / "whole" / "checkpoints")
