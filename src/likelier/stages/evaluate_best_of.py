"""Best-of-N in an evaluation: of N answers of one model the one that a chooser scores highest.

Every N is read off the same draws, the largest N of them for each prompt: its reward is the mean over all subsets of N
draws of the reward of the one kept (`stats/best_of.py`), which is unbiased, and closer than N fresh draws would be. Its
KL to the model that was drawn from is not estimated but bounded, by `log N − (N−1)/N` (math.md, "Baselines"): reached
where no two scores tie, and otherwise too large. In `evaluate temperature` the draws are the first run's at each
temperature, and what is expected is whether the one kept is preferred; draws that no N ever keeps are not judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from likelier.engines.sampling import SampledPrompt
from likelier.report.frontier import Point
from likelier.stages.evaluate_players import Answers
from likelier.stats.best_of import kept_weights
from likelier.theory.best_of_n import kl_bound

BEST_OF = "best-of-N"


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


def best_of_answers(n: int, drawn: Answers, scores: Sequence[Sequence[float]]) -> Answers:
    """A player that keeps the best of `n` of the draws; where all draws are one, as at temperature 0, that one.

    Args:
        n: how many it chooses from.
        drawn: every draw.
        scores: `[prompts][draws]`, the chooser's.
    """
    kept = [kept_weights(own, min(n, len(own))) / len(own) for own in scores]
    weights = [own.tolist() for own in kept]
    return replace(drawn, who=f"best-of-{n} of {drawn.who}", best_of=n, weights=weights)


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
