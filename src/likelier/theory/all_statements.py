"""All statements about a world in one list, and the worlds in which they are checked where nobody gives one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from likelier.theory import (
    algorithms,
    best_of_n,
    choice,
    classes,
    dial_statements,
    displacement,
    gradients,
    misspecified,
    optimality,
    scenarios,
    variance_path,
)
from likelier.theory.statement import Statement
from likelier.theory.world import World

Part = Callable[[World, float], list[Statement]]

CLOSED_FORMS: tuple[Part, ...] = (
    *(choice.statements, optimality.statements, classes.statements, gradients.statements),
    *(variance_path.statements, dial_statements.statements, best_of_n.statements),
)
"""Sums alone: any world, any β."""
DESCENTS: tuple[Part, ...] = (
    *(displacement.statements, scenarios.statements, misspecified.statements, algorithms.statements),
)
"""Descents on losses, which rewards far apart make too flat for float64."""
WIDEST = 10.0
"""How far apart a prompt's rewards may lie in a descent: odds of e^10."""


def statements(world: World | None = None, *, beta: float = 0.5) -> list[Statement]:
    """Everything of math.md that can be checked by computing, checked in `world` at β.

    Args:
        world: where; by default a random one of three prompts with five completions each.
        beta: β > 0.

    Raises:
        ValueError: β is not positive.

    >>> all(statement.holds for statement in statements(beta=0.1))
    True
    """
    where = World.random(0) if world is None else world
    narrow = narrowed(where, WIDEST)
    scaled = "" if narrow is where else f"rewards scaled to a spread of {WIDEST:g}"
    found = [one for part in CLOSED_FORMS for one in part(where, beta)]
    found += [replace(one, note=one.note or scaled) for part in DESCENTS for one in part(narrow, beta)]
    return [*found, *dial_statements.sequence_statements(beta)]


def narrowed(world: World, spread: float) -> World:
    """The world, its rewards scaled down until no prompt's lie further apart than `spread`; else as it is.

    >>> wide = World.uniform(torch.tensor([[0.0, 40.0], [2.0, 4.0]], dtype=torch.float64))
    >>> narrowed(wide, 10.0).reward.tolist(), narrowed(wide, 50.0) is wide
    ([[0.0, 10.0], [0.5, 1.0]], True)
    """
    highest = world.reward.masked_fill(~world.support, -torch.inf).amax(dim=-1)
    lowest = world.reward.masked_fill(~world.support, torch.inf).amin(dim=-1)
    widest = float((highest - lowest).max())
    return world if widest <= spread else world.with_reward(world.reward * (spread / widest))


def trials() -> list[tuple[World, float]]:
    """The worlds in which statements are checked by default, each with a β: random ones, and one of corner cases.

    The last has a prompt of one completion, equal rewards, rows of different length, and probabilities of 1e-12.
    """
    logits = torch.tensor([[0.0, 0.0, -27.6, 1.0], [0.0, -torch.inf, -torch.inf, -torch.inf],
                           [0.0, 0.5, -1.0, -torch.inf]], dtype=torch.float64)  # fmt: skip
    reward = torch.tensor(
        [[1.0, 0.0, 3.0, -2.0], [5.0, 0.0, 0.0, 0.0], [2.0, 2.0, 2.0, 0.0]], dtype=torch.float64
    )
    return [(World.random(0), 0.5), (World.random(1, scale=3.0), 0.05), (World.of(logits, reward), 5.0)]


def worst(found: Sequence[Sequence[Statement]]) -> list[Statement]:
    """Each statement with its largest error over several worlds; the first world's note.

    >>> one = Statement(name="Z = 1", equation="(12)", error=1e-16, bound=1e-10)
    >>> worst([[one], [replace(one, error=float("nan"))], [replace(one, error=1e-12)]])[0].error
    nan
    """
    by_name: dict[tuple[str, str], Statement] = {}
    for one in (one for world in found for one in world):
        kept = by_name.setdefault((one.name, one.equation), one)
        if (
            not one.error - one.bound <= kept.error - kept.bound and kept.error == kept.error
        ):  # NaN is the worst
            by_name[one.name, one.equation] = replace(one, note=kept.note)
    return list(by_name.values())
