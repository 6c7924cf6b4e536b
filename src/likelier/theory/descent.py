"""Descent on a loss over all comparisons: where does this objective lead, exactly, and is there such a place at all?

Any objective of `likelier.objectives` that can be asked about a pair, the user's own among them, over any family of
policies. Nothing is sampled: the loss is `Σ w ℓ` over the comparisons.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import hypot
from typing import Any

import torch
from torch import Tensor

from likelier.objectives import Objective
from likelier.theory.comparisons import Comparisons
from likelier.theory.minimise import Outcome, minimise
from likelier.theory.policies import Family, softmax_table
from likelier.theory.shapes import Cells, Number, Vector, Weights


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a loss is told: the objective with its settings, the reference, and how long the completions are.

    Raises:
        ValueError: an objective that cannot be asked about a pair alone.
    """

    objective: Objective
    log_reference: Cells
    beta: float
    lengths: Cells | None = None
    """|y| in tokens; 1 everywhere where it is not given."""
    options: dict[str, Any] = field(default_factory=dict)
    """The objective's own, such as `label_smoothing`."""

    def __post_init__(self) -> None:
        if self.objective.stepwise:
            raise ValueError(
                f"loss `{self.objective.name}` reads a whole step: its value for a pair depends on the batch, "
                "so that it has no population loss; give a loss per pair"
            )
        if self.objective.kind == "scores":
            raise ValueError(f"loss `{self.objective.name}` reads scores, and comparisons have none")

    def losses(self, comparisons: Comparisons, log_policy: Cells) -> Weights:
        """The objective's loss of each comparison, `[pairs]`."""
        return self.pair_losses(_pick(log_policy, comparisons), comparisons)

    def pair_losses(self, policy: Tensor, comparisons: Comparisons) -> Weights:
        """The same, from the log-probabilities of winner and loser, `[pairs, 2]`."""
        objective = self.objective
        reference = _pick(self.log_reference, comparisons)
        lengths = torch.ones_like(reference) if self.lengths is None else _pick(self.lengths, comparisons)
        if objective.kind == "sft":
            first = slice(0, 1)
            losses = objective(
                policy[:, first], reference[:, first], lengths[:, first], self.beta, **self.options
            )
            return losses[:, 0]
        labels = _ranks(policy) if objective.kind == "ranking" else {}
        return objective(policy, reference, lengths, self.beta, **labels, **self.options)

    def loss(self, comparisons: Comparisons, log_policy: Cells) -> Number:
        """`Σ w ℓ`; comparisons of weight 0 count nothing."""
        return (comparisons.weight * self.losses(comparisons, log_policy)).sum()

    def scale(self, comparisons: Comparisons) -> float:
        """The size of the loss's gradients at the reference, before those of different comparisons cancel."""
        policy = _pick(self.log_reference, comparisons).requires_grad_(True)
        total = (comparisons.weight * self.pair_losses(policy, comparisons)).sum()
        (gradient,) = torch.autograd.grad(total, policy)
        return float(gradient.norm(dim=1).sum())


def _pick(table: Cells, comparisons: Comparisons) -> Tensor:
    places = torch.stack([comparisons.winner, comparisons.loser], dim=1)
    return table[comparisons.prompt.unsqueeze(1), places]


def _ranks(policy: Tensor) -> dict[str, Tensor]:
    """A pair as a ranking of two."""
    return {
        "mask": torch.ones(policy.shape, dtype=torch.bool),
        "ranks": torch.tensor([0, 1]).expand(policy.shape),
    }


@dataclass(frozen=True, kw_only=True)
class Descent:
    """Where a descent on a population loss ended."""

    log_policy: Cells
    """The policy there; where there is no minimum, the last one on the way to infinity."""
    parameters: Vector
    loss: float
    gradient_norm: float
    outcome: Outcome
    undetermined: int
    """Directions of the policy without curvature: the loss does not say where along them."""
    steps: int

    @property
    def is_finite(self) -> bool:
        """Whether the loss has a minimum, reached by a policy that is positive where the reference is."""
        return self.outcome in ("minimum", "kink")


