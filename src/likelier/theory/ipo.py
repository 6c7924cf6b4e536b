"""The problem that IPO solves in place of the reward's: win often against others, near the reference."""

from __future__ import annotations

import torch

from likelier.theory.shapes import Cells, Versus


def win_rate(chances: Versus, opponents: Cells) -> Cells:
    """`E_{y'∼μ}[p(y ≻ y')]`: how often a completion is preferred to one drawn from `opponents`.

    Args:
        chances: the preference model, `[prompts, completions, completions]`, one half on its diagonal.
        opponents: log μ(y|x), `[prompts, completions]`.
    """
    return (chances @ opponents.exp().unsqueeze(2)).squeeze(2)


def ipo_optimal_policy(log_reference: Cells, chances: Versus, opponents: Cells, beta: float) -> Cells:
    """The maximum of `E_{y∼π, y'∼μ}[p(y ≻ y')] − β KL(π‖π_ref)`: arXiv 2310.12036, equation 7 with Ψ the identity.

    `π ∝ π_ref exp(E_{y'∼μ}[p(y ≻ y')]/β)`. Win rates lie in [0, 1], so log-ratios never differ by more than 1/β.

    >>> half = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    >>> always = torch.tensor([[[0.5, 1.0], [0.0, 0.5]]], dtype=torch.float64)
    >>> policy = ipo_optimal_policy(half, always, half, 0.5)  # win rates 3/4 and 1/4
    >>> round(float(policy[0, 0] - policy[0, 1]), 12)
    1.0
    """
    return (log_reference + win_rate(chances, opponents) / beta).log_softmax(dim=-1)


def uniform_opponents(log_reference: Cells) -> Cells:
    """log μ for every completion of the reference's support alike.

    >>> uniform_opponents(torch.tensor([[0.9, 0.1, 0.0]], dtype=torch.float64).log()).exp().tolist()
    [[0.5, 0.5, 0.0]]
    """
    return torch.where(log_reference > -torch.inf, 0.0, log_reference).log_softmax(dim=-1)
