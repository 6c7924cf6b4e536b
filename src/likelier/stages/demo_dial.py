"""The demo's slider: the policy that was trained read at other strengths, math.md (14), on a few held-out prompts.

At strengths 0 and 1 the answers are there: the first of each prompt before and after training. Those between and beyond
are drawn with the same random numbers, all strengths in one pass, so that the whole costs about as much as 60 answers
of two models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from likelier.data.output import JsonLines
from likelier.engines.dialling import at_each, sample_strengths
from likelier.engines.divergence import KlEstimate, estimate_kl
from likelier.engines.drawing import Sampler
from likelier.engines.prompts import Prompt
from likelier.engines.rewards import Reward
from likelier.engines.sampling import SampledPrompt
from likelier.report.comparison import rewards_of
from likelier.report.dial import AtStrength, Dial, at_strength, evenly
from likelier.stages.demo_prompts import last_turn
from likelier.stages.evaluate_dial import sampled_at

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """The answers to the held-out prompts at strengths 0 and 1, as the demo drew them."""

    reference: Sequence[SampledPrompt]
    policy: Sequence[SampledPrompt]
    kl: KlEstimate
    """Of the policy's answers."""

    def first(self, count: int) -> Ends:
        """The first answer to each of `count` prompts, evenly spaced."""
        chosen = evenly(count, len(self.policy))
        return Ends(
            reference=[_first(self.reference[number]) for number in chosen],
            policy=[_first(self.policy[number]) for number in chosen],
            kl=replace(self.kl, values=[self.kl.values[number][:1] for number in chosen]),
        )


def _first(prompt: SampledPrompt) -> SampledPrompt:
    return replace(prompt, completions=prompt.completions[:1])


def turned(
    policy: Any,
    reference: Any,
    tokenizer: Any,
    ends: Ends,
    *,
    of_prompts: int,
    reward: Reward,
    seed: int,
    max_new_tokens: int,
    on_progress: Callable[[int], None] | None = None,
) -> Dial:
    """The answers to the prompts of `ends` at every strength.

    Args:
        policy, reference, tokenizer: those that drew `ends`.
        ends: an answer to each prompt at strengths 0 and 1.
        of_prompts: how many prompts those were taken from.
        reward: of every answer.
        seed, max_new_tokens: with which `ends` were drawn.
        on_progress: called with the number of answers that were just drawn.
    """
    between = sampled_at(STRENGTHS)
    drawn = sample_strengths(
        policy,
        reference,
        tokenizer,
        [Prompt(id=prompt.id, content=prompt.prompt) for prompt in ends.policy],
        between,
        max_new_tokens=max_new_tokens,
        sampler=Sampler(seed=seed),
        on_progress=on_progress,
    )
    kl = estimate_kl(policy, reference, drawn, estimator=ends.kl.estimator, strengths=between)
    found = {0.0: (list(ends.reference), [[0.0]] * len(ends.reference))}
    found[1.0] = (list(ends.policy), ends.kl.values)
    for place, (strength, sampled) in enumerate(zip(between, at_each(drawn, len(between)), strict=True)):
        found[strength] = (sampled, [values[place : place + 1] for values in kl.values])
    return Dial(
        prompts=[last_turn(prompt.prompt) for prompt in ends.policy],
        of_prompts=of_prompts,
        estimator=ends.kl.estimator,
        settings=[_setting(strength, *found[strength], reward) for strength in STRENGTHS],
    )


def _setting(
    strength: float, sampled: list[SampledPrompt], kl: list[list[float]], reward: Reward
) -> AtStrength:
    return at_strength(strength, sampled, rewards=rewards_of(reward, sampled), kl=kl)


def write_dial(path: Path, dial: Dial) -> None:
    """A line for each strength and prompt: its answers, with their rewards and KL."""
    with JsonLines(path) as file:
        for one in dial.settings:
            for prompt, rewards, kl in zip(one.sampled, one.point.rewards, one.point.kl, strict=True):
                answers = [
                    {"text": own.text, "tokens": own.tokens, "logp": own.logp, "finish": own.finish}
                    for own in prompt.completions
                ]
                row = {"id": prompt.id, "prompt": prompt.prompt, "strength": one.strength}
                file.write({**row, "completions": answers, "rewards": rewards, "kl": kl})
