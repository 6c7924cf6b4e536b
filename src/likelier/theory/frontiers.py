"""Reward against KL for every algorithm, from the same samples, beside the exact frontier; and the distance to π*.

All numbers are exact expectations under the learned policies; what varies from seed to seed is the sample alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from likelier.objectives import OBJECTIVES
from likelier.stats import Estimate, mean_interval, wilson
from likelier.theory.algorithms import PREFERRED_FT, fitted_rewards, ppo, train_pairs, unlikelihood
from likelier.theory.batches import PerSeed, Samples, Seeded, Standing, distance_to, standing
from likelier.theory.best_of_n import best_of_n
from likelier.theory.optimum import Place, frontier, optimal_policy, optimum_value
from likelier.theory.world import World

FAMILY: dict[str, tuple[str, dict[str, float]]] = {
    "DPO": ("sigmoid", {}),
    "cDPO, ε 0.1": ("sigmoid", {"label_smoothing": 0.1}),
    "hinge": ("hinge", {}),
    "IPO": ("ipo_sum", {}),
}
"""Losses that have a β and a reference, with their options."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One algorithm at one setting, over all seeds."""

    algorithm: str
    setting: str
    """β, α, N or steps, as it is called in a legend."""
    kl: Estimate
    """To the reference, nats."""
    reward: Estimate
    below: Estimate
    """Reward below the frontier at the policy's own KL, seed by seed."""
    share: float
    """Of what its KL can buy, how much it has bought: mean gain of reward over mean gain of the frontier."""


@dataclass(frozen=True, kw_only=True)
class Frontiers:
    """Every algorithm's points beside the exact frontier."""

    exact: tuple[Place, ...]
    points: tuple[Point, ...]
    comparisons: int
    """In each sample."""
    seeds: int
    without_fit: Estimate
    """Share of samples that have no finite maximum-likelihood reward."""

    def of(self, algorithm: str) -> list[Point]:
        """One algorithm's points, in the order of its settings."""
        return [point for point in self.points if point.algorithm == algorithm]

    @property
    def algorithms(self) -> list[str]:
        """In the order in which they were run."""
        return list(dict.fromkeys(point.algorithm for point in self.points))

    @property
    def words(self) -> str:
        """How much of what its KL can buy each algorithm buys, best first."""
        ranked = sorted(self.algorithms, key=self._mean_share, reverse=True)
        shares = ", ".join(f"{name} {self._mean_share(name):.0%}" for name in ranked)
        return (
            f"Of the reward that their KL can buy they buy, in the mean over the settings shown ({self.comparisons} "
            f"comparisons, {self.seeds} samples): {shares}. {self.without_fit.value:.0%} of the samples have no finite "
            "fit of (1)."
        )

    def _mean_share(self, algorithm: str) -> float:
        shares = [point.share for point in self.of(algorithm)]
        return sum(shares) / len(shares)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is run, and how long."""

    world: World
    comparisons: int = 300
    seeds: int = 20
    betas: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    alphas: tuple[float, ...] = (0.1, 0.5, 1.0)
    draws: tuple[int, ...] = (2, 4, 16)
    steps: int = 120
    rate: float = 0.06
    """Of rewards: a policy's log-ratio moves by up to rate/β in a step."""

    @classmethod
    def quick(cls) -> Plan:
        """For the page: seconds on one core."""
        return cls(world=World.random(21, prompts=3, completions=5))


def frontiers(plan: Plan) -> Frontiers:
    """Train every algorithm on the same samples, and place it.

    >>> found = frontiers(Plan(world=World.random(0, prompts=1, completions=3), comparisons=50, seeds=2, steps=5))
    >>> len(found.of("DPO")), found.algorithms[0]
    (4, 'DPO')
    """
    world = plan.world
    samples = Samples.draw(world, plan.comparisons, seeds=range(plan.seeds))
    exact = _fine_frontier(world)
    rewards = fitted_rewards(samples, rate=plan.rate, steps=plan.steps)
    made = [
        *_family(plan, samples),
        *_ppo(plan, rewards),
        *_imitation(plan, samples),
        *(("best of N", f"N = {n}", _best_of(world, rewards, n)) for n in plan.draws),
    ]
    points = tuple(
        _point(name, setting, standing(world, policies), exact) for name, setting, policies in made
    )
    missing = plan.seeds - int(samples.have_a_finite_fit().sum())
    return Frontiers(
        exact=tuple(exact),
        points=points,
        comparisons=plan.comparisons,
        seeds=plan.seeds,
        without_fit=wilson(missing, plan.seeds),
    )


_Run = tuple[str, str, Seeded]


def _family(plan: Plan, samples: Samples) -> list[_Run]:
    return [
        (name, f"β = {beta:g}", _trained(plan, samples, loss, beta, options))
        for name, (loss, options) in FAMILY.items()
        for beta in plan.betas
    ]


def _trained(plan: Plan, samples: Samples, loss: str, beta: float, options: dict[str, float]) -> Seeded:
    rate = plan.rate / beta
    return train_pairs(samples, OBJECTIVES[loss], beta, rate=rate, steps=plan.steps, options=options)[-1]


