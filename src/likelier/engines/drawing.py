"""How the next token is drawn: temperature, top-k, top-p, min-p, and the noise of its own place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from likelier.engines.noise import draw_key, exponential_noise
from likelier.errors import UsageError

Place = tuple[str, int, int]
"""Of a token: prompt id, number of the sample, position in it."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What was drawn, one entry a row."""

    tokens: list[int]
    logps: list[float]
    """Under the sampler; greedy sampling has 0."""
    ties: list[bool]
    """Whether another token's score equals the best within the logits' precision: where a batch moves the last
    bits (not on a CPU), that one might have been drawn."""


class Draws(Protocol):
    """Whatever draws next tokens."""

    def draw_at(self, logits: Tensor, places: Sequence[Place]) -> Draw:
        """One token per row of `logits` [at least `len(places)`, scores], each for its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """How the next token is drawn: the logits over the temperature, then top-k, then top-p, then min-p.

    Args:
        seed: with prompt id, answer number and position, the source of all random numbers.
        temperature: 0 takes the likeliest token every time.
        top_p: keep the smallest set of likeliest tokens of at least this mass.
        top_k: keep this many likeliest tokens; 0 is all.
        min_p: keep tokens at least this many times as likely as the likeliest.

    Raises:
        UsageError: a value outside its range.
    """

    seed: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        """Refuses values outside their range."""
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise UsageError(f"--temperature must be 0 or more (given {self.temperature})")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"--top-p must be above 0 and at most 1 (given {self.top_p})")
        if self.top_k < 0:
            raise UsageError(f"--top-k must be 0 (off) or more (given {self.top_k})")
        if not 0 <= self.min_p <= 1:
            raise UsageError(f"--min-p must be between 0 (off) and 1 (given {self.min_p})")

    @property
    def plain(self) -> bool:
        """Whether it draws from the model's own distribution."""
        return self.temperature == 1 and self.top_p == 1 and not self.top_k and not self.min_p

    def draw_at(self, logits: Tensor, places: Sequence[Place]) -> Draw:
        """One token per row of `logits` [at least `len(places)`, vocabulary], by the random numbers of its place."""
        return self.draw(logits, [draw_key(self.seed, *place) for place in places])

    def draw(self, logits: Tensor, keys: list[int]) -> Draw:
        """One token per row of `logits` [at least `len(keys)`, vocabulary]."""
        logits = logits[: len(keys)]
        if self.temperature == 0:
            best = logits.argmax(dim=-1)
            scores = (logits.float() - logits.amax(dim=-1, keepdim=True).float()).exp()
            return Draw(best.tolist(), [0.0] * len(keys), _ties(scores, best, logits.dtype).tolist())
        # Row by row on a CPU: a row's dozen element-wise passes stay in its cache.
        step = 1 if logits.device.type == "cpu" else len(keys)
        parts = []
        for start in range(0, len(keys), step):
            rows, row_keys = logits[start : start + step], torch.tensor(keys[start : start + step])
            parts.append(self._draw(rows, row_keys.to(logits.device)))
        drawn, logps, ties = (torch.cat(column).tolist() for column in zip(*parts, strict=True))
        return Draw(drawn, logps, ties)

    def _draw(self, logits: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scaled = logits.to(torch.float32, copy=True).div_(self.temperature)
        if self.top_k or self.top_p < 1 or self.min_p:
            _truncate_(scaled, self.top_k, self.top_p, self.min_p)
        scaled -= scaled.amax(dim=-1, keepdim=True)
        weights = scaled.exp()
        scores = weights / exponential_noise(keys, logits.shape[-1])
        tokens = scores.argmax(dim=-1)
        logps = scaled.gather(-1, tokens[:, None])[:, 0] - weights.sum(dim=-1).log()
        return tokens, logps, _ties(scores, tokens, logits.dtype)


def _ties(scores: Tensor, best: Tensor, dtype: torch.dtype) -> Tensor:
    """Whether the second-best of `[rows, vocabulary]` positive scores equals the best within `dtype`'s precision."""
    first = scores.gather(-1, best[:, None])
    second = scores.scatter_(-1, best[:, None], 0.0).amax(dim=-1)
    return second >= first[:, 0] * (1 - torch.finfo(dtype).eps)


def _truncate_(logits: Tensor, top_k: int, top_p: float, min_p: float) -> None:
    """Sets to minus infinity what lies outside the top k, then outside the smallest set of mass top-p, then min-p."""
    if top_k and top_k < logits.shape[-1]:
        least = logits.topk(top_k, dim=-1).values[:, -1:]
        logits.masked_fill_(logits < least, -math.inf)
    if top_p < 1:
        ordered, order = logits.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
        outside = ordered.cumsum(dim=-1) - ordered >= top_p
        logits.masked_fill_(outside.scatter(-1, order, outside), -math.inf)
    if min_p:
        logits.masked_fill_(logits < logits.amax(dim=-1, keepdim=True) + math.log(min_p), -math.inf)
