"""Answers from a model to a file of prompts: one line per prompt, each with its `n` completions.

    sample_file(SampleConfig(model="a/model", prompts="prompts.jsonl", out="samples.jsonl"), model, tokenizer)

A line is `{"id", "prompt", "completions": [{"text", "tokens", "logp", "finish"}], "model", "sampling"}`;
`label` reads it, and hands tokens and finish on to training.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from likelier.config import StageConfig
from likelier.data.output import JsonLines
from likelier.data.reading import load_records
from likelier.engines.sampling import Prompt, SampledPrompt, Sampler, sample
from likelier.manifest import write_manifest


class SampleConfig(StageConfig):
    """What is sampled, and how."""

    model: str = Field(description="the model's name, as it is to stand in the file")
    prompts: Path = Field(description="rows with a `prompt` and, if wanted, an `id`")
    out: Path = Field(description="the file to write")
    n: int = Field(default=4, ge=1, description="answers per prompt")
    temperature: float = Field(default=1.0, ge=0, description="0 takes the likeliest token every time")
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="draw from the smallest set of tokens of this mass"
    )
    top_k: int = Field(default=0, ge=0, description="draw from this many likeliest tokens; 0 is all")
    max_new_tokens: int = Field(default=64, ge=1, description="answers are cut there")
    seed: int = Field(
        default=0, description="with prompt id and answer number, the source of all random numbers"
    )


def sample_file(
    config: SampleConfig, model: Any, tokenizer: Any, *, on_progress: Callable[[int], None] | None = None
) -> list[SampledPrompt]:
    """Answers every prompt of `config.prompts` and writes `config.out` and its manifest.

    Args:
        config: what is sampled, and how.
        model, tokenizer: loaded; `config.model` is the name under which they stand in the file.
        on_progress: called with the number of answers that were just drawn.

    Raises:
        DataError: prompts that cannot be read, or that share an id.
        ModelError: a model that cannot be sampled from, or whose context is too short.
    """
    records, _ = load_records(config.prompts, format="prompts")
    prompts = [Prompt(id=record.id, content=record.prompt) for record in records]
    settings = config.model_dump(include={"n", "temperature", "top_p", "top_k", "max_new_tokens", "seed"})
    sampled = sample(
        model,
        tokenizer,
        prompts,
        n=config.n,
        max_new_tokens=config.max_new_tokens,
        sampler=Sampler(
            seed=config.seed, temperature=config.temperature, top_p=config.top_p, top_k=config.top_k
        ),
        on_progress=on_progress,
    )
    with JsonLines(config.out) as file:
        for prompt in sampled:
            file.write(_row(prompt, config.model, settings))
    write_manifest(
        config.out,
        stage="sample",
        config=config.model_dump(),
        inputs={"prompts": config.prompts},
        rows=len(sampled),
    )
    return sampled


def _row(prompt: SampledPrompt, model: str, settings: dict[str, Any]) -> dict[str, Any]:
    completions = [
        {"text": answer.text, "tokens": answer.tokens, "logp": answer.logp, "finish": answer.finish}
        for answer in prompt.completions
    ]
    return {
        "id": prompt.id,
        "prompt": prompt.prompt,
        "completions": completions,
        "model": model,
        "sampling": settings,
    }
