"""Where mass goes that comparisons do not hold: the chosen answer may fall while the loss falls.

With one parameter for each cell a step of DPO raises what was chosen. Where answers share parameters it need not: to
first order a step changes log π(y_w) by a positive multiple of `|g_w|² − ⟨g_w, g_l⟩` (math.md (9)), and what both lose
goes to answers that nobody compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from likelier.objectives import OBJECTIVES
from likelier.theory.comparisons import Comparisons, components, population
from likelier.theory.descent import Training, descend
from likelier.theory.optimum import optimal_policy
from likelier.theory.policies import Family, log_linear
from likelier.theory.shapes import Cells, Versus
from likelier.theory.statement import Statement
from likelier.theory.world import World


@dataclass(frozen=True, kw_only=True)
class Displacement:
    """Gradient descent on one pair, step by step."""

    losses: tuple[float, ...]
    chosen: tuple[float, ...]
    """π(y_w) before each step; and so on."""
    rejected: tuple[float, ...]
    elsewhere: tuple[float, ...]
    """All that was never compared."""
    signs: tuple[float, ...]
    """`|g_w|² − ⟨g_w, g_l⟩` before each step: below 0 the chosen answer falls."""

    @property
    def words(self) -> str:
        """What the numbers say."""
        return (
            f"The loss falls from {self.losses[0]:.3f} to {self.losses[-1]:.3f}, and the chosen answer with it, from "
            f"{self.chosen[0]:.0%} to {self.chosen[-1]:.0%}: it shares a parameter with the rejected one, which "
            f"falls from {self.rejected[0]:.0%} to {self.rejected[-1]:.0%}. What was never compared grows from "
            f"{self.elsewhere[0]:.0%} to {self.elsewhere[-1]:.0%}."
        )


def displaced(*, beta: float = 0.5, rate: float = 0.5, steps: int = 60) -> Displacement:
    """DPO on one pair whose answers look alike, with a log-linear policy of two parameters.

    Features: chosen (1, 0.3), rejected (1.6, −0.3), two others (0, 0) and (0.2, 0.1); the reference is uniform.

    >>> found = displaced(steps=30)
    >>> found.losses[-1] < found.losses[0] and found.chosen[-1] < found.chosen[0] and found.signs[0] < 0
    True
    """
    log_reference = torch.full((1, 4), 0.25, dtype=torch.float64).log()
    features = torch.tensor([[[1.0, 0.3], [1.6, -0.3], [0.0, 0.0], [0.2, 0.1]]], dtype=torch.float64)
    family = log_linear(log_reference, features)
    wins = torch.zeros(1, 4, 4, dtype=torch.float64)
    wins[0, 0, 1] = 1.0
    training = Training(objective=OBJECTIVES["sigmoid"], log_reference=log_reference, beta=beta)
    comparisons = Comparisons.of(wins)
    rows, point = [], family.start
    for _ in range(steps + 1):
        loss, gradient = _value_and_gradient(
            lambda at: training.loss(comparisons, family.log_policy(at)), point
        )
        policy = family.log_policy(point).exp()[0].tolist()
        rows.append((loss, policy[0], policy[1], policy[2] + policy[3], rise_of_chosen(family, point, 0, 1)))
        point = point - rate * gradient
    losses, chosen, rejected, elsewhere, signs = zip(*rows, strict=True)
    return Displacement(losses=losses, chosen=chosen, rejected=rejected, elsewhere=elsewhere, signs=signs)


def rise_of_chosen(family: Family, point: Tensor, chosen: int, rejected: int, *, prompt: int = 0) -> float:
    """`|g_w|² − ⟨g_w, g_l⟩`, g the gradients of the log-probabilities: math.md (9). Above 0 a step raises log π(y_w).

    >>> from likelier.theory.policies import softmax_table
    >>> table = softmax_table(torch.full((1, 3), 1 / 3, dtype=torch.float64).log())
    >>> round(rise_of_chosen(table, table.start, 0, 1), 12)  # (2/3)² + 2 (1/3)² + 2/9 + ... = 2/3 + 1/3
    1.0
    """
    _, first = _value_and_gradient(lambda at: family.log_policy(at)[prompt, chosen], point)
    _, second = _value_and_gradient(lambda at: family.log_policy(at)[prompt, rejected], point)
    return float(first @ first - first @ second)


def _value_and_gradient(function: Callable[[Tensor], Tensor], point: Tensor) -> tuple[float, Tensor]:
    at = point.detach().requires_grad_(True)
    value = function(at)
    (gradient,) = torch.autograd.grad(value, at)
    return float(value.detach()), gradient


def islands(world: World) -> Versus:
    """Pairs within the first half of each prompt's support, and within the rest: two components without a bridge.

    >>> islands(World.uniform(torch.zeros(1, 4, dtype=torch.float64)))[0].tolist()[0]
    [0.0, 1.0, 0.0, 0.0]
    """
    place = world.support.cumsum(dim=1)
    half = (place * 2 > world.support.sum(dim=1, keepdim=True)).long()
    both = world.support.unsqueeze(2) & world.support.unsqueeze(1)
    together = both & (half.unsqueeze(2) == half.unsqueeze(1))
    return together.to(world.reward.dtype) - torch.diag_embed(world.support.to(world.reward.dtype))


def statements(world: World, beta: float) -> list[Statement]:
    """Where DPO's loss leads when all is compared, and when comparisons come in islands."""
    if int(world.support.sum(dim=1).max()) == 1:
        return []
    training = Training(objective=OBJECTIVES["sigmoid"], log_reference=world.log_reference, beta=beta)
    best = optimal_policy(world.log_reference, world.reward, beta)
    found = descend(training, population(world))
    gap = 0.5 * (found.log_policy.exp() - best.exp()).abs().sum(dim=1).max()
    return [
        Statement(
            name="DPO's loss over all comparisons: Newton's descent ends at π*",
            equation="(5), (7)",
            error=float(gap) if found.is_finite else float("inf"),
            bound=1e-8,
            note=f"{found.steps} steps, total variation",
        ),
        *_of_islands(world, training, best),
        _of_displacement(),
    ]


