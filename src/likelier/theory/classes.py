"""Classes of equivalent rewards, `r ~ r' iff r(x,y) − r'(x,y) = f(x)`: math.md, Lemmas 1 and 2, Theorem 1, (12).

All members of a class say the same of preferences and have the same optimal policy, so a policy can stand for its
class: `β log(π/π_ref)` is the one member with Z(x) = 1. That takes π_ref(y|x) > 0 for every completion. Completions
that a prompt does not have (rows of a ragged world are filled up) belong to no class and are left out throughout.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from likelier.theory.choice import few, ranking_log_probabilities
from likelier.theory.optimality import trial_policies
from likelier.theory.optimum import log_partition, optimal_policy, total_variation
from likelier.theory.shapes import Cells, Existing, PerPrompt
from likelier.theory.statement import IDENTITY, Statement, largest, largest_gap, scale
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
    widest = max(1.0, float(reward.abs().max()), float(other.abs().max()))
    return bool((class_distance(reward, other, exists=exists) <= tolerance * widest).all())


def implicit_reward(world: World, log_policy: Cells, beta: float) -> Cells:
    """`β log(π(y|x)/π_ref(y|x))`, the reward that a policy stands for: math.md (8); 0 where y does not exist.

    Raises:
        SupportError: the reference or the policy has probability 0 for a completion, or the policy has more for one
            that does not exist.

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


def statements(world: World, beta: float) -> list[Statement]:
    """Lemmas 1 and 2, the converse and where it fails, Theorem 1 and (12), on the support of `world`'s reference.

    >>> [statement.name for statement in statements(World.random(0), 0.5) if not statement.holds]
    []
    """
    inside = world.on_support()
    found = [_lemma_1(inside), _lemma_2(inside, beta), _inverted(inside, beta), _converse(inside, beta),
             _no_converse_without_support(), _no_converse_at_another_beta(), _theorem_1(inside, beta),
             _unique(inside, beta), _z_is_1(inside, beta), _refused()]  # fmt: skip
    gone = int((world.exists & ~world.support).sum())
    if not gone:
        return found
    note = f"without {gone} completion{'s' if gone > 1 else ''} of reference probability 0"
    return [replace(one, note=one.note or note) for one in found]


def _shifted(world: World) -> Cells:
    """Another member of the class: every prompt's rewards moved by a number of its own."""
    size = max(1.0, float(world.reward.abs().max()))
    steps = torch.arange(1, len(world.prompts) + 1, dtype=world.reward.dtype) / len(world.prompts)
    return world.reward + size * steps.unsqueeze(-1)


def _lemma_1(world: World) -> Statement:
    both = zip(few(world), few(world.with_reward(_shifted(world))), strict=True)
    errors = [
        largest_gap(ranking_log_probabilities(r).exp(), ranking_log_probabilities(other).exp())
        for r, other in both
    ]
    return _statement("r and r + f(x) give every ranking the same probability", "Lemma 1", largest(errors))


def _lemma_2(world: World, beta: float) -> Statement:
    policies = [
        optimal_policy(world.log_reference, reward, beta) for reward in (world.reward, _shifted(world))
    ]
    error = float(total_variation(*policies).max()) / scale(world, beta)
    return _statement("r and r + f(x) have the same optimal policy", "Lemma 2", error)


def _inverted(world: World, beta: float) -> Statement:
    best = optimal_policy(world.log_reference, world.reward, beta)
    log_z = log_partition(world.log_reference, world.reward, beta).unsqueeze(-1)
    found = (best - world.log_reference + log_z).masked_fill(~world.exists, 0.0)
    wanted = (world.reward / beta).masked_fill(~world.exists, 0.0)
    error = largest_gap(found, wanted) / scale(world, beta)
    return _statement("r = β log(π*/π_ref) + β log Z", "(6)", error)


def _converse(world: World, beta: float) -> Statement:
    best = optimal_policy(world.log_reference, world.reward, beta)
    found = class_distance(implicit_reward(world, best, beta), world.reward, exists=world.exists)
    error = float(found.max()) / (beta * scale(world, beta))
    return _statement("the optimal policy gives r's class back", "converse of Lemma 2", error)


def _no_converse_without_support() -> Statement:
    """Two rewards of different classes, told apart by a completion that the reference never gives."""
    zero = torch.tensor([[0.0, 0.0, -torch.inf]], dtype=torch.float64)
    rewards = torch.tensor([[[1.0, 0.0, 0.0]], [[1.0, 0.0, 7.0]]], dtype=torch.float64)
    policies = [optimal_policy(World.of(zero, reward).log_reference, reward, 0.5) for reward in rewards]
    error = float("inf") if equivalent(*rewards) else float(total_variation(*policies).max())
    return _statement(
        "the converse fails where π_ref(y|x) = 0: one policy, two classes",
        "converse of Lemma 2",
        error,
        note="an example",
    )


def _no_converse_at_another_beta() -> Statement:
    reward = torch.tensor([[1.0, 0.0, -2.0]], dtype=torch.float64)
    even = World.uniform(reward).log_reference
    policies = optimal_policy(even, reward, 0.5), optimal_policy(even, 2.0 * reward, 1.0)
    error = float("inf") if equivalent(reward, 2.0 * reward) else float(total_variation(*policies).max())
    return _statement(
        "the converse fails at another β: r at β, 2 r at 2 β", "converse of Lemma 2", error, note="an example"
    )


def _theorem_1(world: World, beta: float) -> Statement:
    member = project(world, beta)
    away = class_distance(member, world.reward, exists=world.exists).max() / beta
    total = (world.log_reference + member / beta).exp().sum(dim=-1)
    error = largest([float(away), largest_gap(total, torch.ones_like(total))]) / scale(world, beta)
    return _statement("f(r) = r − β log Z is β log(π/π_ref) of a policy, in r's class", "Theorem 1", error)


def _unique(world: World, beta: float) -> Statement:
    """One member of that form for the whole class; and every policy's own reward is the member of its class."""
    member = project(world, beta)
    errors = [largest_gap(project(world.with_reward(_shifted(world)), beta), member)]
    for policy in trial_policies(world, count=4):
        reward = implicit_reward(world, policy, beta)
        errors.append(largest_gap(project(world.with_reward(reward), beta), reward))
    return _statement(
        "no other reward of the class has that form",
        "Theorem 1",
        largest(errors) / (beta * scale(world, beta)),
    )


def _z_is_1(world: World, beta: float) -> Statement:
    log_z = log_partition(world.log_reference, project(world, beta), beta)
    error = float(log_z.abs().max()) / scale(world, beta)
    return _statement("Z(x) = 1 for the reward that DPO learns", "(12)", error)


def _refused() -> Statement:
    never = World.of(torch.tensor([[0.0, -torch.inf]]).double(), torch.zeros(1, 2).double())
    try:
        project(never, 1.0)
    except SupportError as refusal:
        return _statement(
            "the projection is refused where π_ref(y|x) = 0",
            "Theorem 1",
            0.0,
            note=str(refusal).partition(",")[0],
        )
    return _statement("the projection is refused where π_ref(y|x) = 0", "Theorem 1", float("inf"))


def _statement(name: str, equation: str, error: float, *, note: str = "") -> Statement:
    return Statement(name=name, equation=equation, error=error, bound=IDENTITY, note=note)
