"""The estimates of `variance` along a path from the reference to the optimum: statements, and the picture's numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from likelier.theory.dial import dial
from likelier.theory.optimum import expectation, kl, log_partition, optimal_policy
from likelier.theory.shapes import Cells
from likelier.theory.statement import IDENTITY, Statement, largest, largest_gap, scale
from likelier.theory.variance import (
    Moments,
    another_sample,
    answers_needed,
    best_constant,
    dpo_pair,
    gradient,
    leave_one_out,
    no_baseline,
    noise,
    noise_per_answer,
    own_value,
    payoff,
    soft_value,
)
from likelier.theory.world import World

Estimate = Callable[[World, Cells, float], Moments]

POLICY_GRADIENT: Mapping[str, Estimate] = {
    "no baseline": no_baseline,
    "another sample": another_sample,
    "leave one out, K = 2": leave_one_out,
    "leave one out, K = 8": lambda world, policy, beta: leave_one_out(world, policy, beta, answers=8),
    "policy's own value": own_value,
    "best constant": best_constant,
    "soft value β log Z": soft_value,
}
"""Estimates of one and the same gradient."""
DPO = "DPO, a labelled pair"

PATH = (*(step / 20 for step in range(20)), 0.98)
"""λ of the dial from π_ref towards π*; at 1 the gradient is 0, so that no noise can be compared with it."""


@dataclass(frozen=True, kw_only=True)
class VarianceCurves:
    """Noise along the path, by the name of the estimate; exact, no samples."""

    beta: float
    path: tuple[float, ...]
    """λ: 0 is the reference, 1 the optimum."""
    per_answer: dict[str, tuple[float, ...]]
    """Trace of the covariance times answers used, (units of reward)²; policy gradients alone."""
    needed: dict[str, tuple[float, ...]]
    """Answers until noise equals signal; DPO's too, whose gradient has a scale of its own."""


def variance_curves(world: World, beta: float, *, path: tuple[float, ...] = PATH) -> VarianceCurves:
    """The noise of each estimate at `π_λ ∝ π_ref^(1−λ) π*^λ`.

    >>> curves = variance_curves(World.random(0), 1.0, path=(0.0, 0.5))
    >>> len(curves.per_answer), curves.needed[DPO][1] > curves.needed[DPO][0]  # less signal, the same noise of labels
    (7, True)
    """
    best = optimal_policy(world.log_reference, world.reward, beta)
    policies = [dial(world.log_reference, best, strength) for strength in path]
    found = {
        name: [make(world, policy, beta) for policy in policies] for name, make in POLICY_GRADIENT.items()
    }
    pairs = {DPO: [dpo_pair(world, policy, beta) for policy in policies]}
    return VarianceCurves(
        beta=beta,
        path=path,
        per_answer={
            name: tuple(noise_per_answer(world, made) for made in row) for name, row in found.items()
        },
        needed={
            name: tuple(answers_needed(world, made) for made in row) for name, row in (found | pairs).items()
        },
    )


def statements(world: World, beta: float) -> list[Statement]:
    """(13): its objective, its baselines, and what they leave of the noise.

    >>> all(statement.holds for statement in statements(World.random(0), 0.5))
    True
    """
    relative = scale(world, beta)
    best = optimal_policy(world.log_reference, world.reward, beta)
    policies = [dial(world.log_reference, best, strength) for strength in (0.0, 0.5, 1.0, 1.5)]
    errors = {
        "minimising KL(π_θ‖π*) is maximising E[r − β log Z − β log-ratio]": largest(
            _objective_error(world, policy, beta) for policy in policies
        ),
        "no baseline moves the mean policy gradient": largest(
            _mean_error(world, policy, beta) for policy in policies
        ),
        "at π* the soft value leaves no noise in the policy gradient": _left_at_optimum(world, best, beta),
        "a reward plus f(x) changes no noise but that without a baseline": _shift_error(
            world, policies[1], beta, relative
        ),
    }
    return [
        Statement(name=name, equation="(13)", error=error / relative, bound=IDENTITY)
        for name, error in errors.items()
    ]


def _objective_error(world: World, log_policy: Cells, beta: float) -> float:
    """In nats: (13)'s expectation over β, plus KL(π‖π*), which should cancel."""
    value = beta * log_partition(world.log_reference, world.reward, beta)
    gain = expectation(log_policy, payoff(world, log_policy, beta)) - value
    distance = kl(log_policy, optimal_policy(world.log_reference, world.reward, beta))
    return float((gain / beta + distance).abs().max())


def _mean_error(world: World, log_policy: Cells, beta: float) -> float:
    """In nats: each estimate's mean against the derivative of J by automatic differentiation."""
    exact = exact_gradient(world, log_policy, beta)
    means = [gradient(world, make(world, log_policy, beta)) for make in POLICY_GRADIENT.values()]
    return largest(largest_gap(mean, exact) for mean in means) / beta


def exact_gradient(world: World, log_policy: Cells, beta: float) -> Cells:
    """`∂J/∂θ` at `θ = log π` of a softmax table, by automatic differentiation of (4).

    >>> world = World.random(0)
    >>> best = optimal_policy(world.log_reference, world.reward, 0.5)
    >>> bool(exact_gradient(world, best, 0.5).abs().max() < 1e-12)
    True
    """
    drawn = log_policy > -torch.inf
    table = torch.where(drawn, log_policy, 0.0).requires_grad_()
    policy = torch.where(drawn, table, -torch.inf).log_softmax(dim=-1)
    log_ratio = torch.where(drawn, policy, 0.0) - torch.where(drawn, world.log_reference, 0.0)
    gain = (policy.exp() * (world.reward - beta * log_ratio)).sum(dim=-1)
    (found,) = torch.autograd.grad((world.prompt_weights * gain).sum(), table)
    return found


def _left_at_optimum(world: World, best: Cells, beta: float) -> float:
    left = float(noise(world, soft_value(world, best, beta)))
    return math.sqrt(largest([0.0, left])) / beta


def _shift_error(world: World, log_policy: Cells, beta: float, relative: float) -> float:
    """Noise is in squared units, so its change under r + f(x) is taken relative to the scale once more."""
    shift = beta * torch.arange(1.0, 1.0 + len(world.prompts), dtype=torch.float64)
    places = (world, world.with_reward(world.reward + shift[:, None]))
    kept = [make for make in POLICY_GRADIENT.values() if make is not no_baseline]
    noises = [[float(noise(place, make(place, log_policy, beta))) for place in places] for make in kept]
    return largest(abs(before - after) for before, after in noises) / beta**2 / relative
