"""What the pictures of a world show: its frontier and who stands where, best-of-N's cost, rewards that run away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from likelier.theory.best_of_n import best_of_n, best_of_n_kl, kl_bound
from likelier.theory.fits import penalised_fit
from likelier.theory.optimality import trial_policies
from likelier.theory.optimum import Place, frontier, mean, optimal_policy, place
from likelier.theory.world import World

SIZES = (1, 2, 4, 8, 16, 32, 64)
"""N of best-of-N."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A world's policies between reward and KL."""

    beta: float
    frontier: tuple[Place, ...]
    """From the reference to the best completions alone."""
    optimum: Place
    """π* at β."""
    best_of_n: dict[int, Place]
    others: tuple[Place, ...]
    """Policies of no merit: even ones, random ones."""

    @property
    def words(self) -> str:
        """What the numbers say."""
        four = self.best_of_n[4]
        return (
            f"π* at β = {self.beta:g} has a reward of {self.optimum.reward:.3g} at {self.optimum.kl:.3g} nats; no "
            f"policy has more at that KL. Best of 4 has {four.reward:.3g} at {four.kl:.3g} nats."
        )


def outline(world: World, beta: float) -> Outline:
    """The frontier of `world`, π*, best-of-N and other policies.

    >>> found = outline(World.random(0), 0.5)
    >>> found.frontier[0].kl < found.optimum.kl < found.frontier[-1].kl
    True
    """
    # 1/β from 0 on, in units in which it counts.
    size = max(1e-6, float(world.reward.abs().max()))
    betas = (size * np.geomspace(1e3, 1e-3, 200)).tolist()
    return Outline(
        beta=beta,
        frontier=tuple(frontier(world, betas)),
        optimum=place(world, optimal_policy(world.log_reference, world.reward, beta)),
        best_of_n={n: place(world, best_of_n(world.log_reference, world.reward, n)) for n in SIZES},
        others=tuple(place(world, policy) for policy in trial_policies(world)[1:]),
    )


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The KL that best-of-N costs, nats, for each N."""

    sizes: tuple[int, ...]
    bound: tuple[float, ...]
    """`log N − (N−1)/N`."""
    curves: dict[str, tuple[float, ...]]
    """In each world, the mean over its prompts."""

    @property
    def words(self) -> str:
        """What the numbers say."""
        parts = ", ".join(
            f"{name} {100 * curve[-1] / self.bound[-1]:.0f} %" for name, curve in self.curves.items()
        )
        return (
            f"At N = {self.sizes[-1]} best-of-N costs so much of log N − (N−1)/N: {parts}. The bound is reached only "
            "where no completion weighs much and no two tie."
        )


def cost(world: World) -> Cost:
    """Best-of-N in `world`, and where 10 and 100 completions of different rewards are equally likely.

    >>> found = cost(World.random(0))
    >>> all(kl <= bound for curve in found.curves.values() for kl, bound in zip(curve, found.bound, strict=True))
    True
    """
    even = {
        f"{count} equally likely": World.uniform(torch.arange(count).double()[None]) for count in (10, 100)
    }
    return Cost(
        sizes=SIZES,
        bound=tuple(kl_bound(n) for n in SIZES),
        curves={name: _costs(one) for name, one in {"this world": world, **even}.items()},
    )


def _costs(world: World) -> tuple[float, ...]:
    found = (best_of_n_kl(world.log_reference, world.reward, n) for n in SIZES)
    return tuple(max(0.0, float(mean(world, one))) for one in found)


@dataclass(frozen=True, kw_only=True)
class Runaway:
    """Fits of (3) to comparisons of two completions under an ever smaller ridge."""

    ridges: tuple[float, ...]
    gaps: dict[str, tuple[float, ...]]
    """r(y_1) − r(y_2), for each share of comparisons that y_1 wins."""

    @property
    def words(self) -> str:
        """What the numbers say."""
        always = next(iter(self.gaps.values()))
        return (
            f"Always preferred: the gap of rewards grows from {always[0]:.2g} to {always[-1]:.3g} as the ridge goes "
            f"from {self.ridges[0]:g} to {self.ridges[-1]:g}, and on without end. Where the other one wins now and "
            "then, it ends at the log-odds."
        )


WEAKER = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
"""Ridges of the picture."""


def runaway(shares: Sequence[float] = (1.0, 0.99, 0.9), *, ridges: Sequence[float] = WEAKER) -> Runaway:
    """Deterministic labels against nearly deterministic ones.

    >>> found = runaway(ridges=(1e-1, 1e-8))
    >>> [round(curve[-1], 2) for curve in found.gaps.values()]  # none, log 99, log 9
    [16.32, 4.6, 2.2]
    """
    return Runaway(
        ridges=tuple(ridges),
        gaps={f"{share:.0%}": tuple(_gap(share, ridge) for ridge in ridges) for share in shares},
    )


def _gap(share: float, ridge: float) -> float:
    first, second = penalised_fit(
        [(0, 1), (1, 0)], weights=[share, 1.0 - share], items=2, ridge=ridge
    ).tolist()
    return float(first - second)
