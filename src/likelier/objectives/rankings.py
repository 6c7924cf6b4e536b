"""Losses over K answers of one prompt, and over single answers.

Shapes: `policy`, `reference`, `lengths`, `mask` (bool, False where a tree has fewer than K answers) and
`ranks` or `scores` are `[trees, K]`; a loss is `[trees]`. What stands in masked entries is never read.
"""

from __future__ import annotations

import torch

from likelier.objectives.preferences import plackett_luce_log_probability
from likelier.objectives.shapes import Counts, PerTree, TreeLengths, TreeMask, TreeRanks, Trees, Values
from likelier.objectives.stable import masked, per_token


def plackett_luce(
    policy: Trees, reference: Trees, lengths: TreeLengths, beta: float, *, mask: TreeMask, ranks: TreeRanks
) -> PerTree:
    """`−Σ_k [ r̂_τ(k) − log Σ_{j≥k} exp r̂_τ(j) ]`, `r̂ = β log-ratio`: math.md (10), the paper's equation 20.

    For K = 2 it is the sigmoid loss. A tied answer is scored against itself and all strictly lower groups.
    `ranks`: integer, 0 the best. Lengths are not read.

    >>> import torch
    >>> at_reference = torch.zeros(1, 3, dtype=torch.float64)
    >>> order = dict(mask=torch.ones(1, 3, dtype=torch.bool), ranks=torch.tensor([[0, 1, 2]]))
    >>> plackett_luce(at_reference, at_reference, torch.ones(1, 3), 0.1, **order).item()  # log 3 + log 2
    1.791759469228055
    """
    rewards = beta * (policy - reference)
    return -plackett_luce_log_probability(rewards, mask=mask, ranks=ranks)


def listwise(
    policy: Trees, reference: Trees, lengths: TreeLengths, beta: float, *, mask: TreeMask, scores: Trees
) -> PerTree:
    """`−Σ_k softmax_k(score/β) log softmax_k(log-ratio)`: math.md (10), its second form.

    Its optimum is the optimal policy restricted to the tree, `∝ π_ref(y_k|x) exp(score_k/β)`.
    `scores`: floating, higher is better. Lengths are not read.

    >>> import torch
    >>> at_reference = torch.zeros(1, 4, dtype=torch.float64)
    >>> given = dict(mask=torch.ones(1, 4, dtype=torch.bool), scores=torch.tensor([[3.0, 0.0, 1.0, 2.0]]))
    >>> listwise(at_reference, at_reference, torch.ones(1, 4), 0.1, **given).item()  # log 4
    1.3862943611198906
    """
    log_ratio = masked(policy, mask) - masked(reference, mask)
    target = _log_softmax(masked(scores, mask).to(policy.dtype) / beta, mask).exp()
    return -masked(target * _log_softmax(log_ratio, mask), mask).sum(dim=-1)


def sft(policy: Values, reference: Values | None, lengths: Counts, beta: float) -> Values:
    """`−log π_θ(y|x)` per answer, summed over its tokens: math.md (11). Any shape; only `policy` is read.

    Over a step its reduction is Σ nll / Σ scored tokens (`Objective.denominators`), not a mean of means.

    >>> import torch
    >>> sft(torch.tensor([-4.0, -6.0]), None, torch.tensor([2, 3]), 0.1).tolist()
    [4.0, 6.0]
    """
    return -policy


def best_token_loss(policy: Trees, lengths: TreeLengths, best: TreeMask) -> PerTree:
    """`−p_w/|y_w|` of the best answer, the mean over them where several are tied: the added SFT term.

    `policy`, `lengths`, `best` (bool): `[items, K]`; returns `[items]` (arXiv 2404.19733).

    >>> import torch
    >>> best = torch.tensor([[True, False]])
    >>> best_token_loss(torch.tensor([[-4.0, -6.0]]), torch.tensor([[2, 3]]), best).tolist()
    [2.0]
    """
    token_loss = -per_token(masked(policy, best), lengths)
    return masked(token_loss, best).sum(dim=-1) / best.sum(dim=-1).clamp(min=1)


def _log_softmax(values: Trees, mask: TreeMask) -> Trees:
    """Log-softmax over the entries in `mask`; no NaN where a row is all masked."""
    lowest = torch.finfo(values.dtype).min
    return values.masked_fill(~mask, lowest).log_softmax(dim=-1)
