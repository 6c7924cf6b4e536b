"""Promise 5 for `likelier ppo`: killed and resumed equals never stopped, also between a rollout and its updates."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.families import tiny
from tests.training.support import contents, metrics_of, write_rows
from tests.training.test_resume import KILLED, Case, run_all

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")

POINTS = {
    # Four prompts, four answers a step of two prompts: two steps an epoch, two epochs; two passes of two minibatches.
    # Checkpoints after 2 and 4.
    "in the first rollout": ("drawing", 3),
    "between a rollout and its updates": ("updates", 4),
    "between the updates of a rollout": ("update", 10),
    "inside an update, between the packs": ("second backward", 3),
    "inside a file of a checkpoint": ("half a file", 4),
}


class PpoCase(Case):
    """A run of `likelier ppo`, evaluated and sampled from on its way."""

    def __init__(self, tmp: Path, model: Path, *more: str, precision: str = "float32") -> None:
        self.tmp = tmp
        prompts = write_rows(
            tmp / "prompts.jsonl",
            [
                {"id": f"p{n}", "prompt": text}
                for n, text in enumerate(["the cat", "a dog", "rain", "on mats"])
            ],
        )
        held_out = write_rows(tmp / "eval.jsonl", [{"prompt": "please help"}, {"prompt": "what"}])
        self.words = [
            *("ppo", "--model", str(model), "--prompts", str(prompts), "--eval-prompts", str(held_out)),
            *("--reward", "regex:[aeiou]", "--eval-every", "2", "--keep-best", "eval/loss"),
            *("--checkpoint-every", "2", "--keep-checkpoints", "3", "--epochs", "2"),
            *("--learning-rate", "1e-2"),
            *("--precision", precision, "--n", "2", "--batch-size", "4", "--max-new-tokens", "6"),
            *("--rollout-epochs", "2", "--minibatches", "2", "--target-kl", "0.5", "--normalize-rewards"),
            *("--sample-prompts", str(held_out), "--sample-every", "3", "--max-tokens", "16"),
            *("--warmup-steps", "0", *more),
        ]


def killed_and_resumed(case: PpoCase, points: list[str]) -> list[dict[str, Any]]:
    """Command lines that run to the end, and for each point one that is killed there and one that goes on."""
    jobs = [case.job("whole")]
    for number, point in enumerate(points):
        at, nth = POINTS[point]
        jobs += [case.job(str(number), at=at, nth=nth), case.job(str(number), "--resume")]
    return jobs


def require_same(case: PpoCase, points: list[str], results: list[dict[str, Any]]) -> None:
    """Every run ended as it should, and where the run that was never stopped did."""
    assert results[0]["ended"] == 0, results[0]["errors"]
    for number, point in enumerate(points):
        killed, again = results[1 + 2 * number : 3 + 2 * number]
        assert killed["ended"] == KILLED, (point, killed["errors"])
        assert again["ended"] == 0, (point, again["errors"])
        case.require_equal(str(number))


def test_killed_at_any_moment(tmp_path: Path, tiny_llama: Path) -> None:
    """And with the optimiser's state left out on the way back the runs part: the comparison can fail."""
    case = PpoCase(tmp_path, tiny_llama)
    jobs = killed_and_resumed(case, list(POINTS))
    jobs += [case.job("forgetful", at="updates", nth=4)]
    jobs += [case.job("forgetful", "--resume", at="forget the optimiser")]
    results = run_all(jobs, threads=1)
    require_same(case, list(POINTS), results)
    lines = metrics_of(tmp_path / "whole")
    # The controller and the running mean went on from the checkpoint, and something was learned on the way.
    assert len({line["beta"] for line in lines if "beta" in line}) > 1
    assert any(line.get("kl", 0.0) != 0.0 for line in lines)
    assert [result["ended"] for result in results[-2:]] == [KILLED, 0]
    assert metrics_of(tmp_path / "forgetful") != lines


LATE = [
    "between a rollout and its updates",
    "between the updates of a rollout",
    "inside an update, between the packs",
    "inside a file of a checkpoint",
]


def test_killed_in_bfloat16(tmp_path: Path, tiny_llama: Path) -> None:
    """The working copies of the weights, and the copy that draws, come back from the float32 masters."""
    case = PpoCase(tmp_path, tiny_llama, precision="bfloat16")
    require_same(case, LATE, run_all(killed_and_resumed(case, LATE), threads=1))
    assert "precision: bfloat16" in (tmp_path / "whole" / "config.yaml").read_text()


def test_killed_with_another_reference(tmp_path: Path, tiny_llama: Path, tokenizer: Any) -> None:
    """KL is measured from that model before and after, and a resume that leaves it out is refused."""
    other = tiny("llama", seed=1, dtype=torch.float32, vocab_size=len(tokenizer), max_position_embeddings=512)
    other.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    case = PpoCase(tmp_path, tiny_llama, "--reference", str(tmp_path / "other"))
    forgotten = PpoCase(tmp_path, tiny_llama).job("0", "--resume")
    jobs = killed_and_resumed(case, LATE)
    results = run_all([*jobs[:2], forgotten, *jobs[2:]], threads=1)
    assert results.pop(2)["ended"] == 2
    require_same(case, LATE, results)
    # Of the policy itself it would be 0 before the first update.
    assert metrics_of(tmp_path / "whole")[0]["eval/kl"] > 0.1


def test_lora_with_a_value_and_a_changed_setting(tmp_path: Path, tiny_llama: Path) -> None:
    """An adapter and the value head come back; what would change an update is refused."""
    case = PpoCase(tmp_path, tiny_llama, "--lora-rank", "2")
    jobs = [case.job("whole"), case.job("a", at="updates", nth=4)]
    jobs += [case.job("a", "--resume", "--clip-range", "0.3"), case.job("a", "--resume")]
    results = run_all(jobs, threads=1)
    assert [result["ended"] for result in results] == [0, KILLED, 2, 0], results
    assert "--resume: --clip-range was 0.2 when this run began" in results[2]["errors"]
    assert metrics_of(tmp_path / "a") == metrics_of(tmp_path / "whole")
    assert contents(tmp_path / "a" / "checkpoints") == contents(tmp_path / "whole" / "checkpoints")
