"""Is DPO the stabler one? Both algorithms as they are run: few samples a step, a rate that somebody has to choose.

DPO takes a batch of comparisons from the sample. PPO draws as many answers from its policy (two for each comparison)
and follows the policy gradient with the batch's mean as a baseline; one pass over each batch, so that no ratio is ever
clipped. Its reward was fitted to the same sample before, in as many steps on batches of the same size. All with Adam.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from likelier.objectives import OBJECTIVES
from likelier.stats import Estimate, mean_interval, paired_interval, wilson
from likelier.theory.algorithms import Gradient, pair_gradient
from likelier.theory.batches import PerSeed, Samples, Seeded, adam, log_policies, standing
from likelier.theory.optimum import optimum_value
from likelier.theory.world import World


@dataclass(frozen=True, kw_only=True)
class Stability:
    """What each algorithm reaches at each learning rate, over seeds."""

    beta: float
    comparisons: int
    seeds: int
    repeats: int
    """Runs on each sample, with other batches or other answers."""
    steps: int
    batch: int
    """Comparisons in a step of DPO; PPO draws twice as many answers."""
    rates: tuple[float, ...]
    gained: dict[str, tuple[Estimate, ...]]
    """`(J − J_ref) / (J* − J_ref)` at every rate: 1 is the optimum, below 0 worse than doing nothing."""
    spread: dict[str, tuple[float, ...]]
    """Standard deviation of it over samples, whose means over their repetitions are taken."""
    own_noise: dict[str, tuple[float, ...]]
    """Standard deviation of it over repetitions on one sample: what an algorithm's own random numbers do."""
    worse: dict[str, tuple[Estimate, ...]]
    """Share of runs that end below the reference."""
    difference: Estimate
    """DPO's gain less PPO's, each at its own best rate, paired over seeds."""

    def best(self, algorithm: str) -> int:
        """Which rate is best for it."""
        values = [found.value for found in self.gained[algorithm]]
        return values.index(max(values))

    def usable(self, algorithm: str) -> tuple[float, float] | None:
        """The lowest and the highest rate at which at least half of all that can be gained is gained."""
        good = [
            rate for rate, found in zip(self.rates, self.gained[algorithm], strict=True) if found.value >= 0.5
        ]
        return (min(good), max(good)) if good else None

    @property
    def words(self) -> str:
        """The finding, from the numbers."""
        return " ".join([self._of("DPO"), self._of("PPO"), self._compared()])

    def _of(self, name: str) -> str:
        place = self.best(name)
        usable = self.usable(name)
        reach = (
            "no rate gains half"
            if usable is None
            else f"rates from {usable[0]:g} to {usable[1]:g} gain half or more"
        )
        return (
            f"{name} gains {self.gained[name][place].value:.0%} of what can be gained at its best rate "
            f"({self.rates[place]:g}), ± {self.spread[name][place]:.2f} over samples and ± "
            f"{self.own_noise[name][place]:.2f} by its own random numbers; {reach} (tried: {self.rates[0]:g} to "
            f"{self.rates[-1]:g})."
        )

    def _compared(self) -> str:
        difference = self.difference
        if not difference.excludes(0.0):
            return f"At their best rates DPO less PPO is {difference}: within chance."
        first = "DPO" if difference.value > 0 else "PPO"
        return f"At their best rates {first} gains more: DPO less PPO is {difference}."


def stability(
    world: World,
    *,
    beta: float = 0.3,
    comparisons: int = 300,
    seeds: int = 16,
    steps: int = 150,
    batch: int = 16,
    repeats: int = 4,
    rates: Sequence[float] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
) -> Stability:
    """Run both at every rate on every seed's sample, all side by side.

    >>> found = stability(World.random(0, prompts=1, completions=3), seeds=2, repeats=2, steps=3, rates=(0.1,))
    >>> list(found.gained), len(found.gained["DPO"])
    (['DPO', 'PPO', 'PPO-GT'], 1)
    """
    samples = Samples.draw(world, comparisons, seeds=range(seeds))
    generator = torch.Generator().manual_seed(0)
    wide = _repeated(samples, len(rates) * repeats)
    rewards = _rewards_by_batches(_repeated(samples, repeats), steps, batch, generator).repeat(
        len(rates), 1, 1
    )
    true = world.reward.expand_as(rewards)
    gradients = {
        "DPO": _batched_dpo(wide, beta, batch, generator),
        "PPO": sampled_policy_gradient(world, rewards, beta, 2 * batch, generator),
        "PPO-GT": sampled_policy_gradient(world, true, beta, 2 * batch, generator),
    }
    each_rate = torch.tensor(rates, dtype=torch.float64).repeat_interleave(repeats * seeds)
    gains = {name: _gains(world, beta, gradient, each_rate, steps) for name, gradient in gradients.items()}
    tables = {name: found.reshape(len(rates), repeats, seeds).numpy() for name, found in gains.items()}
    return _summary(tables, samples, beta=beta, steps=steps, batch=batch, rates=tuple(rates))


