"""A loss put through its properties: what it recovers, what it cannot see, what deterministic or noisy labels do to it.

Every finding is a number measured by descent on exact populations in a small world, with the words that follow from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from likelier.objectives import Objective, resolve
from likelier.theory.comparisons import Comparisons, population
from likelier.theory.descent import Descent, Training, descend
from likelier.theory.ipo import ipo_optimal_policy, uniform_opponents
from likelier.theory.optimum import optimal_policy, total_variation
from likelier.theory.preference_models import by_reward, deterministic, flipped
from likelier.theory.shapes import Cells
from likelier.theory.world import World

RECOVERED = 1e-6
"""Total variation below which a policy counts as found."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One property of a loss, measured."""

    name: str
    """A word for tables and JSON: recovers, class, shift, deterministic, noise, …"""
    question: str
    holds: bool
    measured: float
    unit: str
    words: str
    """The verdict, with the number."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """All findings about one loss."""

    loss: str
    formula: str
    beta: float
    findings: tuple[Finding, ...]

    def __getitem__(self, name: str) -> Finding:
        return {finding.name: finding for finding in self.findings}[name]

    @property
    def words(self) -> str:
        """In one sentence, what it is good for."""
        if self["recovers"].holds:
            told = [finding.name for finding in self.findings if finding.name.startswith("noise")]
            robust = any(self[name].holds for name in told)
            return "finds the optimal policy of (5)" + (
                ", also under label noise it is told of" if robust else ""
            )
        if self["own problem"].holds:
            return (
                "does not find the optimal policy of (5); it solves IPO's, with win rates in place of rewards"
            )
        return "does not find the optimal policy of (5)"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Where a loss is tried: a world, β, lengths and the rate of label noise."""

    world: World
    beta: float
    lengths: Cells
    noise: float = 0.1
    options: dict[str, Any] = field(default_factory=dict)
    """The loss's own settings, such as `gamma`."""

    @classmethod
    def of(cls, world: World, *, beta: float, noise: float = 0.1, **options: Any) -> Trial:
        """A trial in `world`; its completions are 1, 2, 3, … tokens long: a loss that reads lengths shows it."""
        places = torch.arange(1, world.reward.shape[1] + 1, dtype=world.reward.dtype)
        lengths = places.expand(world.reward.shape)
        return cls(world=world, beta=beta, lengths=lengths, noise=noise, options=options)


def verdict(loss: str | Objective | Callable[..., Tensor], trial: Trial | None = None) -> Verdict:
    """Put a loss through its properties.

    Args:
        loss: a name of the table, `module:function`, a function or an objective.
        trial: where; a random world of two prompts with four completions at β = 0.5 by default.

    Raises:
        UnknownLossError: no such loss.
        ValueError: a loss that cannot be asked about a pair alone.

    >>> found = verdict("sigmoid")
    >>> found["recovers"].holds, found["deterministic"].holds, found.words
    (True, False, 'finds the optimal policy of (5)')
    """
    objective = resolve(loss)
    where = trial or Trial.of(World.random(7, prompts=2, completions=4), beta=0.5)
    findings = [
        _recovers(objective, where),
        _class(objective, where),
        _shift(objective, where),
        _deterministic(objective, where),
        _noise(objective, where),
        _own_problem(objective, where),
    ]
    if "label_smoothing" in objective.options:
        told = replace(where, options={**where.options, "label_smoothing": where.noise})
        findings += [
            replace(_noise(objective, told), name="noise, told"),
            replace(_deterministic(objective, told), name="deterministic, told"),
        ]
    return Verdict(loss=objective.name, formula=objective.formula, beta=where.beta, findings=tuple(findings))


def _training(objective: Objective, where: Trial) -> Training:
    return Training(
        objective=objective,
        log_reference=where.world.log_reference,
        beta=where.beta,
        lengths=where.lengths,
        options=where.options,
    )


def _distance(found: Descent, other: Cells) -> float:
    """Total variation at the prompt where it is largest; 1 where nothing was found."""
    return float(total_variation(found.log_policy, other).max()) if found.is_finite else 1.0


def _optimum(where: Trial) -> Cells:
    return optimal_policy(where.world.log_reference, where.world.reward, where.beta)


def _reached(found: Descent) -> str:
    """What to say where a descent has no end."""
    return {
        "unattained": "no finite optimum: the loss keeps falling towards its infimum while log-ratios grow",
        "unbounded": "no finite optimum: the loss falls without end",
        "undecided": "the descent did not come to an end",
    }[found.outcome]


def _recovers(objective: Objective, where: Trial) -> Finding:
    found = descend(_training(objective, where), population(where.world))
    distance = _distance(found, _optimum(where))
    holds = distance <= RECOVERED
    if holds:
        words = f"its minimum over all Bradley–Terry comparisons is the optimal policy (total variation {distance:.1e})"
    elif found.is_finite:
        words = f"its minimum over all Bradley–Terry comparisons is another policy, {distance:.3f} away"
    else:
        words = _reached(found)
    return Finding(
        name="recovers",
        question="Is its minimum over all comparisons the optimal policy of (5)?",
        holds=holds,
        measured=distance,
        unit="total variation",
        words=words,
    )


