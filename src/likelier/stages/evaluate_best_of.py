"""Best-of-N in an evaluation: of N answers of one model the one that a chooser scores highest.

Every N is read off the same draws, the largest N of them for each prompt: its reward is the mean over all subsets of N
draws of the reward of the one kept (`stats/best_of.py`), which is unbiased, and closer than N fresh draws would be. Its
KL to the model that was drawn from is not estimated but bounded, by `log N − (N−1)/N` (math.md, "Baselines"): reached
where no two scores tie, and otherwise too large.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from likelier.engines.rewards import Reward
from likelier.engines.sampling import SampledPrompt
from likelier.report.frontier import Point
from likelier.stats.best_of import kept_weights
from likelier.theory.best_of_n import kl_bound

BEST_OF = "best-of-N"


def scores_of(reward: Reward, sampled: Sequence[SampledPrompt], *, who: str) -> list[list[float]]:
    """`[prompts][answers]`; a reward that is no number is named by its prompt.

    Raises:
        WorkError: a reward that fails, or gives no finite number.
    """
    found = []
    for prompt in sampled:
        texts = [answer.text for answer in prompt.completions]
        places = [f"prompt {prompt.id!r}, answer {number} of {who}" for number in range(1, len(texts) + 1)]
        found.append(reward([prompt.prompt] * len(texts), texts, places=places))
    return found


def best_of_points(
    sizes: Sequence[int],
    sampled: Sequence[SampledPrompt],
    *,
    scores: Sequence[Sequence[float]],
    rewards: Sequence[Sequence[float]],
) -> list[Point]:
    """A point for each N, all from the same draws.

    Args:
        sizes: every N, none larger than the number of draws.
        sampled: draws from the reference.
        scores, rewards: `[prompts][draws]`, the chooser's and the one that is measured.
    """
    return [_point(n, sampled, scores=scores, rewards=rewards) for n in sizes]


def _point(
    n: int,
    sampled: Sequence[SampledPrompt],
    *,
    scores: Sequence[Sequence[float]],
    rewards: Sequence[Sequence[float]],
) -> Point:
    weights = [kept_weights(own, n) for own in scores]
    lengths = [[len(answer.tokens) for answer in prompt.completions] for prompt in sampled]
    cut = [[answer.finish == "length" for answer in prompt.completions] for prompt in sampled]
    return Point(
        run=BEST_OF,
        setting=f"N = {n}",
        step=None,
        rewards=_kept(weights, rewards),
        kl=[[kl_bound(n)] for _ in sampled],
        kl_is="upper bound",
        lengths=_kept(weights, lengths),
        cut=sum(own[0] for own in _kept(weights, cut)),
        compute={},
    )


def _kept(weights: Sequence[Any], values: Sequence[Sequence[float]]) -> list[list[float]]:
    """`[prompts][1]`: what is expected of the answer that is kept."""
    return [
        [float(np.mean(own * np.asarray(of, np.float64)))] for own, of in zip(weights, values, strict=True)
    ]
