"""The algorithms that learn from preferences, each on many samples at once, in softmax tables with the same optimiser.

Adam moves every parameter by about its rate in a step. DPO's implicit reward is β times its parameters, so at a rate of
η/β it takes the very path of a reward model at rate η: after any number of steps DPO's policy is the optimum of (4) for
the reward model that was trained as long. What PPO adds to that is its own optimisation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor

from likelier.objectives import OBJECTIVES, Objective
from likelier.theory.batches import Samples, Seeded, adam, log_policies
from likelier.theory.comparisons import components, is_decided_by_all, population, sample
from likelier.theory.descent import Training, descend
from likelier.theory.fits import fit_bradley_terry
from likelier.theory.optimum import optimal_policy, total_variation
from likelier.theory.shapes import Cells
from likelier.theory.statement import Statement
from likelier.theory.world import World

Gradient = Callable[[Seeded], Seeded]


def unlikelihood(alpha: float) -> Objective:
    """`likelier.objectives`' unlikelihood at one α.

    >>> unlikelihood(0.5)(torch.tensor([[-1.0, -3.0]]), None, torch.ones(1, 2), 0.1).tolist()
    [-0.5]
    """
    known = OBJECTIVES["unlikelihood"]
    return replace(known, function=partial(known.function, unlikelihood_weight=alpha), options=())


PREFERRED_FT = unlikelihood(0.0)
"""`−log π(y_w|x)`: math.md (11)."""


def pair_gradient(
    samples: Samples,
    objective: Objective,
    beta: float,
    *,
    weights: Callable[[], Tensor] | None = None,
    options: Mapping[str, float] = MappingProxyType({}),
) -> Gradient:
    """The gradient of a pair loss over each seed's sample, by autograd through the objective that training uses.

    `weights` gives other weights of the pairs at every step (a batch's), `[rows, pairs]`.
    """
    world, pairs = samples.world, samples.comparisons
    places = torch.stack([pairs.winner, pairs.loser], dim=1)
    prompt = pairs.prompt.unsqueeze(1)

    def gradient(parameters: Seeded) -> Seeded:
        at = parameters.detach().requires_grad_(True)
        policy = log_policies(world.log_reference, at)[:, prompt, places].flatten(0, 1)
        reference = world.log_reference[prompt, places].repeat(len(at), 1)
        losses = objective(policy, reference, torch.ones_like(policy), beta, **options).unflatten(
            0, (len(at), -1)
        )
        shares = samples.weights if weights is None else weights()
        return torch.autograd.grad((shares * losses).sum(), at)[0]

    return gradient


def train_pairs(
    samples: Samples,
    objective: Objective,
    beta: float,
    *,
    rate: float,
    steps: int,
    keep: Sequence[int] = (),
    options: Mapping[str, float] = MappingProxyType({}),
) -> list[Seeded]:
    """The policies of all seeds after `steps` steps on a pair loss (and after those of `keep`), from the reference."""
    start = torch.zeros_like(samples.world.reward).repeat(len(samples.weights), 1, 1)
    gradient = pair_gradient(samples, objective, beta, options=options)
    found = adam(gradient, start, rate=rate, steps=steps, keep=keep)
    return [log_policies(samples.world.log_reference, parameters) for parameters in found]


def fitted_rewards(samples: Samples, *, rate: float, steps: int) -> Seeded:
    """A reward model for every seed by `steps` steps on (3), starting at 0: maximum likelihood, as far as it got.

    It is DPO's own loss with β = 1 and the policy's log-ratios replaced by rewards.
    """
    start = torch.zeros_like(samples.world.reward).repeat(len(samples.weights), 1, 1)
    # Over log-softmax the loss reads differences alone, which are those of the rewards.
    gradient = pair_gradient(samples, OBJECTIVES["sigmoid"], 1.0)
    return adam(gradient, start, rate=rate, steps=steps)[-1]


def policy_gradient(log_reference: Cells, rewards: Seeded | Cells, beta: float) -> Gradient:
    """Of −J, math.md (4), exactly: `−π (A − E_π[A])`, `A = r − β log(π/π_ref)`."""
    support = log_reference > -torch.inf

    def gradient(parameters: Seeded) -> Seeded:
        policies = log_policies(log_reference, parameters)
        chance = policies.exp()
        ratio = torch.where(support, policies - log_reference, 0.0)
        advantage = rewards - beta * ratio
        return -chance * (advantage - (chance * advantage).sum(dim=-1, keepdim=True))

    return gradient


def ppo(
    log_reference: Cells, rewards: Seeded, beta: float, *, rate: float, steps: int, keep: Sequence[int] = ()
) -> list[Seeded]:
    """PPO's objective (4) by its exact gradient: no sampling, no clipping, as good as PPO can be in so many steps.

    >>> world = World.random(0)
    >>> found = ppo(world.log_reference, world.reward[None], 1.0, rate=0.1, steps=400)[-1]
    >>> bool(torch.allclose(found[0], optimal_policy(world.log_reference, world.reward, 1.0), atol=1e-3))
    True
    """
    gradient = policy_gradient(log_reference, rewards, beta)
    found = adam(gradient, torch.zeros_like(rewards), rate=rate, steps=steps, keep=keep)
    return [log_policies(log_reference, parameters) for parameters in found]


def optimal_policies(log_reference: Cells, rewards: Seeded, beta: float) -> Seeded:
    """The optimum of (4) for the rewards of every seed: math.md (5)."""
    return (log_reference + rewards / beta).log_softmax(dim=-1)


def statements(world: World, beta: float) -> list[Statement]:
    """RLHF with a maximum-likelihood reward and DPO, from one and the same finite sample."""
    if int(world.support.sum(dim=1).max()) == 1:
        return []
    drawn = sample(population(world), 20_000, seed=0)
    if not is_decided_by_all(drawn, world) or bool((components(drawn, world) > 0).any()):
        return []  # no finite fit, nothing to compare
    wins = drawn.wins(world.reward.shape[1], prompts=world.reward.shape[0])
    rewards = torch.zeros_like(world.reward)
    for row, table, inside in zip(rewards, wins, world.support, strict=True):
        if float(table.sum()) > 0.0:
            row[inside] = fit_bradley_terry(table[inside][:, inside])
    training = Training(objective=OBJECTIVES["sigmoid"], log_reference=world.log_reference, beta=beta)
    found = descend(training, drawn)
    best = optimal_policy(world.log_reference, rewards, beta)
    return [
        Statement(
            name="a finite sample: DPO ends at the optimum of (4) for the reward of maximum likelihood",
            equation="(3), (5), (7)",
            error=float(total_variation(found.log_policy, best).max()),
            bound=1e-6,
            note="20,000 comparisons drawn by (1)",
        )
    ]
