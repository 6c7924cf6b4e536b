"""KL-constrained reward maximisation, solved: Z(x), π*, its value, and the whole reward–KL frontier.

Every sum runs over all completions, in log space, so that neither a small nor a large β overflows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from likelier.theory.shapes import Cells, Number, PerPrompt
from likelier.theory.world import World


def log_partition(log_reference: Cells, reward: Cells, beta: float) -> PerPrompt:
    """`log Z(x) = log Σ_y π_ref(y|x) exp(r(x,y)/β)`: math.md (5), the paper's equation 4.

    Raises:
        ValueError: β is not positive.

    >>> half = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    >>> log_partition(half, torch.tensor([[0.0, 3.0]], dtype=torch.float64).log1p(), 1.0).exp().tolist()  # ½ + ½·4
    [2.5]
    """
    return (log_reference + reward / _positive(beta)).logsumexp(dim=-1)


def optimal_policy(log_reference: Cells, reward: Cells, beta: float) -> Cells:
    """`log π*(y|x)`, `π* = π_ref exp(r/β) / Z`: math.md (5), the paper's equation 4.

    Raises:
        ValueError: β is not positive.

    >>> half = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    >>> policy = optimal_policy(half, torch.tensor([[0.0, 3.0]], dtype=torch.float64).log1p(), 1.0)
    >>> [round(p, 12) for p in policy.exp().tolist()[0]]
    [0.2, 0.8]
    """
    return (log_reference + reward / _positive(beta)).log_softmax(dim=-1)


def expectation(log_policy: Cells, values: Cells) -> PerPrompt:
    """`E_{y∼π}[values(x,y)]` for each x; a value where π = 0 counts nothing, be it infinite.

    >>> expectation(torch.tensor([[0.0, -torch.inf]]).double(), torch.tensor([[2.0, torch.inf]]).double()).tolist()
    [2.0]
    """
    probability = log_policy.exp()
    return (probability * torch.where(probability > 0, values, 0.0)).sum(dim=-1)


def kl(log_policy: Cells, log_other: Cells) -> PerPrompt:
    """`KL(π ‖ π') = E_{y∼π}[log π(y|x) − log π'(y|x)]` in nats, for each x; inf where π' misses what π has.

    >>> half = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    >>> kl(torch.tensor([[0.0, -torch.inf]], dtype=torch.float64), half).item()  # log 2
    0.6931471805599453
    """
    return expectation(log_policy, log_policy - log_other)


def objective(world: World, log_policy: Cells, beta: float) -> Number:
    """`J(π) = E_x { E_{y∼π}[r(x,y)] − β KL(π‖π_ref) }`: math.md (4), the paper's equation 3.

    >>> world = World.random(0)
    >>> bool(objective(world, world.log_reference, 0.5) == mean(world, expectation(world.log_reference, world.reward)))
    True
    """
    gain = expectation(log_policy, world.reward)
    return mean(world, gain - _positive(beta) * kl(log_policy, world.log_reference))


def optimum_value(world: World, beta: float) -> Number:
    """`max_π J(π) = β E_x[log Z(x)]`: math.md (5).

    >>> world = World.random(0)
    >>> best = optimal_policy(world.log_reference, world.reward, 0.5)
    >>> bool((objective(world, best, 0.5) - optimum_value(world, 0.5)).abs() < 1e-12)
    True
    """
    return beta * mean(world, log_partition(world.log_reference, world.reward, beta))


def mean(world: World, values: PerPrompt) -> Number:
    """`E_x[values(x)]` under the world's distribution of prompts; a prompt of weight 0 counts nothing."""
    return torch.where(world.prompt_weights > 0, world.prompt_weights * values, 0.0).sum()


def total_variation(log_policy: Cells, log_other: Cells) -> PerPrompt:
    """`½ Σ_y |π(y|x) − π'(y|x)|` for each x.

    >>> total_variation(torch.tensor([[0.25, 0.75]]).double().log(), torch.tensor([[0.5, 0.5]]).double().log()).item()
    0.25
    """
    return 0.5 * (log_policy.exp() - log_other.exp()).abs().sum(dim=-1)


class Place(NamedTuple):
    """Where a policy stands between reward and KL, both in expectation over x."""

    kl: float
    """KL(π‖π_ref), nats."""
    reward: float


def place(world: World, log_policy: Cells) -> Place:
    """The policy's KL to the reference and its reward, exactly."""
    reward = mean(world, expectation(log_policy, world.reward))
    return Place(float(mean(world, kl(log_policy, world.log_reference))), float(reward))


def frontier(world: World, betas: Sequence[float]) -> list[Place]:
    """The optimal policies at `betas`: no policy has more reward at the same KL, nor less KL at the same reward.

    math.md (4): π* at β is the maximum of reward − β KL, so it is the highest of all policies of its KL.

    >>> points = frontier(World.random(0), [10.0, 1.0, 0.1])
    >>> points[0].kl < points[1].kl < points[2].kl and points[0].reward < points[1].reward < points[2].reward
    True
    """
    return [place(world, optimal_policy(world.log_reference, world.reward, beta)) for beta in betas]


def reward_at(world: World, kl_budget: float) -> float:
    """The most reward that any policy has within `kl_budget` nats, by bisection on β: the frontier's height there.

    Beyond the KL of the best completions' own distribution more KL buys nothing.

    Raises:
        ValueError: a negative budget.

    >>> world = World.random(0)
    >>> point = frontier(world, [0.3])[0]
    >>> abs(reward_at(world, point.kl) - point.reward) < 1e-10
    True
    """
    if not kl_budget > -1e-12:  # a KL of 0 may be rounded to less
        raise ValueError(f"a budget of KL is at least 0 nats, not {kl_budget}")
    low, high = _SMALLEST, _LARGEST
    for _ in range(_BISECTIONS):
        beta = (low * high) ** 0.5
        best = optimal_policy(world.log_reference, world.reward, beta)
        if float(mean(world, kl(best, world.log_reference))) > kl_budget:
            low = beta
        else:
            high = beta
    return frontier(world, [high])[0].reward


_SMALLEST, _LARGEST, _BISECTIONS = 1e-9, 1e9, 60


def _positive(beta: float) -> float:
    if not beta > 0.0:
        raise ValueError(f"β must be positive, not {beta}")
    return beta