def _class(objective: Objective, where: Trial) -> Finding:
    """Comparisons know a reward up to f(x), so this fails only where the minimum is not unique or there is none."""
    shifts = 1.0 + torch.arange(where.world.reward.shape[0], dtype=where.world.reward.dtype)
    moved = where.world.with_reward(where.world.reward + shifts.unsqueeze(1))
    first, second = (
        descend(_training(objective, where), population(world)) for world in (where.world, moved)
    )
    distance = _distance(first, second.log_policy)
    holds = distance <= RECOVERED
    same = "the same minimum for r and r + f(x)" if holds else "another minimum for r than for r + f(x)"
    words = f"{same} (total variation {distance:.1e})" if first.is_finite else _reached(first)
    return Finding(
        name="class",
        question="Is its minimum the same for every reward of an equivalence class?",
        holds=holds,
        measured=distance,
        unit="total variation",
        words=words,
    )


def _shift(objective: Objective, where: Trial) -> Finding:
    """`log π + f(x)` in place of `log π`: the implicit reward of the same class."""
    comparisons = population(where.world)
    training = _training(objective, where)
    policy = _optimum(where)
    places = torch.stack([comparisons.winner, comparisons.loser], dim=1)
    pairs = policy[comparisons.prompt.unsqueeze(1), places]
    # Down, never up: a log-probability above 0 is none, and a loss may rightly refuse it.
    first, second = (_value_and_gradient(training, comparisons, pairs - shift) for shift in (0.0, 1.0))
    scale = training.scale(comparisons)
    change = max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True)) / scale
    holds = change <= 1e-10
    tail = (
        "it sees the policy only through its implicit reward's class" if holds else "it reads more than that"
    )
    return Finding(
        name="shift",
        question="Are value and gradient the same where log π(·|x) is shifted by f(x)?",
        holds=holds,
        measured=change,
        unit="share of the gradient's size, for a shift of 1 nat",
        words=f"changes by {change:.1e} under a shift of 1 nat: {tail}",
    )


def _value_and_gradient(training: Training, comparisons: Comparisons, pairs: Tensor) -> tuple[Tensor, Tensor]:
    at = pairs.detach().requires_grad_(True)
    losses = training.pair_losses(at, comparisons)
    (gradient,) = torch.autograd.grad(losses.sum(), at, materialize_grads=True)
    return losses.detach(), gradient


def _deterministic(objective: Objective, where: Trial) -> Finding:
    world = where.world
    found = descend(_training(objective, where), population(world, chances=deterministic(world.reward)))
    ratios = (found.log_policy - world.log_reference)[world.support]
    spread = float(ratios.max() - ratios.min()) if found.is_finite else float("inf")
    if found.is_finite:
        many = f"; not unique in {found.undetermined} directions" if found.undetermined else ""
        words = f"a finite optimum: log-ratios differ by at most {spread:.3g} nats{many}"
    else:
        words = _reached(found)
    return Finding(
        name="deterministic",
        question="Is there a finite optimum where the better answer always wins?",
        holds=found.is_finite,
        measured=spread,
        unit="nats between the highest and the lowest log-ratio",
        words=words,
    )


def _noise(objective: Objective, where: Trial) -> Finding:
    world = where.world
    noisy = population(world, chances=flipped(by_reward(world.reward), where.noise))
    found = descend(_training(objective, where), noisy)
    distance = _distance(found, _optimum(where))
    holds = distance <= RECOVERED
    told = " (told ε)" if "label_smoothing" in where.options else ""
    start = f"with {where.noise:.0%} of labels flipped{told} "
    away = (
        "it still finds the optimal policy"
        if holds
        else f"its minimum is {distance:.3f} away from the optimal policy"
    )
    return Finding(
        name="noise",
        question=f"Does it find the optimal policy where {where.noise:.0%} of the labels are flipped?",
        holds=holds,
        measured=distance,
        unit="total variation",
        words=start + (away if found.is_finite else _reached(found)),
    )


def _own_problem(objective: Objective, where: Trial) -> Finding:
    world = where.world
    found = descend(_training(objective, where), population(world))
    other = ipo_optimal_policy(
        world.log_reference, by_reward(world.reward), uniform_opponents(world.log_reference), where.beta
    )
    distance = _distance(found, other)
    holds = distance <= RECOVERED
    return Finding(
        name="own problem",
        question="Is its minimum that of IPO's problem, E[p(y ≻ y')] − β KL, y' uniform?",
        holds=holds,
        measured=distance,
        unit="total variation",
        words="yes, exactly" if holds else f"no: {distance:.3f} away",
    )
