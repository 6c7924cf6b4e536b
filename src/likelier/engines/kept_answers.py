"""Answers of policies, and their distance from a reference, kept by content: nothing is drawn twice.

A prompt's answers are a function of weights, tokens, settings and random numbers that belong to the place
(`sampling.py`), and so is what they are kept under. They are on the disk when they are there: a run that is killed goes
on where it was, another reward costs no new answer, and a new checkpoint costs its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from likelier.data.canonical import digest
from likelier.engines.decoding import check_can_decode, lowered
from likelier.engines.divergence import Estimator, estimate_kl
from likelier.engines.drawing import Sampler
from likelier.engines.mixing import at_strength, require_same_tokens
from likelier.engines.prompts import Prompt, check_context, encode_prompts
from likelier.engines.reply_cache import ReplyCache
from likelier.engines.sampling import SampledCompletion, SampledPrompt, sample_each
from likelier.engines.stopping import stop_tokens
from likelier.models.identity import forward_config_digest, weights_digest
from likelier.models.loading import Loaded
from likelier.scoring.parts import causal_model
from likelier.scoring.precision import DTYPES, Precision

TOGETHER = 16
"""Prompts whose answers are measured in one call, where it is not a CPU's: there each has its own, whose bits then do
not depend on what was measured before it."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """A policy ready to answer."""

    model: Any
    tokenizer: Any
    identity: str
    """By content: weights in the precision they answer in, and the settings that enter the forward."""


def speaker_of(loaded: Loaded, precision: Precision) -> Speaker:
    """A model to sample from, in place: its weights are lowered to `precision`.

    Raises:
        ModelError: a model whose state is more than keys and values.
    """
    check_can_decode(causal_model(loaded.model))
    return identified(lowered(loaded.model, DTYPES[precision], copied=False), loaded.tokenizer)


def identified(model: Any, tokenizer: Any) -> Speaker:
    """A model as it stands."""
    content = weights_digest(model) + forward_config_digest(causal_model(model).config)
    return Speaker(model, tokenizer, content.hex())


def speaker_at(policy: Speaker, reference: Speaker, strength: float) -> Speaker:
    """Both as one speaker, at a strength (`mixing.py`): at 0 and 1 the reference and the policy themselves.

    Prompts are written as the policy's.

    Raises:
        UsageError: a reference over other tokens.
    """
    model = at_strength(policy.model, reference.model, strength)
    if strength in (0.0, 1.0):
        return Speaker(model, policy.tokenizer, (policy if strength else reference).identity)
    parts = ["mixed", policy.identity, reference.identity, strength]
    return Speaker(model, policy.tokenizer, digest(parts, size=32).hex())


def answers_of(
    speaker: Speaker,
    prompts: Sequence[Prompt],
    *,
    n: int,
    max_new_tokens: int,
    sampler: Sampler,
    cache: ReplyCache,
    on_progress: Callable[[int], None] = lambda count: None,
) -> tuple[list[SampledPrompt], int]:
    """`n` answers to each prompt, and how many prompts were answered before.

    Args:
        speaker: who answers.
        prompts: their ids must differ.
        n, max_new_tokens, sampler: as in `sampling.sample_each`.
        cache: where they are kept.
        on_progress: called with the number of answers finished since the last call.

    Raises:
        DataError, ModelError: prompts that this model cannot answer.
    """
    encoded = encode_prompts(speaker.tokenizer, prompts)
    check_context(causal_model(speaker.model), prompts, encoded, max_new_tokens)
    stops = sorted(stop_tokens(speaker.model, speaker.tokenizer))
    drawn_by = [speaker.identity, asdict(sampler), n, max_new_tokens, stops]
    keys = [
        digest(["answers", *drawn_by, prompt.id, tokens], size=32)
        for prompt, tokens in zip(prompts, encoded, strict=True)
    ]
    found = {index: kept for index, key in enumerate(keys) if (kept := cache.get(key)) is not None}
    left = [index for index in range(len(prompts)) if index not in found]
    known = len(found)
    drawn = sample_each(
        speaker.model,
        speaker.tokenizer,
        [prompts[index] for index in left],
        n=n,
        max_new_tokens=max_new_tokens,
        sampler=sampler,
        on_progress=on_progress,
    )
    for place, sampled in drawn if left else ():
        row = {"completions": [asdict(answer) for answer in sampled.completions]}
        cache.put(keys[left[place]], row)
        found[left[place]] = row
    return [
        SampledPrompt(
            id=prompt.id,
            prompt=prompt.content,
            prompt_tokens=tokens,
            completions=[SampledCompletion(**answer) for answer in found[index]["completions"]],
        )
        for index, (prompt, tokens) in enumerate(zip(prompts, encoded, strict=True))
    ], known


def distances_of(
    speaker: Speaker,
    reference: Speaker,
    sampled: Sequence[SampledPrompt],
    *,
    estimator: Estimator,
    cache: ReplyCache,
) -> list[list[float]]:
    """`[prompts][answers]`: an estimate of KL(speaker ‖ reference) along each answer, both models run over it together.

    Args:
        speaker: who drew them, at temperature 1 without truncation.
        reference: one with the same vocabulary.
        sampled: the answers.
        estimator: which (`divergence.estimate_kl`).
        cache: where they are kept.

    Raises:
        UsageError: a reference of another vocabulary.
    """
    if speaker.identity == reference.identity:
        return [[0.0] * len(prompt.completions) for prompt in sampled]
    require_same_tokens(speaker.model, reference.model, needs="KL needs")
    both = ["kl", speaker.identity, reference.identity, estimator]
    keys = [
        digest([*both, prompt.prompt_tokens, [answer.tokens for answer in prompt.completions]], size=32)
        for prompt in sampled
    ]
    found = {index: kept["kl"] for index, key in enumerate(keys) if (kept := cache.get(key)) is not None}
    left = [index for index in range(len(sampled)) if index not in found]
    size = 1 if next(speaker.model.parameters()).device.type == "cpu" else TOGETHER
    for start in range(0, len(left), size):
        block = left[start : start + size]
        estimate = estimate_kl(
            speaker.model, reference.model, [sampled[index] for index in block], estimator=estimator
        )
        for index, values in zip(block, estimate.values, strict=True):
            cache.put(keys[index], {"kl": values})
            found[index] = values
    return [found[index] for index in range(len(sampled))]