def _repeated(samples: Samples, times: int) -> Samples:
    return Samples(
        world=samples.world,
        comparisons=samples.comparisons,
        weights=samples.weights.repeat(times, 1),
        count=samples.count,
    )


def _batched_dpo(samples: Samples, beta: float, batch: int, generator: torch.Generator) -> Gradient:
    def weights() -> torch.Tensor:
        drawn = torch.multinomial(samples.weights, batch, replacement=True, generator=generator)
        return torch.zeros_like(samples.weights).scatter_add(
            1, drawn, torch.full(drawn.shape, 1.0 / batch, dtype=torch.float64)
        )

    return pair_gradient(samples, OBJECTIVES["sigmoid"], beta, weights=weights)


REWARD_RATE = 0.03
"""Learning rate of the reward models, in the middle of those that are tried for DPO."""


def _rewards_by_batches(samples: Samples, steps: int, batch: int, generator: torch.Generator) -> Seeded:
    """A reward model for every row, by the same steps on batches as DPO takes."""
    gradient = _batched_dpo(samples, 1.0, batch, generator)  # over log-softmax: rewards up to f(x)
    start = torch.zeros_like(samples.world.reward).repeat(len(samples.weights), 1, 1)
    return adam(gradient, start, rate=REWARD_RATE, steps=steps)[-1]


def sampled_policy_gradient(
    world: World, rewards: Seeded, beta: float, answers: int, generator: torch.Generator
) -> Gradient:
    """Of −J from `answers` draws of (x, y): `−(A − Ā) ∇log π(y|x)`, `A = r − β log(π/π_ref)`, Ā the batch's mean."""
    shape = world.reward.shape

    def gradient(parameters: Seeded) -> Seeded:
        policies = log_policies(world.log_reference, parameters)
        joint = (policies.exp() * world.prompt_weights.unsqueeze(-1)).flatten(1)
        drawn = torch.multinomial(joint, answers, replacement=True, generator=generator)
        ratio = torch.where(world.support, policies - world.log_reference, 0.0)
        advantage = (rewards - beta * ratio).flatten(1).gather(1, drawn)
        centred = (advantage - advantage.mean(dim=1, keepdim=True)) / answers
        pushes = torch.zeros_like(joint).scatter_add(1, drawn, centred).reshape(-1, *shape)
        # ∇ log π(y|x) is 1 at y less π(·|x): what a prompt's answers push in all is taken from all of its cells.
        taken: Seeded = policies.exp() * pushes.sum(dim=-1, keepdim=True)
        return taken - pushes

    return gradient


def _gains(world: World, beta: float, gradient: Gradient, rates: PerSeed, steps: int) -> PerSeed:
    start = torch.zeros_like(world.reward).repeat(len(rates), 1, 1)
    policies = log_policies(world.log_reference, adam(gradient, start, rate=rates, steps=steps)[-1])
    lowest = float(standing(world, world.log_reference[None]).objective(beta))
    gains: PerSeed = standing(world, policies).objective(beta) - lowest
    gained: PerSeed = gains / (float(optimum_value(world, beta)) - lowest)
    return gained


Gains = dict[str, npt.NDArray[np.float64]]
"""`[rates, repeats, seeds]` of each algorithm."""


def _summary(
    tables: Gains, samples: Samples, *, beta: float, steps: int, batch: int, rates: tuple[float, ...]
) -> Stability:
    _, repeats, seeds = tables["DPO"].shape
    means = {name: table.mean(axis=1) for name, table in tables.items()}
    best = {name: table[int(np.argmax(table.mean(axis=1)))] for name, table in means.items()}
    return Stability(
        beta=beta,
        comparisons=samples.count,
        seeds=seeds,
        repeats=repeats,
        steps=steps,
        batch=batch,
        rates=rates,
        gained={name: tuple(mean_interval(row) for row in table) for name, table in means.items()},
        spread={name: tuple(_deviation(table, axis=1).tolist()) for name, table in means.items()},
        own_noise={
            name: tuple(np.sqrt(np.square(_deviation(table, axis=1)).mean(axis=1)).tolist())
            for name, table in tables.items()
        },
        worse={
            name: tuple(wilson(int((row < 0.0).sum()), row.size) for row in table)
            for name, table in tables.items()
        },
        difference=paired_interval(best["PPO"], best["DPO"]),
    )


def _deviation(table: npt.NDArray[np.float64], *, axis: int) -> npt.NDArray[np.float64]:
    """The standard deviation; 0 of a single value, which has none."""
    return np.asarray(table.std(axis=axis, ddof=min(1, table.shape[axis] - 1)))
