"""`likelier sample --strength`: a run read at other strengths than the one it was trained to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import likelier
from likelier import cli
from likelier.errors import UsageError
from likelier.models.loading import load_model
from likelier.stages.sample import sample
from likelier.training.stored import trained_from
from tests.engines.test_mixing import by_hand
from tests.stages.test_sample_kills import check, drive, orders
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


def test_an_adapter_held_to_another_model(tiny_llama: Path, tmp_path: Path) -> None:
    """Its base is not its reference: the run's settings say what is."""
    model = load_model(str(tiny_llama))
    for parameter in model.model.parameters():
        parameter.data *= 1.01
    model.model.save_pretrained(tmp_path / "other")
    model.tokenizer.save_pretrained(tmp_path / "other")
    data = write_rows(tmp_path / "data.jsonl", pairs(4))
    likelier.dpo(
        str(tiny_llama), str(data), out=tmp_path / "run", reference=str(tmp_path / "other"), lora_rank=2
    )
    assert trained_from(str(tmp_path / "run" / "model")) == str(tmp_path / "other")


@pytest.mark.parametrize("strength", [-1.0, float("inf"), float("nan")])
def test_no_strength(strength: float, run: Path) -> None:
    with pytest.raises(UsageError, match="--strength"):
        sample(str(run / "model"), PROMPTS, strength=strength, **SIZE)


def test_killed_and_resumed(run: Path, tmp_path: Path) -> None:
    """The file is that of a run never stopped; with another reference it is another run."""
    more = [
        "--model",
        str(run / "model"),
        "--max-new-tokens",
        "5",
        "--precision",
        "float32",
        "--strength",
        "1.5",
    ]
    points = [("added", 2), ("half", 4), ("token", 3)]
    given, stderr = orders(tmp_path, more, points), str(tmp_path / "other.err")
    whole = given[0]["words"]
    for added in (["--reference", str(run / "model")], []):
        given.append({"words": [*whole, *added, "--resume"], "stderr": stderr})
    results = drive(given)
    check(tmp_path, results, points)
    assert [result["code"] for result in results[-2:]] == [2, 0]
    assert "not made with these settings" in results[-2]["stderr"]
    assert "nothing to do" in results[-1]["stderr"]


def test_a_dry_run_reads_the_reference_too(
    run: Path, tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = write_rows(tmp_path / "prompts.jsonl", PROMPTS)
    words = f"sample --prompts {prompts} --strength 2 --dry-run --model"
    assert cli.main([*words.split(), str(run / "model")]) == 0
    assert f", mixed with {tiny_llama} (" in capsys.readouterr().err
    assert cli.main([*words.split(), str(tiny_llama)]) == 2
    assert "give --reference" in capsys.readouterr().err
