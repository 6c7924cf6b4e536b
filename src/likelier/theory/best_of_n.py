"""Best-of-N, exactly: draw N completions from the reference, keep the one of the highest reward.

Among completions of equal reward the first drawn is kept, so within a tie each has its share under the reference.
"""

from __future__ import annotations

import math

import torch

from likelier.objectives.stable import log1mexp
from likelier.theory.optimum import kl
from likelier.theory.shapes import Cells, PerPrompt


def best_of_n(log_reference: Cells, reward: Cells, n: int) -> Cells:
    """`log π_N(y|x)`, `π_N(y) = π_ref(y)/P(r = r_y) · [P(r ≤ r_y)^N − P(r < r_y)^N]`, P under the reference.

    Args:
        log_reference: `[prompts, completions]`.
        reward: `[prompts, completions]`; equal ones are ties.
        n: N ≥ 1.

    Raises:
        ValueError: N < 1.

    >>> half = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    >>> best_of_n(half, torch.tensor([[0.0, 1.0]]).double(), 3).exp().round(decimals=12).tolist()  # 1/8: all were bad
    [[0.125, 0.875]]
    """
    if n < 1:
        raise ValueError(f"best-of-N needs N ≥ 1, not {n}")
    above, tied = reward.unsqueeze(-2) > reward.unsqueeze(-1), reward.unsqueeze(-2) == reward.unsqueeze(-1)
    others = log_reference.unsqueeze(-2)
    log_tied = others.masked_fill(~tied, -torch.inf).logsumexp(dim=-1)
    log_below = others.masked_fill(above | tied, -torch.inf).logsumexp(dim=-1)
    log_up_to = torch.logaddexp(log_below, log_tied)
    # P(≤)^N − P(<)^N, from the ratio P(<)/P(≤) = 1 − P(=)/P(≤), which rounding does not touch where P(=) is small.
    log_ratio = log1mexp((log_tied - log_up_to).clamp(max=-torch.finfo(log_tied.dtype).tiny))
    log_won = n * log_up_to + log1mexp((n * log_ratio).clamp(max=-torch.finfo(log_tied.dtype).tiny))
    return torch.where(log_reference > -torch.inf, log_reference - log_tied + log_won, -torch.inf)


def best_of_n_kl(log_reference: Cells, reward: Cells, n: int) -> PerPrompt:
    """`KL(π_N‖π_ref)` for each x, exactly, in nats.

    >>> half = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    >>> best_of_n_kl(half, torch.zeros(1, 2).double(), 4).tolist()  # all alike: nothing is chosen
    [0.0]
    """
    return kl(best_of_n(log_reference, reward, n), log_reference)


def kl_bound(n: int) -> float:
    """`log N − (N−1)/N`, which the KL of best-of-N never exceeds, and reaches where no two rewards tie.

    >>> kl_bound(1), round(kl_bound(4), 6)
    (0.0, 0.636294)
    """
    return math.log(n) - (n - 1) / n
