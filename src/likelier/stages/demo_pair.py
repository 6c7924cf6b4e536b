"""The pair of this run's own data on which the demo tells the method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from likelier.data.reading import load_records
from likelier.data.records import Record
from likelier.data.trees import tree_of
from likelier.engines.sampling import SampledPrompt
from likelier.report.page import Example
from likelier.scoring.scorer import Scorer
from likelier.stages.demo_prompts import last_turn


@dataclass(frozen=True, slots=True)
class Pair:
    """The pair that carries the story, with its tokens."""

    example: Example
    prompt_tokens: list[int]
    answer_tokens: tuple[list[int], list[int]]
    """Chosen, rejected."""


def widest_pair(
    preferences: Path, sampled: Sequence[SampledPrompt], model: nn.Module, *, beta: float
) -> Pair:
    """The pair whose scores lie furthest apart, of answers that ended by themselves if there are any.

    It is taken from `preferences`, the file that is trained on: what was left out there carries no story.
    """
    asked = {prompt.id: prompt for prompt in sampled}
    records, _ = load_records(preferences)
    _, record, high, low = max((c for r in records for c in _candidates(r)), key=lambda c: c[0])
    prompt, scores = asked[record.id], _scores(record)
    chosen, rejected = prompt.completions[high], prompt.completions[low]
    tokens = (chosen.tokens, rejected.tokens)
    logps = pair_logps(model, prompt.prompt_tokens, tokens)
    example = Example(
        prompt=last_turn(prompt.prompt),
        chosen=chosen.text,
        rejected=rejected.text,
        chosen_score=scores[high],
        rejected_score=scores[low],
        beta=beta,
        reference_logps=logps,
        policy_logps=logps,
    )
    return Pair(example, prompt.prompt_tokens, tokens)


def pair_logps(
    model: nn.Module, prompt: list[int], answers: tuple[list[int], list[int]]
) -> tuple[float, float]:
    """log π of two answers to a prompt, in float32."""
    with Scorer(model, dtype=torch.float32, way="rows") as scorer:
        chosen, rejected = scorer.score([tree_of(prompt, answers)])[0]
    return float(chosen.sum()), float(rejected.sum())


def _candidates(record: Record) -> Iterator[tuple[tuple[bool, float], Record, int, int]]:
    """(what is better, record, chosen, rejected) of every strictly ordered pair."""
    scores = _scores(record)
    for high, better in enumerate(record.completions):
        for low, worse in enumerate(record.completions):
            if scores[high] > scores[low]:
                ended = {better.finish, worse.finish} == {"stop"}
                yield (ended, scores[high] - scores[low]), record, high, low


def _scores(record: Record) -> list[float]:
    assert record.scores is not None  # `label` writes them
    return record.scores
