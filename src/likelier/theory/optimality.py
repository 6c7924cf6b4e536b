"""What math.md (4) and (5) say of the optimal policy, checked in a world against policies of every kind."""

from __future__ import annotations

import torch

from likelier.theory.optimum import (
    expectation,
    kl,
    log_partition,
    mean,
    objective,
    optimal_policy,
    optimum_value,
    place,
    reward_at,
)
from likelier.theory.shapes import Cells
from likelier.theory.statement import IDENTITY, Statement, largest, largest_gap, scale
from likelier.theory.world import World

_CLOSE = 1e-8
"""For what bisection found; relative to the largest reward."""


def statements(world: World, beta: float) -> list[Statement]:
    """(4) and (5) in `world` at β.

    >>> [statement.name for statement in statements(World.random(0), 0.5) if not statement.holds]
    []
    """
    return [_normalised(world, beta), _any_policy(world, beta), _most(world, beta),
            _frontier(world, beta), _slope(world, beta)]  # fmt: skip


def trial_policies(world: World, *, count: int = 8) -> list[Cells]:
    """The reference, the uniform policy on its support, and `count` others, from even to nearly greedy.

    >>> len(trial_policies(World.random(0))), trial_policies(World.random(0))[1].exp()[0, 0].item()
    (10, 0.2)
    """
    generator = torch.Generator().manual_seed(0)
    flat = torch.zeros_like(world.reward)
    drawn = [
        2.0**power * torch.randn(flat.shape, generator=generator, dtype=flat.dtype) for power in range(count)
    ]
    outside = ~world.support
    return [
        world.log_reference,
        *(cells.masked_fill(outside, -torch.inf).log_softmax(-1) for cells in (flat, *drawn)),
    ]


def _normalised(world: World, beta: float) -> Statement:
    best = optimal_policy(world.log_reference, world.reward, beta)
    by_z = world.log_reference + world.reward / beta
    by_z = by_z - log_partition(world.log_reference, world.reward, beta).unsqueeze(-1)
    total = by_z.exp().sum(dim=-1)
    error = largest([largest_gap(by_z, best), largest_gap(total, torch.ones_like(total))]) / scale(
        world, beta
    )
    return Statement(name="π* = π_ref exp(r/β) / Z adds up to 1", equation="(5)", error=error, bound=IDENTITY)


def _any_policy(world: World, beta: float) -> Statement:
    best, value = optimal_policy(world.log_reference, world.reward, beta), optimum_value(world, beta)
    errors = [
        objective(world, policy, beta) - (value - beta * mean(world, kl(policy, best)))
        for policy in trial_policies(world)
    ]
    return Statement(
        name="J(π) = β E[log Z] − β E[KL(π‖π*)] for any policy",
        equation="(5)",
        error=float(torch.stack(errors).abs().max()) / (beta * scale(world, beta)),
        bound=IDENTITY,
        note=f"{len(errors)} policies",
    )


def _most(world: World, beta: float) -> Statement:
    value = optimum_value(world, beta)
    of_best = objective(world, optimal_policy(world.log_reference, world.reward, beta), beta)
    above = [objective(world, policy, beta) - value for policy in trial_policies(world)]
    error = torch.stack([(of_best - value).abs(), *above]).max() / (beta * scale(world, beta))
    return Statement(
        name="J(π*) = β E[log Z], and no policy has more",
        equation="(5)",
        error=float(error),
        bound=IDENTITY,
        note=f"β E[log Z] = {float(value):.6g}",
    )


def _frontier(world: World, beta: float) -> Statement:
    best = optimal_policy(world.log_reference, world.reward, beta)
    places = [place(world, policy) for policy in [best, *trial_policies(world)]]
    above = [stands.reward - reward_at(world, stands.kl) for stands in places]
    return Statement(
        name="no policy has more reward than the frontier at its KL",
        equation="(4)",
        error=largest([0.0, *above]) / (beta * scale(world, beta)),
        bound=_CLOSE,
        note=f"π*: reward {places[0].reward:.4g} at {places[0].kl:.4g} nats",
    )


def _slope(world: World, beta: float) -> Statement:
    inside = world.on_support()
    dial = torch.tensor(1.0 / beta, dtype=torch.float64, requires_grad=True)
    best = (inside.log_reference + dial * inside.reward).log_softmax(dim=-1)
    ends = mean(inside, expectation(best, inside.reward)), mean(inside, kl(best, inside.log_reference))
    reward, distance = (torch.autograd.grad(end, dial, retain_graph=True)[0] for end in ends)
    return Statement(
        name="along the frontier d reward / d KL = β",
        equation="(4)",
        error=float((reward - beta * distance).abs()) / (beta * scale(world, beta)) ** 2,
        bound=IDENTITY,
        note="by autograd",
    )
