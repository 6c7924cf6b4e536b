"""Answers to fixed prompts: the lines, the figures, and a KL that is exactly 0 before the first update."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from likelier.engines.divergence import estimate_kl
from likelier.engines.prompts import Prompt
from likelier.engines.sampling import SampledPrompt, sample
from likelier.errors import DataError
from likelier.scoring.scorer import Scorer
from likelier.stats.repetition import repetition
from likelier.training.samples import PromptSamples, read_sample_prompts
from tests.models.families import tiny
from tests.training.support import pairs, train, write_rows

PROMPTS = [
    Prompt(id=f"p{n}", content=text) for n, text in enumerate(["The cat", "A good answer", "rain, " * 5])
]


@pytest.fixture
def policy(tokenizer: Any) -> Iterator[Scorer]:
    with Scorer(tiny("llama", dtype=torch.float32, vocab_size=len(tokenizer)), dtype=torch.float32) as scorer:
        yield scorer


def sampler(
    policy: Scorer, tokenizer: Any, lines: list[Any], *, reference: Scorer | None = None
) -> PromptSamples:
    return PromptSamples(
        tokenizer,
        PROMPTS,
        write=lines.append,
        plain=policy.plain,
        logps=policy.score,
        reference_logps=None if reference is None else reference.score,
        max_new_tokens=12,
        seed=3,
    )


def test_before_the_first_update_the_kl_is_exactly_0(policy: Scorer, tokenizer: Any) -> None:
    lines: list[dict[str, Any]] = []
    with Scorer(copy.deepcopy(policy.model), dtype=torch.float32) as reference:
        metrics = sampler(policy, tokenizer, lines, reference=reference).take(step=0)
    assert metrics["samples/kl"] == 0.0
    assert [line["logp"] - line["reference_logp"] for line in lines] == [0.0] * 3


def test_figures_and_lines_tell_the_same_story(policy: Scorer, tokenizer: Any) -> None:
    lines: list[dict[str, Any]] = []
    with Scorer(copy.deepcopy(policy.model), dtype=torch.float32) as reference:
        with torch.no_grad():
            for parameter in policy.model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        policy.kernels.refresh()
        metrics = sampler(policy, tokenizer, lines, reference=reference).take(step=7)
        with policy.plain() as model, reference.plain() as other:
            by_hand = estimate_kl(model, other, sampled_again(model, tokenizer), estimator="k1")
    expected = {"step", "id", "prompt", "completion", "tokens", "finish", "logp", "reference_logp"}
    assert [set(line) for line in lines] == [expected] * 3
    assert [(line["step"], line["id"]) for line in lines] == [(7, "p0"), (7, "p1"), (7, "p2")]
    assert json.loads(json.dumps(lines)) == lines
    for name, values in (
        ("samples/length", [len(line["tokens"]) for line in lines]),
        ("samples/repetition", [repetition(line["tokens"]) for line in lines]),
        ("samples/stop_rate", [line["finish"] == "stop" for line in lines]),
        ("samples/kl", [line["logp"] - line["reference_logp"] for line in lines]),
        ("samples/kl", [value for answers in by_hand.values for value in answers]),
    ):
        assert metrics[name] == pytest.approx(sum(values) / 3, rel=1e-3)
    assert metrics["samples/kl"] != 0.0


def sampled_again(model: Any, tokenizer: Any) -> list[SampledPrompt]:
    from likelier.engines.drawing import Sampler

    return sample(model, tokenizer, PROMPTS, n=1, max_new_tokens=12, sampler=Sampler(seed=3))


def test_without_a_reference_there_is_no_kl(policy: Scorer, tokenizer: Any) -> None:
    lines: list[dict[str, Any]] = []
    metrics = sampler(policy, tokenizer, lines).take(step=0)
    assert set(metrics) == {"samples/length", "samples/repetition", "samples/stop_rate"}
    assert not any("reference_logp" in line for line in lines)


def test_sampling_changes_nothing_of_the_run(policy: Scorer, tokenizer: Any) -> None:
    """Neither random numbers nor the mode of the model nor its kernels; and the same policy answers the same."""
    policy.model.train()
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first: list[dict[str, Any]] = []
    again: list[dict[str, Any]] = []
    watch = sampler(policy, tokenizer, first)
    watch.take(step=1)
    assert torch.equal(torch.rand(2), expected)
    assert policy.model.training
    watch.write = again.append
    watch.take(step=1)
    assert first == again


def test_a_resumed_run_knows_the_answers_before(tmp_path: Path, tiny_llama: Path) -> None:
    prompts = write_rows(tmp_path / "prompts.jsonl", [{"prompt": "the cat"}])
    data = str(write_rows(tmp_path / "data.jsonl", pairs(6)))
    settings: dict[str, Any] = {"precision": "float32", "sample_prompts": prompts, "sample_every": 1}
    whole = train(str(tiny_llama), data, **settings)
    train(str(tiny_llama), data, **settings, out=tmp_path / "run", on_step=lambda line: line["step"] == 1)
    (tmp_path / "run" / "manifest.json").unlink()
    run = train(str(tiny_llama), data, **settings, out=tmp_path / "run", resume=True)
    assert [line["step"] for line in run.samples] == [0, 1, 2]
    assert run.samples == whole.samples
    assert run.metrics[0]["samples/kl"] == 0.0


def test_prompts_are_read_from_rows(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "Hi", "id": "a"}\n{"prompt": [{"role": "user", "content": "Yo"}]}\n')
    prompts = read_sample_prompts(path)
    assert [prompt.id for prompt in prompts] == ["a", "2"]
    assert prompts[1].content == [{"role": "user", "content": "Yo"}]


def test_repeated_ids_are_named_by_row(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "Hi", "id": "a"}\n{"prompt": "Yo", "id": "a"}\n')
    with pytest.raises(DataError, match=r"row 2: the id 'a' is that of .*row 1 too"):
        read_sample_prompts(path)
