"""What breaks, continued: labels that like length, and preferences that no reward explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from likelier.objectives import OBJECTIVES
from likelier.theory.comparisons import population
from likelier.theory.descent import Training, descend
from likelier.theory.optimum import (
    Place,
    expectation,
    mean,
    optimal_policy,
    place,
    reward_at,
    total_variation,
)
from likelier.theory.preference_models import by_reward, in_circles, liking_length, through_link
from likelier.theory.scenarios import Curve
from likelier.theory.shapes import Cells, Versus
from likelier.theory.statement import Statement
from likelier.theory.world import World


def _dpo(world: World, beta: float, chances: Versus) -> Cells:
    training = Training(objective=OBJECTIVES["sigmoid"], log_reference=world.log_reference, beta=beta)
    return descend(training, population(world, chances=chances)).log_policy


@dataclass(frozen=True, kw_only=True)
class LengthBias:
    """Labels by a reward that likes length: what DPO gains in length, and loses of the true reward."""

    slopes: Curve
    """Reward that labels add for each token."""
    lengths: Curve
    """Mean length of DPO's answers, tokens."""
    places: tuple[Place, ...]
    """Their KL and true reward."""
    reachable: Curve
    """The most true reward at the same KL: the frontier."""
    reference: Place
    reference_length: float

    @property
    def words(self) -> str:
        """What the numbers say."""
        first, last = self.places[0], self.places[-1]
        lost = self.reachable[-1] - last.reward
        return (
            f"At {self.slopes[-1]:g} of reward for a token, answers grow from {self.reference_length:.1f} tokens "
            f"(reference) to {self.lengths[-1]:.1f} (without the bias: {self.lengths[0]:.1f}); the true reward is "
            f"{last.reward:.2f} in place of {first.reward:.2f}, {lost:.2f} below what the same KL buys."
        )


def length_bias(
    *, beta: float = 0.5, slopes: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.45, 0.6)
) -> LengthBias:
    """DPO on all comparisons of labels that add a bonus for each token; lengths and reward are independent draws.

    >>> found = length_bias(slopes=(0.0, 0.5))
    >>> found.lengths[1] > found.lengths[0] and found.places[1].reward < found.places[0].reward
    True
    """
    world = World.random(9, prompts=3, completions=6)
    lengths = torch.arange(2, 14, 2).to(world.reward.dtype).expand(world.reward.shape)
    policies = [_dpo(world, beta, by_reward(liking_length(world.reward, lengths, slope))) for slope in slopes]
    places = tuple(place(world, policy) for policy in policies)
    return LengthBias(
        slopes=tuple(slopes),
        lengths=tuple(float(mean(world, expectation(policy, lengths))) for policy in policies),
        places=places,
        reachable=tuple(reward_at(world, point.kl) for point in places),
        reference=place(world, world.log_reference),
        reference_length=float(mean(world, expectation(world.log_reference, lengths))),
    )


@dataclass(frozen=True, kw_only=True)
class Circle:
    """Preferences that go in a circle: what is left for a reward to explain."""

    strengths: Curve
    """Log-odds that the circle adds to the reward's."""
    misfit: Curve
    """The largest gap between a preference probability and that of DPO's implicit reward."""
    distances: Curve
    """Total variation between DPO's optimum and π* of the reward that is there beside the circle."""
    thurstone: float
    """Total variation from π* where preferences are a normal distribution's in place of the logistic one."""
    thurstone_misfit: float

    @property
    def words(self) -> str:
        """What the numbers say."""
        return (
            f"A circle of log-odds {self.strengths[-1]:g} leaves DPO's implicit reward wrong by up to "
            f"{self.misfit[-1]:.0%} in a preference probability, and moves its optimum {self.distances[-1]:.2f} from "
            f"π*. Preferences by a normal distribution in place of the logistic one are fitted within "
            f"{self.thurstone_misfit:.1%}, yet the optimum is {self.thurstone:.2f} away: the scale of the reward is "
            f"not the one that (1) assumes."
        )


def circle(*, beta: float = 0.5, strengths: Sequence[float] = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)) -> Circle:
    """DPO on all comparisons of preferences that a circle is added to, and of Thurstone's.

    >>> found = circle(strengths=(0.0, 2.0))
    >>> round(found.misfit[0], 9), found.misfit[1] > 0.1
    (0.0, True)
    """
    world = World.of(
        torch.tensor([[0.0, 0.4, -0.4]], dtype=torch.float64),
        torch.tensor([[0.6, 0.0, -0.6]], dtype=torch.float64),
    )
    best = optimal_policy(world.log_reference, world.reward, beta)
    models = [in_circles(world.reward, strength) for strength in strengths]
    normal = through_link(world.reward, torch.special.ndtr)
    policies = [_dpo(world, beta, chances) for chances in (*models, normal)]
    gaps = [
        _misfit(world, policy, beta, chances)
        for policy, chances in zip(policies, (*models, normal), strict=True)
    ]
    distances = [float(total_variation(policy, best).max()) for policy in policies]
    return Circle(
        strengths=tuple(strengths),
        misfit=tuple(gaps[:-1]),
        distances=tuple(distances[:-1]),
        thurstone=distances[-1],
        thurstone_misfit=gaps[-1],
    )


def _misfit(world: World, log_policy: Cells, beta: float, chances: Versus) -> float:
    implied = by_reward(beta * (log_policy - world.log_reference))
    return float((implied - chances).abs().max())


def statements(world: World, beta: float) -> list[Statement]:
    """What DPO fits where labels are not those of the true reward, as equalities."""
    if int(world.support.sum(dim=1).max()) == 1:
        return []
    lengths = torch.arange(1, world.reward.shape[1] + 1, dtype=world.reward.dtype).expand(world.reward.shape)
    liked = liking_length(world.reward, lengths, 0.3)
    biased = optimal_policy(world.log_reference, liked, beta)
    chances = in_circles(world.reward, 1.0)
    return [
        Statement(
            name="labels that like length: DPO reaches π* of the reward that likes length",
            equation="(5), (7)",
            error=float(total_variation(_dpo(world, beta, by_reward(liked)), biased).max()),
            bound=1e-10,
        ),
        Statement(
            name="labels that no reward explains: DPO's implicit reward wins as often as they do, in all",
            equation="(7), (9)",
            error=_unbalanced(world, _dpo(world, beta, chances), beta, chances),
            bound=1e-10 + 1e-14 * beta,  # u is β times a difference of logarithms, and so is its rounding
        ),
    ]


def _unbalanced(world: World, log_policy: Cells, beta: float, chances: Versus) -> float:
    """The gradient at the optimum of (7): each completion's expected wins, under the labels less under the fit."""
    ratio = torch.where(world.support, log_policy - world.log_reference, 0.0)
    surplus = chances - by_reward(beta * ratio)
    both = world.support.unsqueeze(2) & world.support.unsqueeze(1)
    return float(torch.where(both, surplus, 0.0).sum(dim=2).abs().max())
