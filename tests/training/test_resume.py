"""Promise 5: resuming equals never having stopped, after SIGKILL of a real process at any moment.

Final weights, optimiser state (checkpoints, byte for byte) and metrics (times and rates apart).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training.support import contents, metrics_of, pairs, rankings, write_rows

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")

ROOT = Path(__file__).parents[2]
KILLED = -9

POINTS = {
    # Ten pairs in steps of three: four steps an epoch, the last short; checkpoints after 2, 4, 6, 8.
    "before the first step": ("step", 1),
    "in the reference pass": ("reference", 6),
    "mid-epoch 1": ("step", 4),
    "at the epoch's edge": ("step", 5),
    "mid-epoch 2": ("step", 8),
    "between the packs of a step": ("second forward", 4),
    "between a forward and its backward": ("second backward", 7),
    "after a step, before its checkpoint": ("checkpoint", 2),
    "between the files of a checkpoint": ("weights", 4),
    "inside a file of a checkpoint": ("half a file", 5),
    "before a checkpoint is renamed": ("rename", 3),
    "inside the best weights": ("half of the best", 2),
    "inside a line of metrics": ("half a line", 6),
    "before the model is written": ("model", 1),
    "before the manifest is written": ("manifest", 1),
}
FEW = (
    "before the first step",
    "mid-epoch 1",
    "at the epoch's edge",
    "mid-epoch 2",
    "between the packs of a step",
    "inside a file of a checkpoint",
)


def run_all(jobs: list[dict[str, Any]], *, threads: int = 2) -> list[dict[str, Any]]:
    """What became of each command line; none of the processes is left."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.training.driver"],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"},
        timeout=600,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(jobs)
    for result in results:
        with pytest.raises(ProcessLookupError):
            os.kill(result["process"], 0)
    return results


class Case:
    """A run in `tmp`, and what is needed to do it again in another folder."""

    def __init__(self, tmp: Path, model: Path, rows: list[dict[str, Any]], *more: str) -> None:
        self.tmp = tmp
        data = write_rows(tmp / "data.jsonl", rows)
        held_out = write_rows(tmp / "eval.jsonl", pairs(4, seed=9))
        prompts = write_rows(tmp / "prompts.jsonl", [{"prompt": "the cat sat on"}, {"prompt": "please"}])
        self.words = [
            *("dpo", "--model", str(model), "--data", str(data), "--eval-data", str(held_out)),
            *("--eval-every", "3", "--keep-best", "eval/loss", "--checkpoint-every", "2"),
            *(
                "--keep-checkpoints",
                "3",
                "--epochs",
                "2",
                "--learning-rate",
                "1e-3",
                "--precision",
                "float32",
            ),
            *("--sample-prompts", str(prompts), "--sample-every", "5"),
            *("--max-tokens", "44", "--schedule", "linear", "--warmup-steps", "3"),
            *more,
        ]

    def job(self, name: str, *more: str, cache: str | None = None, **hook: Any) -> dict[str, Any]:
        return {
            "words": [*self.words, "--out", str(self.tmp / name), *more],
            "cache": str(self.tmp / (cache or f"{name}-cache")),
            **hook,
        }

    def require_equal(self, name: str) -> None:
        """The run in folder `name` is the one in `whole`."""
        whole, other = self.tmp / "whole", self.tmp / name
        assert metrics_of(other) == metrics_of(whole)
        expected, found = contents(whole / "checkpoints"), contents(other / "checkpoints")
        assert sorted(found) == sorted(expected)
        assert {n for n in expected if found[n] != expected[n]} == set()
        for file in ("model/model.safetensors", "model/config.json", "examples.txt", "samples.jsonl"):
            assert (other / file).read_bytes() == (whole / file).read_bytes(), file
        left = [path.name for path in other.rglob(".*") if not path.name.startswith(".lock")]
        assert left == []


