"""The gradient of the DPO loss, math.md (9), and whether a step raises what was chosen.

A policy is any differentiable function from parameters to a table of log-probabilities (`policies.Family`), or a table
whose own logits are the parameters: there the gradient has a closed form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from jaxtyping import Float64
from torch import Tensor

from likelier.objectives import OBJECTIVES
from likelier.theory.comparisons import Comparisons
from likelier.theory.descent import Training
from likelier.theory.shapes import Cells, Number, Vector, Weights

Policy = Callable[[Vector], Cells]


def dpo_loss(log_policy: Cells, log_reference: Cells, comparisons: Comparisons, beta: float) -> Number:
    """`−Σ w log σ(u)`: math.md (7), the paper's equation 7, by the very function that training uses.

    >>> from likelier.theory.comparisons import population
    >>> from likelier.theory.world import World
    >>> world = World.random(0)
    >>> dpo_loss(world.log_reference, world.log_reference, population(world), 0.1).item()  # log 2
    0.6931471805599453
    """
    training = Training(objective=OBJECTIVES["sigmoid"], log_reference=log_reference, beta=beta)
    return training.loss(comparisons, log_policy)


def margins(log_policy: Cells, log_reference: Cells, comparisons: Comparisons, beta: float) -> Weights:
    """`u = β log(π(y_w|x)/π_ref(y_w|x)) − β log(π(y_l|x)/π_ref(y_l|x))` of each comparison: math.md (7)."""
    implicit = beta * (log_policy - log_reference)
    prompt = comparisons.prompt
    return implicit[prompt, comparisons.winner] - implicit[prompt, comparisons.loser]


def pair_weights(log_policy: Cells, log_reference: Cells, comparisons: Comparisons, beta: float) -> Weights:
    """`β w σ(−u)`, by which each comparison pulls: math.md (9). Always positive.

    >>> from likelier.theory.comparisons import population
    >>> from likelier.theory.world import World
    >>> world = World.random(0)
    >>> pair_weights(world.log_reference, world.log_reference, population(world), 0.5).sum().item()  # β/2
    0.25
    """
    return beta * comparisons.weight * torch.sigmoid(-margins(log_policy, log_reference, comparisons, beta))


def table_gradient(log_policy: Cells, log_reference: Cells, comparisons: Comparisons, beta: float) -> Cells:
    """`∇L` in the logits of a softmax table: math.md (9), section 4 of the paper.

    `∇ log π(y_w|x) − ∇ log π(y_l|x)` is there 1 at y_w and −1 at y_l, since the probabilities cancel. So a cell's
    derivative is what pulls where it lost less what pulls where it won.

    >>> from likelier.theory.comparisons import population
    >>> from likelier.theory.world import World
    >>> world = World.random(0)
    >>> gradient = table_gradient(world.log_reference, world.log_reference, population(world), 0.1)
    >>> bool((gradient.sum(dim=-1).abs() < 1e-15).all())  # a softmax does not see a shift of its logits
    True
    """
    pull = pair_weights(log_policy, log_reference, comparisons, beta)
    prompt, gradient = comparisons.prompt, torch.zeros_like(log_policy)
    gradient = gradient.index_put((prompt, comparisons.loser), pull, accumulate=True)
    return gradient.index_put((prompt, comparisons.winner), -pull, accumulate=True)


def policy_gradient(
    policy: Policy, parameters: Vector, log_reference: Cells, comparisons: Comparisons, beta: float
) -> Vector:
    """`∇L = −β Σ w σ(−u) (∇log π(y_w|x) − ∇log π(y_l|x))` for any policy: math.md (9), section 4 of the paper.

    Args:
        policy: from parameters to log-probabilities `[prompts, completions]`, differentiable.
        parameters: `[parameters]`, where the gradient is taken.
        log_reference, comparisons, beta: as in `dpo_loss`.

    >>> from likelier.theory.comparisons import population
    >>> from likelier.theory.policies import softmax_table
    >>> from likelier.theory.world import World
    >>> world = World.random(0)
    >>> reference, table = world.log_reference, softmax_table(world.log_reference)
    >>> of_any = policy_gradient(table.log_policy, table.start, reference, population(world), 0.1)
    >>> of_table = table_gradient(reference, reference, population(world), 0.1)
    >>> bool((of_any - of_table.flatten()).abs().max() < 1e-15)
    True
    """
    pull = pair_weights(policy(parameters), log_reference, comparisons, beta)
    each = log_probability_gradients(policy, parameters)
    prompt = comparisons.prompt
    return -pull @ (each[prompt, comparisons.winner] - each[prompt, comparisons.loser])


def log_probability_gradients(
    policy: Policy, parameters: Vector
) -> Float64[Tensor, "prompts completions parameters"]:
    """`∇ log π(y|x)` for every cell."""
    return cast("Tensor", torch.autograd.functional.jacobian(policy, parameters))


class Displacement(NamedTuple):
    """What a small step on one pair does to its two log-probabilities, math.md (9)."""

    chosen: float
    """`|g_w|² − ⟨g_w, g_l⟩`; log π(y_w) changes by this times β σ(−u) times the step's length. Negative: it falls."""
    rejected: float
    """`⟨g_w, g_l⟩ − |g_l|²`, the same of log π(y_l)."""

    @property
    def margin(self) -> float:
        """`|g_w − g_l|²`, by which the margin grows: never negative."""
        return self.chosen - self.rejected


def displacement(
    policy: Policy, parameters: Vector, *, prompt: int, chosen: int, rejected: int
) -> Displacement:
    """The change of log π(y_w) and log π(y_l) in a gradient step on (y_w, y_l), to first order.

    In a softmax table the chosen one always gains, since `|g_w|² − ⟨g_w, g_l⟩ = 1 − π(y_w|x) + π(y_l|x)`. Where
    completions share parameters it need not. The smallest case has one parameter θ and π ∝ exp(θ φ): to push the
    rejected one (φ = 2) down θ must fall, and the chosen one (φ = 1) falls with it, to the gain of two others
    (φ = 0) that nobody compared.

    >>> from likelier.theory.policies import log_linear
    >>> alike = torch.full((1, 4), 0.25, dtype=torch.float64).log()
    >>> shared = log_linear(alike, torch.tensor([[[1.0], [2.0], [0.0], [0.0]]], dtype=torch.float64))
    >>> displacement(shared.log_policy, shared.start, prompt=0, chosen=0, rejected=1)
    Displacement(chosen=-0.25, rejected=-1.25)
    """
    gradients = log_probability_gradients(policy, parameters)[prompt]
    of_chosen, of_rejected = gradients[chosen], gradients[rejected]
    both = of_chosen @ of_rejected
    return Displacement(float(of_chosen @ of_chosen - both), float(both - of_rejected @ of_rejected))
