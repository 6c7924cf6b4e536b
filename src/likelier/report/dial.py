"""One trained policy at several strengths, math.md (14): the same prompts, the same random numbers, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from likelier.engines.divergence import Estimator
from likelier.engines.sampling import SampledPrompt
from likelier.report.frontier import Point
from likelier.report.page import number
from likelier.stats import Estimate, paired_interval

SHOWN = 4
"""Prompts whose answers are shown at once; the others unfold."""
POLICY = 1.0
"""The strength of the policy itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AtStrength:
    """Answers at one strength, and what they are worth."""

    strength: float
    """λ; 0 is the reference, 1 the policy."""
    sampled: list[SampledPrompt]
    point: Point
    """Rewards, KL to the reference and lengths, with their intervals."""

    @property
    def told(self) -> str:
        """In words, for whoever does not see the picture."""
        reward, kl = self.point.reward.value, self.point.distance.value
        return f"strength {self.strength:g}: reward {number(reward)}, KL {number(kl)}"

    def beta(self, trained: float) -> str:
        """β′ = β/λ, the β of (4) whose optimum this would be if the policy were the optimum at `trained`."""
        return f"{trained / self.strength:.3g}" if self.strength else "∞"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        point = self.point
        return {
            "strength": self.strength,
            "reward": asdict(point.reward),
            "kl": asdict(point.distance),
            "length": asdict(point.length),
            "cut": point.cut,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """The answers of one policy to the same prompts at every strength."""

    prompts: Sequence[str]
    """What they ask."""
    of_prompts: int
    """How many there were to take them from."""
    estimator: Estimator
    """Of the KL."""
    settings: Sequence[AtStrength]
    """From the weakest on; 0 and 1 are among them."""

    @property
    def policy(self) -> int:
        """The number of the setting that is the policy itself."""
        return [one.strength for one in self.settings].index(POLICY)

    @property
    def answers(self) -> int:
        """Answers to each prompt at a strength."""
        return len(self.settings[0].sampled[0].completions)

    @property
    def first(self) -> list[int]:
        """The numbers of the prompts that are shown at once, evenly spaced."""
        return evenly(SHOWN, len(self.prompts))

    @property
    def rest(self) -> list[int]:
        """The numbers of the others."""
        return [number for number in range(len(self.prompts)) if number not in self.first]

    @property
    def beyond(self) -> Estimate:
        """By how much the reward changes from the policy to the greatest strength, paired over prompts."""
        own, last = (
            [fmean(rewards) for rewards in self.settings[number].point.rewards]
            for number in (self.policy, -1)
        )
        return paired_interval(own, last)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "prompts": len(self.prompts),
            "answers_per_prompt": self.answers,
            "estimator": self.estimator,
            "strengths": [one.as_dict() for one in self.settings],
            "beyond_the_policy": asdict(self.beyond),
        }


def at_strength(
    strength: float, sampled: list[SampledPrompt], *, rewards: list[list[float]], kl: list[list[float]]
) -> AtStrength:
    """Answers at a strength with their rewards and an estimate of KL to the reference, `[prompts][answers]` both."""
    answers = [prompt.completions for prompt in sampled]
    point = Point(
        run="policy",
        setting=f"λ = {strength:g}",
        step=None,
        rewards=rewards,
        kl=kl,
        lengths=[[len(answer.tokens) for answer in own] for own in answers],
        cut=sum(answer.finish == "length" for own in answers for answer in own),
        compute={},
    )
    return AtStrength(strength=strength, sampled=sampled, point=point)


def evenly(count: int, total: int) -> list[int]:
    """`count` numbers below `total`, evenly spaced from 0 on; all of them where there are no more.

    >>> evenly(3, 8), evenly(3, 2)
    ([0, 2, 5], [0, 1])
    """
    return [place * total // count for place in range(count)] if count < total else list(range(total))