def resumed(case: Case, points: dict[str, tuple[str, int]]) -> None:
    """Every point: killed, resumed with a cache that knows nothing, and equal to the run in `whole`."""
    jobs = [case.job("whole")]
    for number, (at, nth) in enumerate(points.values()):
        jobs.append(case.job(str(number), at=at, nth=nth))
        jobs.append(case.job(str(number), "--resume", cache=f"{number}-second-cache"))
    results = run_all(jobs)
    assert results[0]["ended"] == 0, results[0]["errors"]
    for number, point in enumerate(points):
        killed, again = results[1 + 2 * number : 3 + 2 * number]
        assert killed["ended"] == KILLED, (point, killed["errors"])
        assert again["ended"] == 0, (point, again["errors"])
        try:
            case.require_equal(str(number))
        except AssertionError as error:
            raise AssertionError(f"killed {point}: {error}") from error


def test_pairs(tmp_path: Path, tiny_llama: Path) -> None:
    resumed(Case(tmp_path, tiny_llama, pairs(10), "--batch-size", "3"), POINTS)


def test_four_ranked_answers(tmp_path: Path, tiny_llama: Path) -> None:
    """K = 4: the trunk's keys are expanded for four branches, whose gradients meet again."""
    case = Case(tmp_path, tiny_llama, rankings(8, answers=4), "--batch-size", "12", "--max-tokens", "128")
    case.words.remove("44")
    case.words.remove("--max-tokens")
    resumed(case, {point: POINTS[point] for point in FEW})


def test_rmsprop_and_lora(tmp_path: Path, tiny_llama: Path) -> None:
    case = Case(
        *(tmp_path, tiny_llama, pairs(10), "--batch-size", "3"),
        *("--optimizer", "rmsprop", "--lora-rank", "2"),
    )
    jobs = [case.job("whole"), case.job("a", at="step", nth=6), case.job("a", "--resume", cache="other")]
    results = run_all(jobs)
    assert [result["ended"] for result in results] == [0, KILLED, 0], results
    assert metrics_of(tmp_path / "a") == metrics_of(tmp_path / "whole")
    assert contents(tmp_path / "a" / "checkpoints") == contents(tmp_path / "whole" / "checkpoints")


def test_bfloat16_and_a_reference_of_its_own(tmp_path: Path, tiny_llama: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_llama, other)
    case = Case(
        *(tmp_path, tiny_llama, pairs(10), "--batch-size", "3", "--reference", str(other)),
    )
    case.words[case.words.index("float32")] = "bfloat16"
    jobs = [case.job("whole"), case.job("a", at="step", nth=6), case.job("a", "--resume", cache="other")]
    results = run_all(jobs)
    assert [result["ended"] for result in results] == [0, KILLED, 0], results
    case.require_equal("a")


def test_killed_twice(tmp_path: Path, tiny_llama: Path) -> None:
    case = Case(tmp_path, tiny_llama, pairs(10), "--batch-size", "3")
    jobs = [
        case.job("whole"),
        case.job("a", at="step", nth=4),
        # Counted anew: going on after step 2, its third step is the run's fifth.
        case.job("a", "--resume", at="half a file", nth=5),
        case.job("a", "--resume"),
    ]
    results = run_all(jobs)
    assert [result["ended"] for result in results] == [0, KILLED, KILLED, 0], results
    case.require_equal("a")


def test_the_comparison_can_fail(tmp_path: Path, tiny_llama: Path) -> None:
    """With the optimiser's state left out on the way back, the runs part."""
    case = Case(tmp_path, tiny_llama, pairs(10), "--batch-size", "3")
    jobs = [
        case.job("whole"),
        case.job("a", at="step", nth=4),
        case.job("a", "--resume", at="forget the optimiser"),
    ]
    assert [result["ended"] for result in run_all(jobs)] == [0, KILLED, 0]
    assert metrics_of(tmp_path / "a")[:3] == metrics_of(tmp_path / "whole")[:3]
    assert metrics_of(tmp_path / "a") != metrics_of(tmp_path / "whole")
    with pytest.raises(AssertionError):
        case.require_equal("a")
