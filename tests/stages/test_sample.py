"""From prompts to samples to preferences, through files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from likelier.data.reading import load_records
from likelier.errors import DataError
from likelier.manifest import file_hash
from likelier.models.loading import load_model
from likelier.stages.label import label_file
from likelier.stages.label_config import LabelConfig
from likelier.stages.sample import sample_file
from likelier.stages.sample_config import SampleConfig

PROMPTS = [
    {"id": "chat", "prompt": [{"role": "user", "content": "Hi"}], "subject": "greetings"},
    {"prompt": "The cat"},
]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def sampled_file(prompts: Path, tiny_llama: Path, **settings: Any) -> Path:
    loaded = load_model(tiny_llama)
    out = prompts.with_name("samples.jsonl")
    settings = {"model": "tiny", "prompts": str(prompts), "out": out, "n": 3, "max_new_tokens": 5} | settings
    sample_file(SampleConfig.build(settings), loaded.model, loaded.tokenizer)
    return out


def test_a_line_per_prompt(prompts: Path, tiny_llama: Path) -> None:
    rows = lines(sampled_file(prompts, tiny_llama, seed=4, temperature=0.9))
    assert [row["id"] for row in rows] == ["chat", "2"]
    assert [row["prompt"] for row in rows] == [row["prompt"] for row in PROMPTS]
    for row in rows:
        assert list(row) == ["id", "prompt", "completions", "model", "sampling"]
        assert row["model"] == "tiny"
        assert row["sampling"]["seed"] == 4
        assert row["sampling"]["temperature"] == 0.9
        assert len(row["completions"]) == 3
        for completion in row["completions"]:
            assert list(completion) == ["text", "tokens", "logp", "finish"]
            assert completion["logp"] < 0


def test_the_same_seed_writes_the_same_file(prompts: Path, tiny_llama: Path) -> None:
    first = sampled_file(prompts, tiny_llama, seed=1).read_bytes()
    assert sampled_file(prompts, tiny_llama, seed=1).read_bytes() == first
    assert sampled_file(prompts, tiny_llama, seed=2).read_bytes() != first


def test_the_manifest_names_inputs_by_content(prompts: Path, tiny_llama: Path) -> None:
    out = sampled_file(prompts, tiny_llama)
    manifest = json.loads((out.with_name("samples.manifest.json")).read_text())
    assert manifest["stage"] == "sample"
    assert manifest["inputs"]["prompts"]["hash"] == file_hash(prompts)
    assert manifest["output"]["hash"] == file_hash(out)
    assert manifest["config"]["n"] == 3
    assert "torch" in manifest["versions"]


def write_samples(path: Path, *groups: list[str]) -> Path:
    rows = [
        {
            "id": f"p{number}",
            "prompt": "Go on:",
            "completions": [
                {"text": text, "tokens": [5 + index, 2], "logp": -1.0, "finish": "stop"}
                for index, text in enumerate(texts)
            ],
            "model": "m",
            "sampling": {},
        }
        for number, texts in enumerate(groups)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_labels_order_answers_and_keep_their_tokens(tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "s.jsonl", ["a b", "a b c", "x y", "z"])
    out = tmp_path / "preferences.jsonl"
    labelled = label_file(LabelConfig(with_="reward", samples=samples, reward="length", out=out))
    (row,) = lines(out)
    assert row["scores"] == [2.0, 3.0, 2.0, 1.0]
    assert row["ranking"] == [[1], [0, 2], [3]]
    assert row["labeller"] == "reward length"
    assert row["reason"] == "words in the answer"
    assert [answer["tokens"] for answer in row["completions"]] == [[5, 2], [6, 2], [7, 2], [8, 2]]
    assert {answer["finish"] for answer in row["completions"]} == {"stop"}
    assert (labelled.prompts, labelled.pairs, labelled.all_answers) == (1, 5, 4)


def test_labels_read_back_as_rankings(tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "s.jsonl", ["a b", "a"])
    label_file(LabelConfig(with_="reward", samples=samples, reward="length", out=tmp_path / "p.jsonl"))
    (record,), faults = load_records(tmp_path / "p.jsonl")
    assert not faults
    assert record.ranking == [[0], [1]]
    assert [completion.tokens for completion in record.completions] == [[5, 2], [6, 2]]


def test_what_says_nothing_is_left_out_and_counted(tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "s.jsonl", ["a b", "c d"], ["a", ""], ["a", "a b"])
    out = tmp_path / "p.jsonl"
    labelled = label_file(LabelConfig(with_="reward", samples=samples, reward="length", out=out))
    assert (labelled.prompts, labelled.undecided, labelled.skipped) == (1, 1, 1)
    assert [row["id"] for row in lines(out)] == ["p2"]
    manifest = json.loads((tmp_path / "p.manifest.json").read_text())
    assert manifest["pairs"] == 1
    assert "row 2" in manifest["skipped"][0]


def test_a_reward_that_prefers_nothing_is_an_error(tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "s.jsonl", ["a b", "c d"])
    with pytest.raises(DataError, match="scores all answers of every prompt alike"):
        label_file(LabelConfig(with_="reward", samples=samples, reward="length", out=tmp_path / "p.jsonl"))
    assert not (tmp_path / "p.jsonl").exists()
