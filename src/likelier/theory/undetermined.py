"""What comparisons leave open: completions in two islands, none of which was compared with one of the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from likelier.objectives import OBJECTIVES
from likelier.theory.comparisons import components, population
from likelier.theory.descent import Training, descend
from likelier.theory.displacement import islands
from likelier.theory.optimum import optimal_policy
from likelier.theory.shapes import Cells
from likelier.theory.world import World

Curve = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Undetermined:
    """Probabilities that the loss fixes only given their island."""

    island: tuple[int, ...]
    """Of each completion."""
    optimum: Curve
    """π*(y|x)."""
    reached: Curve
    """Where DPO's descent from the reference ends."""
    highest: Curve
    """The largest probability at the same loss, all mass in its island; the smallest is 0."""
    loss_gap: float
    """How much the loss changes over all ways to share the mass between the islands."""
    directions: int
    """Of the policy, that the loss does not feel."""

    @property
    def words(self) -> str:
        """What the numbers say."""
        mass, should = (
            sum(p for p, part in zip(curve, self.island, strict=True) if part == 0)
            for curve in (self.reached, self.optimum)
        )
        return (
            f"Within an island every ratio of probabilities is that of π*. How much the first island has in all, the "
            f"loss does not say (it changes by {self.loss_gap:.0e} from all to nothing): the descent ends at "
            f"{mass:.0%}, where the reference and the parameters lead it; π* has {should:.0%}."
        )


def undetermined(*, beta: float = 0.5) -> Undetermined:
    """DPO on all comparisons within two islands, in a world of five completions.

    >>> found = undetermined()
    >>> found.directions, found.island, found.loss_gap < 1e-12
    (1, (0, 0, 1, 1, 1), True)
    """
    world = World.of(
        torch.tensor([[0.0, 0.3, 0.6, 0.0, -0.3]], dtype=torch.float64),
        torch.tensor([[1.2, 0.8, 0.3, -0.2, -0.6]], dtype=torch.float64),
    )
    comparisons = population(world, pairs=islands(world))
    training = Training(objective=OBJECTIVES["sigmoid"], log_reference=world.log_reference, beta=beta)
    found = descend(training, comparisons)
    part = components(comparisons, world)
    within = _given_island(found.log_policy, part)
    moved = [(within + part * shift).log_softmax(dim=-1) for shift in (-20.0, -1.0, 0.0, 1.0, 20.0)]
    losses = [float(training.loss(comparisons, policy)) for policy in moved]
    best = optimal_policy(world.log_reference, world.reward, beta)
    return Undetermined(
        island=tuple(part[0].tolist()),
        optimum=tuple(best[0].exp().tolist()),
        reached=tuple(found.log_policy[0].exp().tolist()),
        highest=tuple(within[0].exp().tolist()),
        loss_gap=max(losses) - min(losses),
        directions=found.undetermined,
    )


def _given_island(log_policy: Cells, part: torch.Tensor) -> Cells:
    """`log π(y | x, island of y)`."""
    within = log_policy.clone()
    for label in part.unique():
        inside = part == label
        within[inside] = log_policy[inside].log_softmax(dim=0)
    return within
