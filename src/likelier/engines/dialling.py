"""Answers at several strengths of the β dial at once: the same prompts, the same random numbers, one pass for all.

math.md (14), token by token (`mixing.py`). Policy and reference read every sample, and each sample's next token is
drawn from their logits mixed at its own strength. Each answer is, token for token on a CPU, the one that the mixture at
its strength draws alone; but a prompt is read once for all strengths, and all of them share the forwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from likelier.engines.drawing import Draw, Place, Sampler
from likelier.engines.mixing import Mixture, mixed_logits, require_same_tokens
from likelier.engines.prompts import Prompt
from likelier.engines.sampling import SampledPrompt, sample


@dataclass(frozen=True, slots=True)
class DialSampler:
    """Draws each sample from two models mixed at a strength of its own.

    Args:
        sampler: how the next token is drawn from the mixture.
        strengths: sample i is answer `i // len(strengths)` at `strengths[i % len(strengths)]`, with that answer's
            random numbers.

    >>> logits = torch.tensor([[0.0, 9.0, 9.0, 0.0]] * 2)  # the policy says 1, the reference 0
    >>> greedy = DialSampler(Sampler(temperature=0.0), (0.0, 1.0))
    >>> greedy.draw_at(logits, [("a", 0, 0), ("a", 1, 0)]).tokens
    [0, 1]
    """

    sampler: Sampler
    strengths: tuple[float, ...]

    def draw_at(self, logits: Tensor, places: Sequence[Place]) -> Draw:
        """One token per row of `logits`, `[at least len(places), 2 · vocabulary]`, policy before reference."""
        policy, reference = logits[: len(places)].chunk(2, dim=-1)
        count = len(self.strengths)
        mixed = [
            mixed_logits(reference[row], policy[row], self.strengths[index % count])
            for row, (_, index, _) in enumerate(places)
        ]
        own = [(prompt, index // count, position) for prompt, index, position in places]
        return self.sampler.draw_at(torch.stack(mixed), own)


def sample_strengths(
    policy: Any,
    reference: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    strengths: Sequence[float],
    *,
    n: int = 1,
    max_new_tokens: int = 64,
    sampler: Sampler | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> list[SampledPrompt]:
    """`n` answers at each strength to each prompt: of a prompt's completions, number `i` is at `strengths[i % S]`.

    Args:
        policy, reference: over the same tokens; prompts are written, and answers end, as the policy's.
        tokenizer, prompts, max_new_tokens, sampler, on_progress: as in `sampling.sample_each`.
        strengths: λ of math.md (14), `[S]`; 0 is the reference, 1 the policy.
        n: answers per prompt and strength.

    Raises:
        UsageError: models over different tokens.
        DataError, ModelError: prompts that cannot be answered.
    """
    require_same_tokens(policy, reference, needs="mixing next tokens needs")
    return sample(
        Mixture(policy, reference, None),
        tokenizer,
        prompts,
        n=n * len(strengths),
        max_new_tokens=max_new_tokens,
        sampler=DialSampler(sampler or Sampler(), tuple(strengths)),
        on_progress=on_progress,
    )


def at_each(sampled: Sequence[SampledPrompt], count: int) -> list[list[SampledPrompt]]:
    """What `sample_strengths` drew at `count` strengths, `[strengths][prompts]`."""
    return [
        [replace(prompt, completions=prompt.completions[place::count]) for prompt in sampled]
        for place in range(count)
    ]
