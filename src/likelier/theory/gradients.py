"""The gradient of the DPO loss, math.md (9); `displacement.py` says whether a step raises what was chosen.

A policy is any differentiable function from parameters to a table of log-probabilities (`policies.Family`), or a table
whose own logits are the parameters: there the gradient has a closed form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float64
from torch import Tensor

from likelier.objectives import OBJECTIVES
from likelier.theory.comparisons import Comparisons, population
from likelier.theory.descent import Training
from likelier.theory.displacement import rise_of_chosen
from likelier.theory.optimality import trial_policies
from likelier.theory.optimum import optimal_policy
from likelier.theory.policies import log_linear, softmax_table
from likelier.theory.shapes import Cells, Number, Vector, Weights
from likelier.theory.statement import IDENTITY, Statement, largest, largest_gap, scale
from likelier.theory.world import World

Policy = Callable[[Vector], Cells]


def dpo_loss(log_policy: Cells, log_reference: Cells, comparisons: Comparisons, beta: float) -> Number:
    """`−Σ w log σ(u)`: math.md (7), the paper's equation 7, by the very function that training uses.

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

    >>> world = World.random(0)
    >>> pair_weights(world.log_reference, world.log_reference, population(world), 0.5).sum().item()  # β/2
    0.25
    """
    return beta * comparisons.weight * torch.sigmoid(-margins(log_policy, log_reference, comparisons, beta))


def table_gradient(log_policy: Cells, log_reference: Cells, comparisons: Comparisons, beta: float) -> Cells:
    """`∇L` in the logits of a softmax table: math.md (9), section 4 of the paper.

    `∇ log π(y_w|x) − ∇ log π(y_l|x)` is there 1 at y_w and −1 at y_l, since the probabilities cancel. So a cell's
    derivative is what pulls where it lost less what pulls where it won.

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


def statements(world: World, beta: float) -> list[Statement]:
    """(7) and (9) in `world`, over all comparisons of what the reference gives.

    >>> [statement.name for statement in statements(World.random(0), 0.5) if not statement.holds]
    []
    """
    inside = world.on_support()
    if inside.reward.shape[1] < 2 or not bool(world.prompt_weights[inside.exists.sum(-1) > 1].sum() > 0):
        return []  # one completion for every prompt: nothing to compare
    pairs = population(inside)
    return [_log_two(inside, pairs, beta), _margins_are_rewards(inside, pairs, beta), _table(inside, pairs, beta),
            _any_family(inside, pairs, beta), _at_rest(inside, pairs, beta), _tables_gain(inside)]  # fmt: skip


def _log_two(world: World, pairs: Comparisons, beta: float) -> Statement:
    loss = dpo_loss(world.log_reference, world.log_reference, pairs, beta)
    return Statement(
        name="the DPO loss is log 2 at θ = ref",
        equation="(7)",
        error=abs(float(loss) - math.log(2.0)),
        bound=IDENTITY,
    )


def _margins_are_rewards(world: World, pairs: Comparisons, beta: float) -> Statement:
    best = optimal_policy(world.log_reference, world.reward, beta)
    reward = world.reward / beta
    wanted = reward[pairs.prompt, pairs.winner] - reward[pairs.prompt, pairs.loser]
    found = margins(best, world.log_reference, pairs, beta) / beta
    return Statement(
        name="at π* the margin u is r(x,y_w) − r(x,y_l): the Z terms cancel",
        equation="(6), (7)",
        error=largest_gap(found, wanted) / scale(world, beta),
        bound=IDENTITY,
    )


def _table(world: World, pairs: Comparisons, beta: float) -> Statement:
    errors = []
    for policy in trial_policies(world, count=3):
        logits = policy.clone().requires_grad_()
        loss = dpo_loss(logits.log_softmax(dim=-1), world.log_reference, pairs, beta)
        (wanted,) = torch.autograd.grad(loss, logits)
        errors.append(largest_gap(table_gradient(policy, world.log_reference, pairs, beta), wanted) / beta)
    return Statement(
        name="the gradient in closed form is autograd's, in a softmax table",
        equation="(9)",
        error=largest(errors),
        bound=IDENTITY,
    )


def _any_family(world: World, pairs: Comparisons, beta: float) -> Statement:
    """Two parameters that all completions share, against the slope of the loss itself."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(*world.reward.shape, 2, generator=generator, dtype=torch.float64)
    family, reference = log_linear(world.log_reference, features), world.log_reference
    # Where margins are about 1, whatever β: far out the loss is two straight lines.
    size = 1.0 / max(1.0, beta)
    at = size * torch.tensor([0.3, -0.2], dtype=torch.float64)
    found = policy_gradient(family.log_policy, at, reference, pairs, beta)
    wanted = _slopes(
        lambda point: dpo_loss(family.log_policy(point), reference, pairs, beta), at, 0.01 * size
    )
    return Statement(
        name="the gradient is the slope of the loss for any policy: finite differences",
        equation="(9)",
        error=largest_gap(found, wanted) / beta,
        bound=1e-6,
        note="two parameters shared by all completions",
    )


def _slopes(function: Callable[[Vector], Number], at: Vector, step: float) -> Vector:
    """Central differences through five points: their error is of the fourth order in the step."""
    ends = [
        [function(at + count * step * direction) for count in (-2, -1, 1, 2)]
        for direction in torch.eye(len(at), dtype=at.dtype)
    ]
    far_left, left, right, far_right = torch.tensor(ends, dtype=at.dtype).unbind(dim=-1)
    return (far_left - 8.0 * left + 8.0 * right - far_right) / (12.0 * step)


def _at_rest(world: World, pairs: Comparisons, beta: float) -> Statement:
    best = optimal_policy(world.log_reference, world.reward, beta)
    gradient = table_gradient(best, world.log_reference, pairs, beta)
    # u is β times a difference of logarithms, and so is its rounding: hence a β more where it is large.
    return Statement(
        name="the gradient over all comparisons vanishes at π*",
        equation="(9)",
        error=float(gradient.abs().max()) / (beta * max(1.0, beta) * scale(world, beta)),
        bound=IDENTITY,
    )


def _tables_gain(world: World) -> Statement:
    row = int(world.exists.sum(dim=-1).argmax())
    table = softmax_table(world.log_reference[row : row + 1])
    chosen, rejected = world.log_reference[row, :2].exp().tolist()
    return Statement(
        name="in a table a step raises log π(y_w): |g_w|² − ⟨g_w, g_l⟩ = 1 − π(y_w) + π(y_l)",
        equation="(9)",
        error=abs(rise_of_chosen(table, table.start, 0, 1) - (1.0 - chosen + rejected)),
        bound=IDENTITY,
    )
