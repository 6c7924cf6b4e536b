"""How answers reach a reward: a model's all at once, a function's prompt by prompt."""

from __future__ import annotations

from typing import Any

import pytest

from likelier.engines.prompts import Prompt
from likelier.engines.rewards import Reward
from likelier.errors import WorkError
from likelier.stages.evaluate_rewards import scores_of

PROMPTS = [Prompt(id=name, content=name.upper()) for name in "abc"]
TEXTS = [["one", "three"], [], ["no"]]


def lengths(calls: list[Any], *, model: Any) -> Reward:
    def score_all(prompts: list[Any], completions: list[str]) -> list[float]:
        calls.append(list(zip(prompts, completions, strict=True)))
        return [float(len(one)) for one in completions]

    return Reward(name="n", meaning="", score=lambda prompt, text: 0.0, score_all=score_all, model=model)


def test_a_model_reads_all_answers_in_one_call() -> None:
    """Looking through its weights took longer than reading the answers to a prompt."""
    calls: list[Any] = []
    found = scores_of(lengths(calls, model=object()), PROMPTS, TEXTS, who="run")
    assert found == [[3.0, 5.0], [], [2.0]]
    assert calls == [[("A", "one"), ("A", "three"), ("C", "no")]]


def test_a_function_is_asked_prompt_by_prompt() -> None:
    calls: list[Any] = []
    found = scores_of(lengths(calls, model=None), PROMPTS, TEXTS, who="run")
    assert found == [[3.0, 5.0], [], [2.0]]
    assert calls == [[("A", "one"), ("A", "three")], [("C", "no")]]


def test_a_wrong_count_names_its_prompt() -> None:
    short = Reward(
        name="n", meaning="", score=lambda prompt, text: 0.0, score_all=lambda prompts, texts: [1.0]
    )
    with pytest.raises(
        WorkError, match=r"gave 1 numbers for 2 answers, prompt 'a', answer 1 of run to prompt 'a'"
    ):
        scores_of(short, PROMPTS, TEXTS, who="run")