def _ppo(plan: Plan, rewards: Seeded) -> list[_Run]:
    true = plan.world.reward.expand_as(rewards)
    return [
        (name, f"β = {beta:g}", _climbed(plan, given, beta))
        for name, given in (("PPO", rewards), ("PPO-GT", true))
        for beta in plan.betas
    ]


def _climbed(plan: Plan, rewards: Seeded, beta: float) -> Seeded:
    return ppo(plan.world.log_reference, rewards, beta, rate=plan.rate / beta, steps=plan.steps)[-1]


def _imitation(plan: Plan, samples: Samples) -> list[_Run]:
    """Without β nothing holds them near the reference but the number of their steps, so that is what traces them."""
    keep = sorted({max(1, plan.steps * share // 16) for share in (1, 2, 4, 8)})
    runs = [
        ("Preferred-FT", PREFERRED_FT),
        *((f"unlikelihood, α {a:g}", unlikelihood(a)) for a in plan.alphas),
    ]
    return [
        (name, f"{step} steps", policies)
        for name, objective in runs
        for step, policies in zip(
            (*keep, plan.steps),
            train_pairs(samples, objective, 1.0, rate=plan.rate, steps=plan.steps, keep=keep),
            strict=True,
        )
    ]


def _best_of(world: World, rewards: Seeded, n: int) -> Seeded:
    rows = best_of_n(world.log_reference.repeat(len(rewards), 1), rewards.flatten(0, 1), n)
    return rows.reshape(rewards.shape)


def _fine_frontier(world: World) -> list[Place]:
    """From the reference to all but the best completions, in steps that are straight to the eye."""
    return frontier(world, np.geomspace(1e4, 1e-3, 400).tolist())


def _point(algorithm: str, setting: str, found: Standing, exact: Sequence[Place]) -> Point:
    reachable = np.interp(found.kl.numpy(), [place.kl for place in exact], [place.reward for place in exact])
    start = exact[0].reward  # β of 10,000: all but the reference
    return Point(
        algorithm=algorithm,
        setting=setting,
        kl=mean_interval(found.kl),
        reward=mean_interval(found.reward),
        below=mean_interval(reachable - found.reward.numpy()),
        share=float((found.reward.mean() - start) / (reachable.mean() - start)),
    )


@dataclass(frozen=True, kw_only=True)
class Distances:
    """How far the policies are from the optimum, as the sample grows."""

    beta: float
    counts: tuple[int, ...]
    """Comparisons in each sample."""
    lost: dict[str, tuple[Estimate, ...]]
    """For each algorithm `J* − J`, math.md (4), at every count."""
    apart: dict[str, tuple[Estimate, ...]]
    """Total variation to π*."""
    without_fit: tuple[Estimate, ...]
    """Share of samples without a finite maximum-likelihood reward."""
    worse: dict[str, tuple[Estimate, ...]]
    """Share of seeds that end with a lower J than the reference: worse than doing nothing."""

    @property
    def words(self) -> str:
        """From the first count to the last."""
        first, last = self.counts[0], self.counts[-1]
        parts = ", ".join(
            f"{name} {found[0].value:.3f} → {found[-1].value:.3f}" for name, found in self.lost.items()
        )
        return f"J* − J at β = {self.beta:g} from {first} comparisons to {last:,}: {parts}."


def distances(
    world: World,
    *,
    beta: float,
    counts: Sequence[int] = (30, 100, 300, 1000, 3000),
    seeds: int = 12,
    steps: int = 120,
    rate: float = 0.06,
) -> Distances:
    """The distance to the optimum of (4) as the sample grows, at one β.

    >>> found = distances(World.random(0, prompts=1, completions=3), beta=1.0, counts=(30, 3000), seeds=4)
    >>> found.lost["DPO"][1].value < found.lost["DPO"][0].value
    True
    """
    best = optimal_policy(world.log_reference, world.reward, beta)
    highest = float(optimum_value(world, beta))
    start = float(standing(world, world.log_reference[None]).objective(beta))
    rows: dict[str, list[tuple[Estimate, Estimate, Estimate]]] = {}
    missing = []
    for count in counts:
        plan = Plan(world=world, comparisons=count, seeds=seeds, betas=(beta,), steps=steps, rate=rate)
        samples = Samples.draw(world, count, seeds=range(seeds))
        missing.append(wilson(seeds - int(samples.have_a_finite_fit().sum()), seeds))
        rewards = fitted_rewards(samples, rate=rate, steps=steps)
        for name, _, policies in [*_family(plan, samples), *_ppo(plan, rewards)]:
            reached: PerSeed = standing(world, policies).objective(beta)
            rows.setdefault(name, []).append(
                (
                    mean_interval(highest - reached),
                    mean_interval(distance_to(world, policies, best)),
                    wilson(int((reached < start).sum()), seeds),
                )
            )
    lost, apart, worse = (
        {name: tuple(row[k] for row in found) for name, found in rows.items()} for k in range(3)
    )
    return Distances(
        beta=beta, counts=tuple(counts), lost=lost, apart=apart, without_fit=tuple(missing), worse=worse
    )
