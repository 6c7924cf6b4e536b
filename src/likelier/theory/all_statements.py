"""All statements about a world in one list."""

from __future__ import annotations

from likelier.theory import best_of_n, choice, classes, gradients, optimality
from likelier.theory.statement import Statement
from likelier.theory.world import World

_OF_A_WORLD = (choice, optimality, classes, gradients, best_of_n)


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
    return [statement for part in _OF_A_WORLD for statement in part.statements(where, beta)]
