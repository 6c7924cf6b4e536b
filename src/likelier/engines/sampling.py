"""Answers drawn from a loaded model: each prompt is read once, its samples share what was read.

A sample is a function of (model, seed, prompt id, sample index) and the sampling settings: on a CPU neither
the other prompts nor their order nor the number of samples change a token of it (`decoding.py`, `noise.py`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from likelier.data.records import Content
from likelier.engines.decoding import Prefix, check_can_decode, filled, read_prompts, width_of
from likelier.engines.noise import draw_key, exponential_noise
from likelier.errors import DataError, ModelError, UsageError

ROWS = 64
"""Samples in one forward. Memory is `ROWS` times the keys and values of one prompt and answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What is asked; `id` is part of the random numbers of its samples."""

    id: str
    content: Content


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledCompletion:
    """One answer as it was drawn."""

    text: str
    """The tokens decoded, without the end-of-turn token."""
    tokens: list[int]
    """As drawn, the end-of-turn token included where `finish` is `"stop"`."""
    logp: float
    """Log-probability under the sampler (temperature, top-p, top-k); greedy sampling has 0."""
    finish: str
    """`"stop"`, or `"length"` where `max_new_tokens` cut it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledPrompt:
    """A prompt with its answers."""

    id: str
    prompt: Content
    prompt_tokens: list[int]
    completions: list[SampledCompletion]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """How the next token is drawn."""

    seed: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        """Refuses values outside their range."""
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise UsageError(f"--temperature must be 0 or more (given {self.temperature})")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"--top-p must be above 0 and at most 1 (given {self.top_p})")
        if self.top_k < 0:
            raise UsageError(f"--top-k must be 0 (off) or more (given {self.top_k})")

    def draw(self, logits: Tensor, keys: list[int]) -> tuple[list[int], list[float]]:
        """One token and its log-probability per row of `logits` [at least `len(keys)`, vocabulary]."""
        logits = logits[: len(keys)]
        if self.temperature == 0:
            return logits.argmax(dim=-1).tolist(), [0.0] * len(keys)
        # Row by row on a CPU: a row's dozen element-wise passes stay in its cache.
        step = 1 if logits.device.type == "cpu" else len(keys)
        tokens, logps = [], []
        for start in range(0, len(keys), step):
            rows, row_keys = logits[start : start + step], torch.tensor(keys[start : start + step])
            drawn, logp = self._draw(rows, row_keys.to(logits.device))
            tokens.append(drawn)
            logps.append(logp)
        return torch.cat(tokens).tolist(), torch.cat(logps).tolist()

    def _draw(self, logits: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        scaled = logits.to(torch.float32, copy=True).div_(self.temperature)
        if self.top_k or self.top_p < 1:
            _truncate_(scaled, self.top_k, self.top_p)
        scaled -= scaled.amax(dim=-1, keepdim=True)
        weights = scaled.exp()
        tokens = (weights / exponential_noise(keys, logits.shape[-1])).argmax(dim=-1)
        return tokens, scaled.gather(-1, tokens[:, None])[:, 0] - weights.sum(dim=-1).log()


@torch.inference_mode()
def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    n: int = 4,
    max_new_tokens: int = 64,
    sampler: Sampler | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> list[SampledPrompt]:
    """Draws `n` answers to each prompt, in the order of `prompts`.

    Args:
        model: a causal language model of `transformers`, as loaded: its device and precision are used.
        tokenizer: its tokenizer, with the chat template that prompts of messages need.
        prompts: their ids must differ.
        n: answers per prompt.
        max_new_tokens: an answer is cut there.
        sampler: seed, temperature, top-p and top-k; by default temperature 1 and seed 0.
        on_progress: called with the number of answers finished since the last call.

    Raises:
        DataError: a prompt is empty or its id is not its own.
        ModelError: prompt and answer exceed the model's context, or it keeps another kind of state.
    """
    check_can_decode(model)
    sampler = sampler or Sampler()
    encoded = encode_prompts(tokenizer, prompts)
    _check_context(model, prompts, encoded, max_new_tokens)
    stops = stop_tokens(model, tokenizer)
    completions: list[list[SampledCompletion]] = [[] for _ in prompts]
    was_training = model.training
    model.eval()
    try:
        for block in _blocks([len(tokens) for tokens in encoded], n):
            rows = _decode(model, block, prompts, encoded, sampler, stops, max_new_tokens)
            for (number, _), (tokens, logp) in zip(block, rows, strict=True):
                completions[number].append(_finished(tokenizer, tokens, logp, stops))
            if on_progress is not None:
                on_progress(len(block))
    finally:
        model.train(was_training)
    return [
        SampledPrompt(id=prompt.id, prompt=prompt.content, prompt_tokens=tokens, completions=answers)
        for prompt, tokens, answers in zip(prompts, encoded, completions, strict=True)
    ]


def encode_prompts(tokenizer: Any, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Token ids of each prompt: messages through the chat template and up to the answer's first token."""
    if len({prompt.id for prompt in prompts}) < len(prompts):
        raise DataError("two prompts share an id; ids must differ, since samples are drawn by them")
    encoded = []
    for prompt in prompts:
        if isinstance(prompt.content, str):
            tokens = tokenizer(prompt.content)["input_ids"]
        elif not getattr(tokenizer, "chat_template", None):
            raise ModelError(
                f"prompt {prompt.id!r} is a list of messages, and the model's tokenizer has no chat template: "
                "give prompts as plain text, or take a model that was trained to chat"
            )
        else:
            text = tokenizer.apply_chat_template(prompt.content, tokenize=False, add_generation_prompt=True)
            tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        if not tokens:
            raise DataError(f"prompt {prompt.id!r} is empty: give it text, or a tokenizer with a start token")
        encoded.append(list(tokens))
    return encoded


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer: those of the generation configuration and the tokenizer's own."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in (*listed, tokenizer.eos_token_id) if token is not None)


def _blocks(lengths: list[int], n: int) -> Iterator[list[tuple[int, int]]]:
    """(prompt number, sample index) of the rows that are decoded together: prompts of one width."""
    by_width: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for number, length in enumerate(lengths):
        by_width[width_of(length)] += [(number, index) for index in range(n)]
    for width in sorted(by_width):
        rows = by_width[width]
        yield from (rows[start : start + ROWS] for start in range(0, len(rows), ROWS))


def _decode(
    model: Any,
    block: list[tuple[int, int]],
    prompts: Sequence[Prompt],
    encoded: list[list[int]],
    sampler: Sampler,
    stops: frozenset[int],
    max_new_tokens: int,
) -> list[tuple[list[int], float]]:
    """Tokens and log-probability of every row of a block."""
    numbers = list(dict.fromkeys(number for number, _ in block))
    prefix = read_prompts(model, [encoded[number] for number in numbers])
    device = prefix.logits.device
    rows = filled([numbers.index(number) for number, _ in block], ROWS, device)
    state = prefix.select(rows, room=max_new_tokens)
    return _decode_rows(
        state, [(prompts[number].id, index) for number, index in block], sampler, stops, max_new_tokens
    )


def _decode_rows(
    state: Prefix, places: list[tuple[str, int]], sampler: Sampler, stops: frozenset[int], max_new_tokens: int
) -> list[tuple[list[int], float]]:
    drawn: list[list[int]] = [[] for _ in places]
    logps = [0.0] * len(places)
    logits, open_rows = state.logits, set(range(len(places)))
    for position in range(max_new_tokens):
        keys = [draw_key(sampler.seed, prompt_id, index, position) for prompt_id, index in places]
        tokens, token_logps = sampler.draw(logits, keys)
        for row in list(open_rows):
            drawn[row].append(tokens[row])
            logps[row] += token_logps[row]
            if tokens[row] in stops:
                open_rows.remove(row)
        if not open_rows or position + 1 == max_new_tokens:
            break
        fed = torch.tensor(tokens + tokens[:1] * (len(logits) - len(tokens)), device=logits.device)
        logits = state.append(fed[:, None])[:, 0]
    return list(zip(drawn, logps, strict=True))


def _finished(tokenizer: Any, tokens: list[int], logp: float, stops: frozenset[int]) -> SampledCompletion:
    stopped = tokens[-1] in stops
    text = tokenizer.decode(tokens[:-1] if stopped else tokens, clean_up_tokenization_spaces=False)
    return SampledCompletion(text=text, tokens=tokens, logp=logp, finish="stop" if stopped else "length")


def _truncate_(logits: Tensor, top_k: int, top_p: float) -> None:
    """Sets to minus infinity what lies outside the top k, and then outside the smallest set of mass top-p."""
    if top_k and top_k < logits.shape[-1]:
        least = logits.topk(top_k, dim=-1).values[:, -1:]
        logits.masked_fill_(logits < least, -math.inf)
    if top_p < 1:
        ordered, order = logits.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
        outside = ordered.cumsum(dim=-1) - ordered >= top_p
        logits.masked_fill_(outside.scatter(-1, order, outside), -math.inf)


def _check_context(
    model: Any, prompts: Sequence[Prompt], encoded: list[list[int]], max_new_tokens: int
) -> None:
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if context is None:
        return
    for prompt, tokens in zip(prompts, encoded, strict=True):
        if len(tokens) + max_new_tokens > context:
            raise ModelError(
                f"prompt {prompt.id!r} has {len(tokens)} tokens; with {max_new_tokens} new ones it exceeds "
                f"the model's context of {context}: shorten it, or lower --max-new-tokens"
            )