def _of_islands(world: World, training: Training, best: Cells) -> list[Statement]:
    pairs = islands(world)
    if float(pairs.sum()) == 0.0:
        return []
    comparisons = population(world, pairs=pairs)
    found = descend(training, comparisons)
    part = components(comparisons, world)
    open_directions = int((part.amax(dim=1)).sum())
    return [
        Statement(
            name="comparisons in islands: probabilities within each are those of π*",
            equation="(5), (7)",
            error=_conditional_gap(found.log_policy, best, part),
            bound=1e-8,
        ),
        Statement(
            name="comparisons in islands: the islands' masses stay open, one direction for each but one",
            equation="(7)",
            error=float(abs(found.undetermined - open_directions)),
            bound=0.0,
            note=f"{open_directions} directions without curvature",
        ),
    ]


def _conditional_gap(log_policy: Cells, other: Cells, part: Tensor) -> float:
    """Total variation between the policies given the component, the largest of all components of all prompts."""
    gaps = [0.0]
    for row, expected, labels in zip(log_policy, other, part, strict=True):
        for label in labels.unique():
            if int(label) >= 0:
                first, second = (values[labels == label].softmax(dim=0) for values in (row, expected))
                gaps.append(0.5 * float((first - second).abs().sum()))
    return max(gaps)


def _of_displacement() -> Statement:
    """A tiny step against what (9) promises, and the loss falling while the chosen answer falls."""
    rate = 1e-4
    found = displaced(beta=0.5, rate=rate, steps=1)
    promised = rate * 0.5 * 0.5 * found.signs[0]  # β σ(0)
    happened = torch.tensor(found.chosen, dtype=torch.float64).log().diff().item()
    falls = found.losses[1] < found.losses[0] and happened < 0.0
    return Statement(
        name="shared parameters: log π(y_w) moves by β σ(−u) (|g_w|² − ⟨g_w, g_l⟩), here down while the loss falls",
        equation="(9)",
        error=abs(happened / promised - 1.0) if falls else float("inf"),
        bound=1e-3,
        note="to first order, at a rate of 1e-4",
    )
