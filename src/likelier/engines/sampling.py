"""Answers drawn from a loaded model: each prompt is read once, its samples share what was read.

A sample is a function of (model, seed, prompt id, sample index) and the sampling settings: on a CPU neither
the other prompts nor their order nor the number of samples change a token of it (`decoding.py`, `cohorts.py`,
`noise.py`), nor which of them run beside it (`running.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from likelier.data.records import Content
from likelier.engines.cohorts import cohorts_in
from likelier.engines.decoding import check_can_decode
from likelier.engines.drawing import Draws, Sampler
from likelier.engines.prompts import Prompt, check_context, encode_prompts
from likelier.engines.running import Row, Running
from likelier.engines.stopping import Stopping, stop_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledCompletion:
    """One answer as it was drawn."""

    text: str
    """The tokens decoded, without the end-of-turn token, and cut before a stop string."""
    tokens: list[int]
    """As drawn: with the end-of-turn token, or up to the token that completed a stop string."""
    logp: float
    """Log-probability of `tokens` under the sampler (temperature, top-k, top-p, min-p); greedy sampling has 0."""
    finish: str
    """`"stop"`, or `"length"` where `max_new_tokens` cut it."""
    text_is_tokens: bool = True
    """False where a stop string cut the text: then `tokens` hold more than it, and are not to be trained on."""
    ties: int = 0
    """Tokens drawn with another as close as rounding (`drawing.Draw.ties`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledPrompt:
    """A prompt with its answers."""

    id: str
    prompt: Content
    prompt_tokens: list[int]
    completions: list[SampledCompletion]


def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    n: int = 4,
    max_new_tokens: int = 64,
    sampler: Draws | None = None,
    stop: Sequence[str] = (),
    on_progress: Callable[[int], None] | None = None,
) -> list[SampledPrompt]:
    """Draws `n` answers to each prompt, in the order of `prompts`: `sample_each`, gathered."""
    found = dict(
        sample_each(
            model,
            tokenizer,
            prompts,
            n=n,
            max_new_tokens=max_new_tokens,
            sampler=sampler,
            stop=stop,
            on_progress=on_progress,
        )
    )
    return [found[number] for number in range(len(prompts))]


@torch.inference_mode()
def sample_each(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    n: int = 4,
    max_new_tokens: int = 64,
    sampler: Draws | None = None,
    stop: Sequence[str] = (),
    on_progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[int, SampledPrompt]]:
    """`(index of the prompt, its answers)`, prompt after prompt as their last answers end.

    Args:
        model: a causal language model of `transformers`, as loaded: its device and precision are used.
        tokenizer: its tokenizer, with the chat template that prompts of messages need.
        prompts: their ids must differ.
        n: answers per prompt.
        max_new_tokens: an answer is cut there.
        sampler: seed, temperature, top-k, top-p and min-p; by default temperature 1 and seed 0.
        stop: an answer ends before the first of these strings in its text.
        on_progress: called with the number of answers finished since the last call.

    Raises:
        DataError: a prompt is empty or its id is not its own.
        ModelError: prompt and answer exceed the model's context, or it keeps another kind of state.
        UsageError: an empty stop string.
    """
    check_can_decode(model)
    encoded = encode_prompts(tokenizer, prompts)
    check_context(model, prompts, encoded, max_new_tokens)
    stopping = Stopping(tokenizer, stop_tokens(model, tokenizer), stop)
    answers: list[dict[int, SampledCompletion]] = [{} for _ in prompts]
    running = Running(model, prompts, encoded, n, max_new_tokens, sampler or Sampler())
    training = model.training
    model.eval()
    try:
        with cohorts_in(model) if running.mixed else nullcontext():
            while running.admit():
                ended = running.step(stopping)
                for row in ended:
                    own = answers[row.number]
                    own[row.index] = _finished(row, stopping)
                    if len(own) == n:
                        yield row.number, _gathered(prompts[row.number], encoded[row.number], own)
                if ended and on_progress is not None:
                    on_progress(len(ended))
    finally:
        model.train(training)


def _finished(row: Row, stopping: Stopping) -> SampledCompletion:
    text, finish, text_is_tokens = stopping.finished(row.drawn)
    return SampledCompletion(
        text=text,
        tokens=row.drawn,
        logp=row.logp,
        finish=finish,
        text_is_tokens=text_is_tokens,
        ties=row.ties,
    )


def _gathered(prompt: Prompt, tokens: list[int], answers: dict[int, SampledCompletion]) -> SampledPrompt:
    completions = [answers[index] for index in range(len(answers))]
    return SampledPrompt(id=prompt.id, prompt=prompt.content, prompt_tokens=tokens, completions=completions)
