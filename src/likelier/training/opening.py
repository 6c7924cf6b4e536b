"""What is settled and said before step 0: tokens per forward, the work ahead, and settings that would be in vain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from likelier.data.trees import Tree
from likelier.errors import UsageError
from likelier.training.announcement import Outlook, cannot_move, paragraph
from likelier.training.config import TrainingConfig
from likelier.training.estimate import flops, product_rate
from likelier.training.expectation import expected_seconds
from likelier.training.journal import Journal
from likelier.training.memory import available_memory, choose_max_tokens, longest_path, memory
from likelier.training.method import Method
from likelier.training.plan import Plan
from likelier.training.policy import Policy
from likelier.training.preparation import Data


@dataclass(frozen=True, slots=True)
class Opening:
    """What is known of a run before its first step."""

    paragraph: str
    notes: list[str]
    warnings: list[str]
    flops_per_token: float
    product_rate: float

    def tell(self, journal: Journal) -> None:
        """Say it all; warnings are kept."""
        for text in (self.paragraph, *self.notes):
            journal.say(text)
        for text in self.warnings:
            journal.warn(text)


def open_run(
    config: TrainingConfig,
    policy: Policy,
    data: Data,
    plan: Plan,
    method: Method,
    *,
    parameters: Sequence[Tensor],
    before: Any = None,
) -> Opening:
    """Choose the tokens per forward (set in the policy's scorer), and say what the run will do.

    Args:
        parameters: what trains.
        before: the tokens per forward of the run that is resumed. They are chosen once: another split of a step
            would sum its gradient in another order.
    """
    scorer = policy.scorer
    grown = method.grown(plan.trees)
    needed = memory(
        policy.model,
        dtype=scorer.dtype,
        optimizer=config.optimizer,
        trainable=parameters,
        checkpointing=config.gradient_checkpointing,
    )
    scorer.max_tokens = (
        config.max_tokens
        or _known(before)
        or _fitting(needed, [*grown, *method.grown(data.evaluation)], scorer.device)
    )
    epoch = flops(policy.model, grown, training=True)
    epochs = plan.total / plan.order.total(1)
    work = method.passes * epoch * epochs + _forwards(config, policy, data, plan, method)
    rate = product_rate(policy.model, rows=scorer.max_tokens, dtype=scorer.dtype)
    updated = sum(parameter.numel() for parameter in parameters) * plan.total * method.num_updates
    outlook = _outlook(
        config, policy, plan, method, grown, work=work, rate=rate, updated=updated, needed=needed
    )
    warning = cannot_move(policy.model, learning_rates=_rates(plan, method), dtype=scorer.dtype)
    return Opening(
        paragraph(outlook),
        list(method.costs(grown, scorer.max_tokens)),
        [warning] if warning else [],
        epoch / max(1, sum(tree.num_tokens for tree in grown)),
        rate,
    )


def _fitting(needed: Mapping[str, int], trees: Sequence[Tree], device: torch.device) -> int:
    """Tokens per forward that the memory holds, at least those of the longest branch with its prompt."""
    return choose_max_tokens(
        needed, longest=longest_path(trees), device=device, available=available_memory(device)
    )


def _outlook(
    config: TrainingConfig,
    policy: Policy,
    plan: Plan,
    method: Method,
    grown: Sequence[Tree],
    *,
    work: float,
    rate: float,
    updated: int,
    needed: Mapping[str, int],
) -> Outlook:
    """What the paragraph is made of; `updated` counts the parameters of all updates."""
    scorer = policy.scorer
    return Outlook(
        steps=plan.total,
        unit=method.unit,
        batch_size=config.batch_size,
        epochs=plan.total / plan.order.total(1),
        trees=grown,
        at_most=grown is not plan.trees,
        model=policy.model,
        lora_rank=config.lora_rank,
        reference=method.held_to,
        precision=policy.precision,
        way=policy.choice.way,
        max_tokens=scorer.max_tokens,
        work=work,
        rate=rate,
        seconds=expected_seconds(
            work, rate=rate, updated=updated, device=scorer.device, threads=torch.get_num_threads()
        ),
        memory=needed,
    )


def _rates(plan: Plan, method: Method) -> list[float]:
    """The learning rate of every update."""
    return [plan.rate(step) for step in range(plan.total) for _ in range(method.num_updates)]


def _forwards(config: TrainingConfig, policy: Policy, data: Data, plan: Plan, method: Method) -> float:
    """FLOP of the passes without a gradient: the reference's, once, and every evaluation's."""
    visited = [plan.trees[i] for i in plan.visited()]
    evaluation = flops(policy.model, method.grown(data.evaluation), training=False)
    evaluations = 1 if config.eval_every is None else 1 + -(-plan.total // config.eval_every)
    once = 0.0
    if method.held_to is not None and method.scored_first:
        once = flops(policy.model, visited, training=False) + evaluation
    return once + evaluations * evaluation


def _known(before: Any) -> int | None:
    if before is None or (isinstance(before, int) and before > 0):
        return before
    raise UsageError(
        f"--resume: max_tokens in the run's config.yaml is {before!r}, no number of tokens; put back what it was,"
        " or give --max-tokens"
    )
