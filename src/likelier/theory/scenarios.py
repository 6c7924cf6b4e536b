"""What breaks: each scenario short, in a world whose answer is known, with the numbers that its picture shows.

Here: labels without chance in them, and labels turned round at random. `misspecified.py` has labels that no reward
explains, and labels that like length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from likelier.objectives import OBJECTIVES
from likelier.theory.comparisons import population
from likelier.theory.descent import Descent, Training, descend
from likelier.theory.ipo import ipo_optimal_policy, uniform_opponents
from likelier.theory.optimum import optimal_policy, total_variation
from likelier.theory.preference_models import by_reward, deterministic, flipped
from likelier.theory.shapes import Cells, Versus
from likelier.theory.statement import Statement
from likelier.theory.world import World

Curve = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Sharpening:
    """Preferences that become certain: how far the optimal policies go from the reference."""

    odds: Curve
    """Of the best completion against the worst."""
    dpo: dict[float, Curve]
    """For each β: nats between the highest and the lowest log-ratio at DPO's optimum."""
    ipo: dict[float, Curve]
    ipo_limit: dict[float, float]
    """The same for labels without chance, in closed form."""

    @property
    def words(self) -> str:
        """What the numbers say."""
        first, last = self.odds[0], self.odds[-1]
        grown = ", ".join(
            f"{curve[-1] / curve[0]:.1f} times at β = {beta:g}" for beta, curve in self.dpo.items()
        )
        held = max(curve[-1] / self.ipo_limit[beta] for beta, curve in self.ipo.items())
        return (
            f"From odds of {first:.0f} to {last:.0e}, the spread of DPO's log-ratios grows {grown}: without end. "
            f"IPO's stay below those of certain labels (at most {held:.4f} of them)."
        )


def sharpening(
    betas: Sequence[float] = (0.1, 1.0, 10.0), sharpness: Sequence[float] = (0.5, 1, 2, 3, 4.5, 6, 7.5, 9)
) -> Sharpening:
    """IPO's argument (arXiv 2310.12036, section 4.2): β does not regularise DPO where labels are certain.

    One prompt, three completions with rewards s, 0 and −s, a uniform reference, all pairs.

    >>> found = sharpening(betas=(1.0,), sharpness=(1.0, 3.0))
    >>> [round(spread, 9) for spread in found.dpo[1.0]], round(found.ipo_limit[1.0], 9)  # 2 s/β; 5/6 less 1/6
    ([2.0, 6.0], 0.666666667)
    """
    worlds = [_ladder(float(sharp)) for sharp in sharpness]
    odds = tuple(float(torch.exp(world.reward[0, 0] - world.reward[0, 2])) for world in worlds)

    def curve(loss: str, beta: float) -> Curve:
        return tuple(_spread(world, _optimum_of(loss, world, beta).log_policy) for world in worlds)

    return Sharpening(
        odds=odds,
        dpo={beta: curve("sigmoid", beta) for beta in betas},
        ipo={beta: curve("ipo_sum", beta) for beta in betas},
        ipo_limit={beta: _spread(worlds[0], _certain_ipo(worlds[0], beta)) for beta in betas},
    )


def _ladder(sharp: float) -> World:
    return World.uniform(torch.tensor([[sharp, 0.0, -sharp]], dtype=torch.float64))


def _spread(world: World, log_policy: Cells) -> float:
    ratios = (log_policy - world.log_reference)[world.support]
    return float(ratios.max() - ratios.min())


def _certain_ipo(world: World, beta: float) -> Cells:
    opponents = uniform_opponents(world.log_reference)
    return ipo_optimal_policy(world.log_reference, deterministic(world.reward), opponents, beta)


def _optimum_of(
    loss: str, world: World, beta: float, *, chances: Versus | None = None, smoothing: float | None = None
) -> Descent:
    training = Training(
        objective=OBJECTIVES[loss],
        log_reference=world.log_reference,
        beta=beta,
        options={} if smoothing is None else {"label_smoothing": smoothing},
    )
    return descend(training, population(world, chances=chances))


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Labels turned round at a rate: how far each loss's optimum is from the optimal policy of the true reward."""

    rates: Curve
    distances: dict[str, Curve]
    """Total variation, for plain DPO, cDPO and robust DPO that are told the rate."""

    @property
    def words(self) -> str:
        """What the numbers say."""
        rate = self.rates[-1]
        plain, smoothed, robust = (curve[-1] for curve in self.distances.values())
        return (
            f"With {rate:.0%} of the labels turned round, robust DPO that is told so still ends at π* (total variation "
            f"{robust:.0e}); plain DPO ends {plain:.2f} away, and cDPO {smoothed:.2f}: it smooths labels that the "
            "noise has already smoothed."
        )


def label_noise(
    world: World | None = None, *, beta: float = 0.5, rates: Sequence[float] = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4)
) -> Noise:
    """Plain DPO, cDPO and robust DPO on all comparisons, labels flipped at a rate that the latter two are told.

    >>> found = label_noise(rates=(0.1,))
    >>> {name: round(distance[0], 6) for name, distance in found.distances.items()}["robust DPO"]
    0.0
    """
    where = world or World.random(4, prompts=1, completions=4)
    best = optimal_policy(where.log_reference, where.reward, beta)
    losses = {"DPO": ("sigmoid", False), "cDPO": ("sigmoid", True), "robust DPO": ("robust", True)}

    def distance(loss: str, told: bool, rate: float) -> float:
        chances = flipped(by_reward(where.reward), rate)
        found = _optimum_of(loss, where, beta, chances=chances, smoothing=rate if told else None)
        return float(total_variation(found.log_policy, best).max())

    return Noise(
        rates=tuple(rates),
        distances={
            name: tuple(distance(loss, told, rate) for rate in rates) for name, (loss, told) in losses.items()
        },
    )


def statements(world: World, beta: float) -> list[Statement]:
    """What certain labels and flipped labels do to DPO, IPO and robust DPO, as equalities."""
    if int(world.support.sum(dim=1).max()) == 1:
        return []
    certain = deterministic(world.reward)
    dpo, ipo = (_optimum_of(loss, world, beta, chances=certain) for loss in ("sigmoid", "ipo_sum"))
    noisy = flipped(by_reward(world.reward), 0.2)
    robust = _optimum_of("robust", world, beta, chances=noisy, smoothing=0.2)
    best = optimal_policy(world.log_reference, world.reward, beta)
    decided = bool((certain != 0.5).logical_and(_compared(world)).any())
    return [
        Statement(
            name="deterministic labels: DPO has no finite optimum",
            equation="(7)",
            error=float(dpo.is_finite == decided),
            bound=0.0,
            note="the loss falls for as long as log-ratios grow, whatever β",
        ),
        Statement(
            name="deterministic labels: IPO's optimum is π_ref exp(win rate/β), normalised",
            equation="arXiv 2310.12036 (7)",
            error=float(total_variation(ipo.log_policy, _certain_ipo(world, beta)).max()),
            bound=1e-10,
        ),
        Statement(
            name="labels flipped at ε: robust DPO that is told ε reaches π*",
            equation="(5), arXiv 2403.00409",
            error=float(total_variation(robust.log_policy, best).max()),
            bound=1e-8,
        ),
    ]


def _compared(world: World) -> torch.Tensor:
    return world.support.unsqueeze(2) & world.support.unsqueeze(1)
