"""SIGKILL during `evaluate frontier --dial`: nothing is drawn twice, and the result is that of one never killed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.stages.test_evaluate_frontier import here, trained
from tests.stages.test_sample_kills import whole_and_killed
from tests.training.conftest import no_timing, own_cache

__all__ = ["here", "no_timing", "own_cache", "trained"]


def answered_before(stderr: str) -> dict[str, int]:
    """Of each policy that was sampled, how many of its prompts had their answers already."""
    return {
        name: int(known)
        for name, known in re.findall(r"^(.*): 5 prompts, (\d) of them answered before$", stderr, re.M)
    }


@pytest.mark.parametrize("run", ["full", "lora"])
def test_after_sigkill_no_strength_is_drawn_twice(
    run: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the reference, in the middle of a mixed answer, and before what is kept of both ways that sample."""
    words = ["evaluate", "frontier", run, "--prompts", "prompts.jsonl", "--reward", "length", "--dial"]
    words += ["--strengths", "0,0.5,1,1.5", "--n", "2", "--max-new-tokens", "6", "--precision", "float32"]
    # Of the reference 5 prompts' answers are kept; of two checkpoints and of two ways at two strengths 5 answers and 5
    # distances each, 65 in all, and at last 5 log-ratios.
    kept = [3, 22, 15, 9, 12, 8]
    points: list[dict[str, Any]] = [{"at": "put", "nth": one + 1} for one in kept]
    points.insert(2, {"at": "token", "nth": 3})
    whole, killed = whole_and_killed(here, words, points, monkeypatch)
    assert [result["code"] for result in killed] == [-9] * len(points) + [0]
    # Each process keeps something new until it dies, or it would live: 69 of 70 are there for the last one.
    before = answered_before(killed[-1]["stderr"])
    assert sum(kept) == 69
    assert list(before.values()) == [5] * 7
    assert set(before) == set(answered_before(whole["stderr"]))
    assert {name for name in before if "λ" in name} == {
        f"{run}, {way}, λ = {at}" for way in ("mixed", "interpolated") for at in ("0.5", "1.5")
    }
    for name in ("frontier.csv", "frontier.json", "frontier.answers.jsonl", "frontier.svg"):
        assert (here / "killed" / name).read_bytes() == (here / "whole" / name).read_bytes(), name
