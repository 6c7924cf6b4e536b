"""Classes of equivalent rewards, `r ~ r' iff r(x,y) − r'(x,y) = f(x)`: math.md, Lemmas 1 and 2, Theorem 1, (12).

All members of a class say the same of preferences and have the same optimal policy, so a policy can stand for its
class: `β log(π/π_ref)` is the one member with Z(x) = 1. That takes π_ref(y|x) > 0 for every completion. Completions
that a prompt does not have (rows of a ragged world are filled up) belong to no class and are left out throughout.
"""

from __future__ import annotations

import torch

from likelier.theory.optimum import log_partition
from likelier.theory.shapes import Cells, Existing, PerPrompt
from likelier.theory.statement import IDENTITY
from likelier.theory.world import World, WorldError


class SupportError(WorldError):
    """A statement that asks for π_ref(y|x) > 0, where it is 0 or y does not exist; names prompt and completion."""


def class_distance(reward: Cells, other: Cells, *, exists: Existing | None = None) -> PerPrompt:
    """`max_y (r − r') − min_y (r − r')` for each x: 0 iff `r − r'` depends on x alone.

    Args:
        reward, other: `[prompts, completions]`, finite.
        exists: `[prompts, completions]`; where False nothing is compared. All, where left out.

    >>> class_distance(torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[4.0, 5.0]]).double()).tolist()
    [0.0]
    """
    gap = reward - other
    if exists is None:
        return gap.amax(dim=-1) - gap.amin(dim=-1)
    return gap.masked_fill(~exists, -torch.inf).amax(dim=-1) - gap.masked_fill(~exists, torch.inf).amin(
        dim=-1
    )


def equivalent(
    reward: Cells, other: Cells, *, exists: Existing | None = None, tolerance: float = IDENTITY
) -> bool:
    """Whether `r ~ r'`: whether they differ by a function of x alone, but for rounding.

    `tolerance` is relative to the largest reward.

    >>> one = torch.tensor([[1.0, 2.0], [0.0, 7.0]], dtype=torch.float64)
    >>> equivalent(one, one + torch.tensor([[10.0], [-1.0]], dtype=torch.float64)), equivalent(one, 2 * one)
    (True, False)
    """
    largest = max(1.0, float(reward.abs().max()), float(other.abs().max()))
    return bool((class_distance(reward, other, exists=exists) <= tolerance * largest).all())


def implicit_reward(world: World, log_policy: Cells, beta: float) -> Cells:
    """`β log(π(y|x)/π_ref(y|x))`, the reward that a policy stands for: math.md (8); 0 where y does not exist.

    Raises:
        SupportError: the reference or the policy has probability 0 for a completion, or the policy has more for one
            that does not exist.

    >>> from likelier.theory.optimum import optimal_policy
    >>> world = World.random(0)
    >>> reward = implicit_reward(world, optimal_policy(world.log_reference, world.reward, 0.5), 0.5)
    >>> equivalent(reward, world.reward)  # math.md (6)
    True
    """
    require_support(world)
    _require(log_policy > -torch.inf, world, "the policy has probability 0 for")
    _require(
        (log_policy == -torch.inf) | world.exists, world, "the policy has a probability for", there=False
    )
    return (beta * (log_policy - world.log_reference)).masked_fill(~world.exists, 0.0)


def project(world: World, beta: float) -> Cells:
    """`f(r; π_ref, β)(x,y) = r(x,y) − β log Z(x)`: Theorem 1's member of r's class, the paper's equation 9.

    0 where y does not exist.

    Raises:
        SupportError: π_ref(y|x) = 0 for a completion: then no policy stands for the class.

    >>> world = World.random(0)
    >>> log_partition(world.log_reference, project(world, 0.5), 0.5).abs().max().item() < 1e-14  # (12): Z = 1
    True
    """
    require_support(world)
    shift = beta * log_partition(world.log_reference, world.reward, beta)
    return (world.reward - shift.unsqueeze(-1)).masked_fill(~world.exists, 0.0)


def require_support(world: World) -> None:
    """Theorem 1's condition: π_ref(y|x) > 0 for every completion of every prompt.

    Raises:
        SupportError: it does not hold; the first such prompt and completion are named.

    >>> zero = torch.tensor([[0.0, -torch.inf]]).double()
    >>> require_support(World.of(zero, torch.zeros(1, 2).double()))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    likelier.theory.classes.SupportError: prompt `x1`: the reference has probability 0 for `y2`, so ...
    """
    _require(world.support, world, "the reference has probability 0 for")


def _require(holds: torch.Tensor, world: World, what: str, *, there: bool = True) -> None:
    """Raises for the first cell among those that exist (or do not) where `holds` is False."""
    wrong = (~holds & (world.exists if there else ~world.exists)).nonzero()
    if not len(wrong):
        return
    row, column = wrong[0].tolist()
    where = f"prompt `{world.prompts[row]}`: {what}"
    if not there:
        count = len(world.completions[row])
        raise SupportError(f"{where} completion {column + 1}, but the prompt has {count}; give it none")
    raise SupportError(
        f"{where} `{world.completions[row][column]}`, so β log(π/π_ref) cannot stand for its reward; give it a"
        " probability, or leave it out"
    )
