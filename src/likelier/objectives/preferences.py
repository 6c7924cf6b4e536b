"""From rewards to preferences: Bradley–Terry and Plackett–Luce, math.md (1) and (2)."""

from __future__ import annotations

import torch

from likelier.objectives.shapes import PerTree, TreeMask, TreeRanks, Trees, Values
from likelier.objectives.stable import masked


def bradley_terry(first: Values, second: Values) -> Values:
    """`p*(y_1 ≻ y_2 | x) = σ(r(x, y_1) − r(x, y_2))`: math.md (1), the paper's equation 1.

    `first`, `second`: rewards of one shape; the probability has the same.

    >>> import torch
    >>> bradley_terry(torch.tensor([0.0, 3.0]), torch.tensor([0.0, 3.0])).tolist()
    [0.5, 0.5]
    """
    return torch.sigmoid(first - second)


def plackett_luce_log_probability(rewards: Trees, *, mask: TreeMask, ranks: TreeRanks) -> PerTree:
    """`log p*(τ | x) = Σ_k [ r_τ(k) − log Σ_{j≥k} exp r_τ(j) ]`: math.md (2), the paper's equation 18.

    A tied answer is scored against itself and all strictly lower groups. The order of the columns is
    free: only `ranks` says who is better.

    Args:
        rewards: `[trees, K]`, floating.
        mask: `[trees, K]`, bool; False where a tree has fewer than K answers.
        ranks: `[trees, K]`, integer; 0 the best, tied answers share a rank.

    Returns:
        `[trees]`: the log-probability of each tree's ranking; 0 for a tree of one answer.

    >>> import torch
    >>> three = torch.zeros(1, 3, dtype=torch.float64)
    >>> order = dict(mask=torch.ones(1, 3, dtype=torch.bool), ranks=torch.tensor([[2, 0, 1]]))
    >>> plackett_luce_log_probability(three, **order).exp().item()  # one of 3! orders, all alike
    0.16666666666666669
    """
    rewards = masked(rewards, mask)
    lower = ranks.unsqueeze(-1) < ranks.unsqueeze(-2)
    # An answer is always left to itself: no row is all −inf, so no gradient is NaN.
    itself = torch.eye(ranks.shape[-1], dtype=torch.bool, device=ranks.device)
    left = (lower & mask.unsqueeze(-2)) | itself
    others = rewards.unsqueeze(-2).expand(left.shape)
    log_total = others.masked_fill(~left, -torch.inf).logsumexp(dim=-1)
    return masked(rewards - log_total, mask).sum(dim=-1)
