"""`evaluate temperature --best-of`: every subset of the first run's answers, drawn once; who has to be judged."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import likelier
from likelier import cli
from likelier.engines.drawing import Sampler
from likelier.engines.prompts import Prompt
from likelier.engines.sampling import sample
from likelier.models.loading import load_model
from tests.engines.stub_server import answers
from tests.stages.test_evaluate_frontier import drawn
from tests.stages.test_evaluate_winrate import PROMPTS, here, opinion, server
from tests.stats.test_best_of import by_subsets
from tests.training.conftest import no_timing, own_cache

__all__ = ["drawn", "here", "no_timing", "own_cache"]

SETTINGS: dict[str, Any] = {
    "prompts": "prompts.jsonl", "baseline": "human", "out": "out", "temperatures": [0.0, 1.0], "n": 2,
    "max_new_tokens": 6, "precision": "float32",
}  # fmt: skip


def evaluated(model: Path, **more: Any) -> Any:
    return likelier.evaluate("temperature", str(model), **SETTINGS | {"reward": "length"} | more)


def draws(model: Path, n: int, temperature: float) -> list[list[str]]:
    loaded = load_model(str(model))
    prompts = [Prompt(id=row["id"], content=row["prompt"]) for row in PROMPTS]
    sampler = Sampler(temperature=temperature)
    sampled = sample(loaded.model, loaded.tokenizer, prompts, n=n, max_new_tokens=6, sampler=sampler)
    return [[answer.text for answer in prompt.completions] for prompt in sampled]


def outcomes(texts: list[str], row: dict[str, Any]) -> list[float]:
    """By words, as the reward says."""
    return [0.5 + 0.5 * float(np.sign(len(text.split()) - len(row["human"].split()))) for text in texts]


def test_every_subset_and_each_answer_drawn_once(tiny_llama: Path, drawn: list[str]) -> None:
    """The chooser likes the letter e, and ties often; of temperature 0 there is one answer."""
    Path("letters.py").write_text("def score(prompt, answer):\n    return answer.count('e')\n")
    own, *best = evaluated(tiny_llama, best_of=[4, 1, 2], chooser="letters:score")
    assert Counter(drawn) == {row["id"]: 2 for row in PROMPTS}
    assert [sweep.run for sweep in best] == [f"best-of-{n} of {tiny_llama}" for n in (1, 2, 4)]
    texts = draws(tiny_llama, 4, 1.0)
    letters = [[float(text.count("e")) for text in of] for of in texts]
    won = [outcomes(of, row) for of, row in zip(texts, PROMPTS, strict=True)]
    assert own.wins[1].per_prompt == {p: np.mean(of[:2]) for p, of in enumerate(won)}
    assert own.wins[1].win_rate.n == 16
    for n, sweep in zip((1, 2, 4), best, strict=True):
        kept = [by_subsets(*both, n) for both in zip(letters, won, strict=True)]
        win = sweep.wins[1]
        assert (win.best_of, win.temperature, win.win_rate.clusters) == (n, 1.0, 8)
        assert list(win.per_prompt.values()) == pytest.approx(kept)
        assert win.win_rate.value == pytest.approx(np.mean(kept))
        assert win.wins + win.ties + win.losses == pytest.approx(8)
        long = [by_subsets(of, [float(len(t)) for t in ts], n) for of, ts in zip(letters, texts, strict=True)]
        assert win.lengths[0].value == pytest.approx(np.mean(long))
        # What is always the same is best of itself.
        assert sweep.wins[0].per_prompt == own.wins[0].per_prompt
        assert sweep.wins[0].win_rate.value == own.wins[0].win_rate.value
    assert len({sweep.wins[1].win_rate.value for sweep in best}) > 1


def test_of_two_runs_the_first_is_chosen_from(tiny_llama: Path, patient_llama: Path) -> None:
    both = [str(tiny_llama), str(patient_llama)]
    sweeps = likelier.evaluate(
        "temperature", both, **SETTINGS, reward="length", best_of=[4], chooser="length"
    )
    assert [sweep.run for sweep in sweeps] == [*both, f"best-of-4 of {tiny_llama}"]
    (alone,) = evaluated(tiny_llama, best_of=[4], chooser="length", out="alone")[1:]
    assert sweeps[2].wins[1].per_prompt == alone.wins[1].per_prompt


def test_the_files_and_words_say_it(tiny_llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "temperature", str(tiny_llama), "--prompts", "prompts.jsonl", "--baseline", "human"]
    words += ["--reward", "length", "--temperatures", "0,1", "--best-of", "1,5", "--chooser", "length"]
    words += ["--max-new-tokens", "6", "--precision", "float32", "--out", "out"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert f"best-of-5 of {tiny_llama} wins most at temperature" in said
    assert "losses expected of the answers kept, one to a prompt" in said
    assert (
        f"best-of-N for N = 1, 5: of the same 5 answers of {tiny_llama} to each prompt at each temperature, chosen by"
        in said
    )
    table = list(csv.DictReader(Path("out/temperature.csv").read_text().splitlines()))
    assert [(row["best_of"], row["temperature"]) for row in table] == [
        (n, t) for n in ("", "1", "5") for t in ("0.0", "1.0")
    ]
    # Chosen by what is measured, more are never worse.
    assert float(table[5]["win_rate"]) >= float(table[3]["win_rate"])
    result = json.loads(Path("out/temperature.json").read_text())
    assert (result["chooser"], result["answers_of_the_first"]) == ("length", 5)
    assert result["sweeps"][2]["run"] == f"best-of-5 of {tiny_llama}"
    rows = [json.loads(line) for line in Path("out/temperature.answers.jsonl").read_text().splitlines()]
    assert [len(row["completions"]) for row in rows] == [1] * 8 + [5] * 8
    assert all(
        answer["chooser"] == len(answer["text"].split()) for row in rows for answer in row["completions"]
    )


def test_a_judge_is_asked_only_about_answers_that_may_be_kept(tiny_llama: Path) -> None:
    """Of six draws the longest alone, besides the run's own two; one draw that mumbles is left out of its prompt."""
    judge = {"judge": "openai", "judge_model": "wise", "timeout": 5, "retries": 0, "reward": None}
    texts = draws(tiny_llama, 6, 1.0)
    with server() as stub:
        _, best = evaluated(
            tiny_llama, temperatures=[1.0], best_of=[6], chooser=lambda prompt, answer: len(answer),
            base_url=stub.url, **judge,
        )  # fmt: skip
    longest = [[t for t in of if len(t) == max(map(len, of))] for of in texts]
    asked = {(p, t) for p, of in enumerate(texts) for t in (*of[:2], *longest[p])}
    assert len(stub.bodies) == 2 * sum(text != PROMPTS[p]["human"] for p, text in asked)
    assert best.wins[0].win_rate.n == sum(map(len, longest))

    def silent(number: int, body: dict[str, Any]) -> Any:
        mute = texts[0][0] in body["messages"][0]["content"]
        return answers(body, "Who knows?" if mute else opinion(body))

    with server(silent) as stub:
        _, best = evaluated(
            tiny_llama, temperatures=[1.0], best_of=[2], n=6, chooser=lambda prompt, answer: 1.0,
            base_url=stub.url, judge_max_tokens=9, **judge,
        )  # fmt: skip
    (win,) = best.wins
    left = [text for text in texts[0] if text != texts[0][0]]
    assert win.unjudged == {"no verdict in the answer": 6 - len(left)}
    # Whatever is chosen from equals is a mean over all, and of the first prompt over those that are left.
    assert win.per_prompt[0] == pytest.approx(np.mean(outcomes(left, PROMPTS[0])))
    assert win.per_prompt[1] == pytest.approx(np.mean(outcomes(texts[1], PROMPTS[1])))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--best-of 2", "needs both --best-of 1,2,4 and --chooser"),
        ("--chooser length", "needs both --best-of 1,2,4 and --chooser"),
        ("--best-of 2 --chooser lenght", "did you mean `length`"),
        ("--best-of 2,2 --chooser length", "--best-of: each N once"),
    ],
)
def test_what_is_refused(words: str, told: str, tiny_llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = f"evaluate temperature {tiny_llama} --prompts prompts.jsonl --baseline human --reward length --out out"
    assert cli.main([*own.split(), *words.split()]) == 2
    assert told in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_dry_run_counts_the_draws(tiny_llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of 16 answers instead of 1: 15 more of 6 tokens to each of 8 prompts, at two temperatures."""
    words = f"evaluate temperature {tiny_llama} --prompts prompts.jsonl --baseline human --reward length --out out"
    words += " --max-new-tokens 6 --temperatures 0.5,1 --dry-run --json"
    found = []
    for more in ([], ["--best-of", "4,16", "--chooser", "vader"]):
        assert cli.main([*words.split(), *more]) == 0
        said = capsys.readouterr()
        found.append(json.loads(said.out)["tokens_at_most"])
    assert found[1] - found[0] == 15 * 6 * 8 * 2
    assert "best-of-N: every answer is scored by vader" in said.err
