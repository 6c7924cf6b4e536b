"""`likelier evaluate frontier --best-of`: every N from one set of draws, as every subset of them says."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from likelier import cli
from likelier.engines.prompts import Prompt
from likelier.engines.sampling import sample
from likelier.models.loading import load_model
from likelier.stats import mean_interval
from tests.stages.test_evaluate_frontier import PROMPTS, drawn, evaluated, here, refused, trained
from tests.stages.test_sample_kills import whole_and_killed
from tests.stats.test_best_of import by_subsets
from tests.training.conftest import no_timing, own_cache

__all__ = ["drawn", "here", "no_timing", "own_cache", "trained"]


def test_every_subset_of_the_draws_and_each_drawn_once(
    here: Path, tiny_llama: Path, drawn: list[str]
) -> None:
    """The chooser likes the letter e, the reward words: the one is not the other, and the chooser ties often."""
    Path("letters.py").write_text("def score(prompt, answer):\n    return answer.count('e')\n")
    report = evaluated(["full"], best_of=[5, 1, 2], chooser="letters:score")
    names = [point.name for point in report.points[3:]]
    assert names == ["best-of-N, N = 1", "best-of-N, N = 2", "best-of-N, N = 5"]
    assert Counter(drawn) == {
        f"p{i}": 3 for i in range(5)
    }  # the reference once, for every N; two checkpoints
    loaded = load_model(str(tiny_llama))
    prompts = [Prompt(id=row["id"], content=row["prompt"]) for row in PROMPTS]
    draws = sample(loaded.model, loaded.tokenizer, prompts, n=5, max_new_tokens=6)
    texts = [[answer.text for answer in prompt.completions] for prompt in draws]
    words = [[float(len(text.split())) for text in own] for own in texts]
    letters = [[float(text.count("e")) for text in own] for own in texts]
    sizes = [[float(len(answer.tokens)) for answer in prompt.completions] for prompt in draws]
    assert len({score for own in letters for score in own}) > 1
    assert report.points[0].rewards == words
    for point, n in zip(report.points[3:], (1, 2, 5), strict=True):
        kept = [by_subsets(*both, n) for both in zip(letters, words, strict=True)]
        assert [own for (own,) in point.rewards] == pytest.approx(kept)
        assert point.reward == mean_interval([own for (own,) in point.rewards], clusters=range(5))
        long = [by_subsets(*both, n) for both in zip(letters, sizes, strict=True)]
        assert [own for (own,) in point.lengths] == pytest.approx(long)
        assert point.distance.value == pytest.approx(math.log(n) - (n - 1) / n)
        assert point.distance.interval is None
    # Best of one is the reference itself, to the last bit: neither is better than the other.
    assert [own for (own,) in report.points[3].rewards] == [fmean(own) for own in words]
    assert report.overall.dominated_by[0] is report.overall.dominated_by[3] is None


def test_table_picture_envelope_and_words_have_it(here: Path, capsys: Any) -> None:
    words = [
        "evaluate",
        "frontier",
        "full",
        "--prompts",
        "prompts.jsonl",
        "--reward",
        "length",
        "--out",
        "out",
    ]
    words += ["--n", "2", "--max-new-tokens", "6", "--precision", "float32"]
    assert cli.main([*words, "--best-of", "1,2,4", "--chooser", "length"]) == 0
    said = capsys.readouterr().out
    assert "best-of-N from 4 answers of the reference to each prompt, chosen by length" in said
    assert "the bound log N - (N-1)/N, not an estimate" in said
    assert "best-of-N, N = 4: reward " in said
    assert "KL at most 0.6363" in said
    assert "best-of-N: area up to the same KL" in said
    result = json.loads(Path("out/frontier.json").read_text())
    table = list(csv.DictReader(Path("out/frontier.csv").read_text().splitlines()))
    last = table[-1]
    assert (last["run"], last["setting"], last["step"]) == ("best-of-N", "N = 4", "")
    assert (last["kl_is"], last["kl_low"]) == ("upper bound", "")
    assert {row["kl_is"] for row in table[:3]} == {"estimate"}
    # Chosen by the very reward that is measured, more draws are never worse; the highest is a corner.
    rewards = [float(row["reward"]) for row in table[-3:]]
    assert rewards == sorted(rewards)
    assert rewards[0] < rewards[-1]
    assert 5 in result["frontier"]["all"]["corners"]
    assert (result["chooser"], result["answers_of_the_reference"]) == ("length", 4)
    assert "best-of-N" in Path("out/frontier.svg").read_text()
    rows = [json.loads(line) for line in Path("out/frontier.answers.jsonl").read_text().splitlines()]
    assert [len(row["completions"]) for row in rows] == [4] * 5 + [2] * 10
    assert all(answer["chooser"] == answer["reward"] for row in rows[:5] for answer in row["completions"])


def test_a_function_chooses(here: Path) -> None:
    report = evaluated(["full"], best_of=[3], chooser=lambda prompt, answer: -len(answer.split()))
    other = evaluated(["full"], best_of=[3], chooser="length")
    assert report.points[-1].reward.value < other.points[-1].reward.value


def test_after_sigkill_no_draw_is_made_twice(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["evaluate", "frontier", "full", "--prompts", "prompts.jsonl", "--reward", "length"]
    words += ["--best-of", "1,2,6", "--chooser", "regex:[aeiou]", "--n", "2", "--max-new-tokens", "6"]
    words += ["--precision", "float32"]
    _, (killed, resumed) = whole_and_killed(here, words, [{"at": "put", "nth": 4}], monkeypatch)
    assert (killed["code"], resumed["code"]) == (-9, 0)
    assert "reference: 5 prompts, 3 of them answered before" in resumed["stderr"]
    for name in ("frontier.csv", "frontier.json", "frontier.answers.jsonl", "frontier.svg"):
        assert (here / "killed" / name).read_bytes() == (here / "whole" / name).read_bytes(), name


def test_what_is_refused(here: Path, capsys: Any) -> None:
    assert "needs both --best-of 1,2,4 and --chooser" in refused(["full", "--best-of", "2"], capsys)
    assert "needs both --best-of 1,2,4 and --chooser" in refused(["full", "--chooser", "vader"], capsys)
    assert "--best-of: each N once" in refused(["full", "--best-of", "2,2", "--chooser", "length"], capsys)
    assert "--best-of: input should be greater than 0" in refused(
        ["full", "--best-of", "0", "--chooser", "length"], capsys
    )
    assert "did you mean `length`" in refused(["full", "--best-of", "2", "--chooser", "lenght"], capsys)
