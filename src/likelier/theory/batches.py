"""Many samples trained side by side: one row of every tensor for each seed, so that spread costs no loop.

A policy of every seed is a table of its own; parameters of 0 are the reference, and `π(y|x) ∝ π_ref(y|x) exp θ(x,y)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from likelier.theory.comparisons import Comparisons, population, sample_weights
from likelier.theory.optimum import expectation, kl
from likelier.theory.shapes import Cells
from likelier.theory.world import World

Seeded = Float64[Tensor, "seeds prompts completions"]
"""A table for every seed: parameters, log-probabilities, rewards."""
PerSeed = Float64[Tensor, " seeds"]
SeededWeights = Float64[Tensor, "seeds pairs"]
SeededWins = Float64[Tensor, "seeds prompts completions completions"]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Samples of one population, one for each seed: the same pairs, with other weights."""

    world: World
    comparisons: Comparisons
    """The population that they were drawn from."""
    weights: SeededWeights
    """Each row adds up to 1; a pair that was not drawn has weight 0."""
    count: int
    """Comparisons in each sample."""

    @classmethod
    def draw(cls, world: World, count: int, *, seeds: Sequence[int]) -> Samples:
        """A sample of `count` Bradley–Terry comparisons for each seed.

        >>> Samples.draw(World.random(0), 100, seeds=range(3)).weights.shape
        torch.Size([3, 60])
        """
        whole = population(world)
        weights = sample_weights(whole, count, seeds=list(seeds))
        return cls(world=world, comparisons=whole, weights=weights, count=count)

    def wins(self) -> SeededWins:
        """How often each completion was preferred to each other, as shares of all comparisons."""
        prompts, completions = self.world.reward.shape
        table = self.weights.new_zeros((len(self.weights), prompts, completions, completions))
        found = self.comparisons
        table[:, found.prompt, found.winner, found.loser] = self.weights
        return table

    def have_a_finite_fit(self) -> Tensor:
        """For which seeds (1) has a finite maximum-likelihood fit: wins go round in each component; bool `[seeds]`.

        >>> Samples.draw(World.random(0), 10_000, seeds=[0]).have_a_finite_fit().tolist()
        [True]
        """
        wins = self.wins() > 0
        ahead, either = _closure(wins), _closure(wins | wins.mT)
        return (ahead == either).flatten(1).all(dim=1)


def _closure(edges: Tensor) -> Tensor:
    """What can be reached from where, by squaring."""
    size = edges.shape[-1]
    reach = edges | torch.eye(size, dtype=torch.bool)
    for _ in range(size.bit_length()):
        reach = (reach.double() @ reach.double()) > 0
    return reach


def log_policies(log_reference: Cells, parameters: Seeded) -> Seeded:
    """The policy of every seed; where the reference is 0 it is 0."""
    return (log_reference + parameters).log_softmax(dim=-1)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where the policies of all seeds stand."""

    reward: PerSeed
    kl: PerSeed
    """To the reference, nats."""

    def objective(self, beta: float) -> PerSeed:
        """`J = reward − β KL`: math.md (4)."""
        return self.reward - beta * self.kl


def standing(world: World, policies: Seeded) -> Standing:
    """True reward and KL of every seed's policy, exactly.

    >>> world = World.random(0)
    >>> standing(world, world.log_reference.expand(2, -1, -1)).kl.tolist()
    [0.0, 0.0]
    """
    rows = policies.flatten(0, 1)
    seeds = len(policies)
    reward = expectation(rows, world.reward.repeat(seeds, 1)).unflatten(0, policies.shape[:2])
    distance = kl(rows, world.log_reference.repeat(seeds, 1)).unflatten(0, policies.shape[:2])
    return Standing(reward=reward @ world.prompt_weights, kl=distance @ world.prompt_weights)


def distance_to(world: World, policies: Seeded, other: Cells) -> PerSeed:
    """Total variation to one policy, in expectation over x."""
    return 0.5 * (policies.exp() - other.exp()).abs().sum(dim=-1) @ world.prompt_weights


def adam(
    gradient: Callable[[Seeded], Seeded],
    start: Seeded,
    *,
    rate: float | PerSeed,
    steps: int,
    keep: Sequence[int] = (),
) -> list[Seeded]:
    """Adam (arXiv 1412.6980, β₁ 0.9, β₂ 0.999, ε 1e-8) in every row at once.

    Args:
        gradient: of each row's loss in its own parameters.
        start: `[seeds, prompts, completions]`.
        rate: the learning rate, one or one for each row.
        steps: how many.
        keep: after which steps to keep the parameters, besides the last.

    Returns:
        The parameters after each step of `keep`, and last after all.

    >>> found = adam(lambda at: at - 3.0, torch.zeros(1, 1, 2, dtype=torch.float64), rate=0.1, steps=400)[-1]
    >>> [round(value, 3) for value in found[0, 0].tolist()]
    [3.0, 3.0]
    """
    rates = torch.as_tensor(rate, dtype=start.dtype).reshape(-1, 1, 1)
    point, first, second = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    kept = []
    for step in range(1, steps + 1):
        slope = gradient(point)
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope.square()
        point = point - rates * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        if step in keep:
            kept.append(point)
    return [*kept, point]
