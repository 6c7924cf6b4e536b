"""`likelier sample --strength`: a run read at other strengths than the one it was trained to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import likelier
from likelier.errors import UsageError
from likelier.models.loading import load_model
from likelier.stages.sample import sample
from likelier.training.stored import trained_from
from tests.engines.test_mixing import by_hand
from tests.training.support import pairs, write_rows

PROMPTS = [{"id": "a", "prompt": "The cat"}, {"id": "b", "prompt": "Rain"}]
SIZE: dict[str, Any] = {"n": 2, "max_new_tokens": 5, "precision": "float32"}


@pytest.fixture(scope="module", params=[None, 4], ids=["full", "lora"])
def run(request: Any, tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    folder = tmp_path_factory.mktemp("strength")
    data = write_rows(folder / "data.jsonl", pairs(8))
    likelier.dpo(
        str(tiny_llama), str(data), out=folder / "run", learning_rate=0.02, lora_rank=request.param, epochs=2
    )
    return folder / "run"


def answers(rows: list[dict[str, Any]]) -> list[Any]:
    return [row["completions"] for row in rows]


def test_a_run_knows_what_it_was_trained_from(run: Path, tiny_llama: Path) -> None:
    assert trained_from(str(run / "model")) == trained_from(str(run)) == str(tiny_llama)
    assert trained_from(str(tiny_llama)) is None


def test_the_ends_are_the_models_own_answers(run: Path, tiny_llama: Path) -> None:
    for strength, model in ((0.0, tiny_llama), (1.0, run / "model")):
        mixed = sample(str(run / "model"), PROMPTS, strength=strength, **SIZE)
        assert answers(mixed) == answers(sample(str(model), PROMPTS, **SIZE))


def test_beyond_the_policy(run: Path, tiny_llama: Path) -> None:
    rows = sample(str(run / "model"), PROMPTS, strength=2.0, **SIZE)
    assert rows[0]["sampling"]["strength"] == 2.0
    policy, reference = (load_model(str(name)) for name in (run / "model", tiny_llama))
    for row in rows:
        asked = policy.tokenizer(row["prompt"])["input_ids"]
        for answer in row["completions"]:
            logps = by_hand(policy.model, reference.model, 2.0, asked + answer["tokens"])[len(asked) - 1 : -1]
            summed = sum(logps[place, token].item() for place, token in enumerate(answer["tokens"]))
            assert answer["logp"] == pytest.approx(summed, abs=1e-3)


def test_another_strength_is_another_file(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    sample(str(run / "model"), PROMPTS, strength=1.5, out=out, **SIZE)
    with pytest.raises(UsageError, match="not made with these settings"):
        sample(str(run / "model"), PROMPTS, strength=0.5, out=out, resume=True, **SIZE)


def test_a_model_that_says_nothing_of_its_reference(tiny_llama: Path) -> None:
    with pytest.raises(UsageError, match="give --reference"):
        sample(str(tiny_llama), PROMPTS, strength=0.5, **SIZE)
    with pytest.raises(UsageError, match="--reference is what --strength mixes with"):
        sample(str(tiny_llama), PROMPTS, reference="x", **SIZE)
