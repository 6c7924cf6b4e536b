"""Families of policies: how parameters become log-probabilities. Parameters of 0 are the reference, in each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from likelier.theory.shapes import Cells, Vector

Features = Float64[Tensor, "prompts completions parameters"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A differentiable map from parameters to a policy.

    >>> half = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    >>> softmax_table(half).log_policy(torch.tensor([3.0, 0.0], dtype=torch.float64).log1p()).exp().tolist()
    [[0.8, 0.2]]
    """

    log_policy: Callable[[Vector], Cells]
    start: Vector
    """The parameters at which training starts: those of the reference."""
    redundant: int = 0
    """Directions of the parameters that leave every policy as it is."""


def softmax_table(log_reference: Cells) -> Family:
    """One parameter for each cell of the reference's support: `π(y|x) ∝ π_ref(y|x) exp θ(x,y)`.

    Any policy that is positive just there is in it, and its parameters are its log-ratios, up to a shift of
    each prompt's.
    """
    support = log_reference > -torch.inf

    def log_policy(parameters: Vector) -> Cells:
        shifts = torch.zeros_like(log_reference).masked_scatter(support, parameters)
        return (log_reference + shifts).log_softmax(dim=-1)

    return Family(
        log_policy=log_policy,
        start=log_reference.new_zeros(int(support.sum())),
        redundant=log_reference.shape[0],
    )


def log_linear(log_reference: Cells, features: Features) -> Family:
    """`π(y|x) ∝ π_ref(y|x) exp(φ(x,y)·θ)`: completions share parameters, so moving one moves its like.

    Args:
        log_reference: `[prompts, completions]`.
        features: φ, `[prompts, completions, parameters]`.

    >>> alike = torch.tensor([[[1.0], [1.0], [0.0]]], dtype=torch.float64)
    >>> third = torch.full((1, 3), 1 / 3, dtype=torch.float64).log()
    >>> policy = log_linear(third, alike).log_policy(torch.tensor([1.0], dtype=torch.float64))
    >>> [round(p, 3) for p in policy.exp()[0].tolist()]
    [0.422, 0.422, 0.155]
    """

    def log_policy(parameters: Vector) -> Cells:
        return (log_reference + features @ parameters).log_softmax(dim=-1)

    return Family(log_policy=log_policy, start=features.new_zeros(features.shape[2]))
