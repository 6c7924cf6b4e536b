"""Who would be preferred to whom: Bradley–Terry, and labels that are not Bradley–Terry's.

A preference model is a table `[prompts, completions, completions]`: how likely completion i is preferred to
completion j under prompt x. Its diagonal is one half, and `[x, i, j] + [x, j, i]` is 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from likelier.objectives import bradley_terry
from likelier.theory.shapes import Cells, Versus


def by_reward(reward: Cells) -> Versus:
    """`p*(y_i ≻ y_j | x) = σ(r(x,y_i) − r(x,y_j))`: math.md (1), the paper's equation 1.

    >>> [round(p, 12) for p in by_reward(torch.tensor([[3.0, 0.0]]).double().log1p())[0, 0].tolist()]  # e^r: 4 and 1
    [0.5, 0.8]
    """
    shape = (*reward.shape, reward.shape[1])
    return bradley_terry(reward.unsqueeze(2).expand(shape), reward.unsqueeze(1).expand(shape))


def deterministic(reward: Cells) -> Versus:
    """Always the higher reward; equal rewards are a coin.

    >>> deterministic(torch.tensor([[2.0, 1.0, 1.0]], dtype=torch.float64))[0, 0].tolist()
    [0.5, 1.0, 1.0]
    """
    return 0.5 * (1.0 + _differences(reward).sign())


def through_link(reward: Cells, link: Callable[[Tensor], Tensor]) -> Versus:
    """`link(r(x,y_i) − r(x,y_j))` for another distribution function than σ, such as the normal one (Thurstone).

    `link` must be symmetric, `link(−d) = 1 − link(d)`.

    Raises:
        ValueError: it is not.

    >>> round(through_link(torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.special.ndtr)[0, 0, 1].item(), 12)
    0.841344746069
    """
    chances: Versus = link(_differences(reward))
    if not torch.allclose(chances + chances.mT, torch.ones_like(chances), atol=1e-12):
        raise ValueError("the link must be symmetric: link(−d) = 1 − link(d)")
    return chances


def in_circles(reward: Cells, strength: float) -> Versus:
    """`σ(r_i − r_j + strength · c_ij)`, c = 1 for the half of the completions that follow i in a circle, else −1.

    Of three with equal rewards each beats the next: no reward explains it. Opposite places of an even circle have
    c = 0.

    >>> rock = in_circles(torch.zeros(1, 3, dtype=torch.float64), 2.0)
    >>> bool(rock[0, 0, 1] == rock[0, 1, 2] == rock[0, 2, 0] > 0.5)
    True
    """
    size = reward.shape[1]
    place = torch.arange(size)
    ahead = (place.unsqueeze(0) - place.unsqueeze(1)) % size
    circle = torch.sign(size - 2.0 * ahead.to(reward.dtype)).masked_fill(ahead == 0, 0.0)
    return torch.sigmoid(_differences(reward) + strength * circle)


def flipped(chances: Versus, rate: float) -> Versus:
    """The same labels, each turned round with probability `rate`: `(1−ε) p + ε (1−p)`.

    Raises:
        ValueError: ε outside [0, 1].

    >>> flipped(deterministic(torch.tensor([[2.0, 1.0]], dtype=torch.float64)), 0.25)[0, 0, 1].item()
    0.75
    """
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"labels are flipped at a rate between 0 and 1, not {rate}")
    return (1.0 - rate) * chances + rate * chances.mT


def liking_length(reward: Cells, lengths: Cells, per_token: float) -> Cells:
    """The reward by which labels are given that like length: `r(x,y) + per_token · |y|`.

    >>> reward, lengths = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[3.0, 5.0]], dtype=torch.float64)
    >>> liking_length(reward, lengths, 0.5).tolist()
    [[1.5, 2.5]]
    """
    return reward + per_token * lengths


def _differences(reward: Cells) -> Versus:
    return reward.unsqueeze(2) - reward.unsqueeze(1)