def descend(training: Training, comparisons: Comparisons, *, family: Family | None = None) -> Descent:
    """Minimise the loss over all comparisons from the reference on; says so where no finite minimum exists.

    Args:
        training: the objective and what it reads.
        comparisons: a population, or a sample of one.
        family: the policies to choose from; a softmax table by default, which holds every policy on the support.

    >>> from likelier.objectives import resolve
    >>> from likelier.theory.comparisons import population
    >>> from likelier.theory.optimum import optimal_policy, total_variation
    >>> from likelier.theory.world import World
    >>> world = World.random(0)
    >>> training = Training(objective=resolve("sigmoid"), log_reference=world.log_reference, beta=0.5)
    >>> found = descend(training, population(world))
    >>> best = optimal_policy(world.log_reference, world.reward, 0.5)
    >>> found.outcome, bool((total_variation(found.log_policy, best) < 1e-10).all())
    ('minimum', True)
    """
    if family is not None:
        return _descend(training, comparisons, family)
    return _together(
        [_of_prompt(training, comparisons, index) for index in range(len(training.log_reference))]
    )


def _descend(training: Training, comparisons: Comparisons, family: Family) -> Descent:
    found = minimise(
        lambda parameters: training.loss(comparisons, family.log_policy(parameters)),
        family.start,
        scale=training.scale(comparisons),
        size=float(training.log_reference[training.log_reference > -torch.inf].abs().max().clamp(min=1.0)),
        reach=1e6 * max(1.0, 1.0 / training.beta),
    )
    return Descent(
        log_policy=family.log_policy(found.point),
        parameters=found.point,
        loss=found.value,
        gradient_norm=found.gradient_norm,
        outcome=found.outcome,
        undetermined=found.flat - family.redundant,
        steps=found.steps,
    )


def _of_prompt(training: Training, comparisons: Comparisons, index: int) -> Descent:
    """A table's prompts share no parameter: each is a small problem of its own, weighted as it is asked about."""
    rows = slice(index, index + 1)
    alone = replace(
        training,
        log_reference=training.log_reference[rows],
        lengths=None if training.lengths is None else training.lengths[rows],
    )
    family = softmax_table(alone.log_reference)
    asked = comparisons.prompt == index
    share = comparisons.weight[asked].sum()
    if float(share) == 0.0:
        return _as_it_was(family)
    own = Comparisons(
        prompt=torch.zeros_like(comparisons.prompt[asked]),
        winner=comparisons.winner[asked],
        loser=comparisons.loser[asked],
        weight=comparisons.weight[asked] / share,
    )
    found = _descend(alone, own, family)
    return replace(found, loss=float(share) * found.loss, gradient_norm=float(share) * found.gradient_norm)


def _as_it_was(family: Family) -> Descent:
    """Nothing was asked: the reference is as good as any other policy."""
    return Descent(
        log_policy=family.log_policy(family.start),
        parameters=family.start,
        loss=0.0,
        gradient_norm=0.0,
        outcome="minimum",
        undetermined=family.start.numel() - family.redundant,
        steps=0,
    )


_WORST_FIRST: tuple[Outcome, ...] = ("unbounded", "unattained", "undecided", "kink", "minimum")


def _together(parts: list[Descent]) -> Descent:
    outcomes = {part.outcome for part in parts}
    return Descent(
        log_policy=torch.cat([part.log_policy for part in parts]),
        parameters=torch.cat([part.parameters for part in parts]),
        loss=sum(part.loss for part in parts),
        gradient_norm=hypot(*(part.gradient_norm for part in parts)),
        outcome=next(outcome for outcome in _WORST_FIRST if outcome in outcomes),
        undetermined=sum(part.undetermined for part in parts),
        steps=sum(part.steps for part in parts),
    )
