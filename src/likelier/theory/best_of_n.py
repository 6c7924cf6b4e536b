"""Best-of-N, exactly: draw N completions from the reference, keep the one of the highest reward.

Among completions of equal reward the first drawn is kept, so within a tie each has its share under the reference.
"""

from __future__ import annotations

import math

import torch

from likelier.objectives.stable import log1mexp
from likelier.theory.optimum import kl, mean, place, reward_at
from likelier.theory.shapes import Cells, PerPrompt
from likelier.theory.statement import IDENTITY, Statement, largest, largest_gap
from likelier.theory.world import World


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


def statements(world: World, beta: float) -> list[Statement]:
    """Best-of-N in `world`: its distribution by every draw, its KL, and its place.

    >>> [statement.name for statement in statements(World.random(0), 0.5) if not statement.holds]
    []
    """
    return [_every_draw(world), _within_the_bound(world), _under_the_frontier(world)]


_DRAWS = 3
_SIZES = (1, 2, 4, 16, 256)


def _every_draw(world: World) -> Statement:
    """All K³ sequences of draws, or K² where that are too many."""
    n = _DRAWS if world.reward.shape[1] <= 40 else _DRAWS - 1
    found = best_of_n(world.log_reference, world.reward, n).exp()
    errors = [
        largest_gap(row, _by_draws(reference, reward, n))
        for row, reference, reward in zip(found, world.log_reference.exp(), world.reward, strict=True)
    ]
    return Statement(
        name="best-of-N: P(r ≤ r_y)^N − P(r < r_y)^N, shared by ties, is its distribution",
        equation="best-of-N",
        error=largest(errors),
        bound=IDENTITY,
        note=f"against all sequences of {n} draws",
    )


def _by_draws(probability: torch.Tensor, reward: torch.Tensor, n: int) -> torch.Tensor:
    draws = torch.cartesian_prod(*[torch.arange(len(reward))] * n).reshape(-1, n)
    chance = probability[draws].prod(dim=-1)
    kept = draws.gather(-1, reward[draws].argmax(dim=-1, keepdim=True)).squeeze(-1)
    return torch.zeros_like(probability).index_add(0, kept, chance)


def _within_the_bound(world: World) -> Statement:
    found = {n: best_of_n_kl(world.log_reference, world.reward, n) for n in _SIZES}
    above = [float((one - kl_bound(n)).max()) for n, one in found.items()]
    return Statement(
        name="KL(best-of-N‖π_ref) ≤ log N − (N−1)/N",
        equation="best-of-N",
        error=largest([0.0, *above]),
        bound=IDENTITY,
        note=f"N = 4: {float(mean(world, found[4])):.4g} of {kl_bound(4):.4g} nats",
    )


def _under_the_frontier(world: World) -> Statement:
    places = [place(world, best_of_n(world.log_reference, world.reward, n)) for n in _SIZES]
    above = [stands.reward - reward_at(world, stands.kl) for stands in places]
    return Statement(
        name="best-of-N lies on or under the frontier",
        equation="(4)",
        error=largest([0.0, *above]) / max(1.0, float(world.reward.abs().max())),
        bound=1e-8,
        note=f"N = 4: {-above[2]:.3g} under it",
    )
