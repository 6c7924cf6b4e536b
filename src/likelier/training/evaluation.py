"""Evaluation on held-out rows: figures over all rows, never means of batch means, with n and an interval."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from likelier.data.trees import Tree
from likelier.scoring.packing import make_pack
from likelier.scoring.scorer import Scorer
from likelier.stats import accuracy_interval, mean_interval
from likelier.training.step import Loss, StepResult, comparisons_of, part_loss, step_denominator


@torch.no_grad()
def evaluate(
    scorer: Scorer, trees: Sequence[Tree], reference: Sequence[Tensor] | None, loss: Loss
) -> dict[str, float | int | None]:
    """The loss and the rewards of `trees`, as `eval/…`; the accuracy's and margin's intervals are clustered by prompt.

    Args:
        reference: as in `step_gradient`.
    """
    policy = torch.cat(branch_numbers(scorer, trees))
    known = None if reference is None else torch.cat(list(reference))
    result = StepResult()
    total = part_loss(policy, known, trees, loss, result)
    result.loss = float(total) / step_denominator(trees, loss.objective)
    metrics: dict[str, float | int | None] = {f"eval/{k}": v for k, v in result.metrics().items()}
    metrics["eval/prompts"] = len(trees)
    if result.rewards:
        metrics |= _intervals(torch.cat(result.rewards), trees)
    return metrics


@torch.no_grad()
def branch_numbers(scorer: Scorer, trees: Sequence[Tree]) -> list[Tensor]:
    """Per tree what `Scorer.branches` gives, `[branches]` float64, on the CPU: the same bits whatever the packs."""
    sums: dict[int, Tensor] = {}
    for indices in scorer.make_packs(trees):
        part = [trees[i] for i in indices]
        # A tree over the budget goes in parts inside `score`; here its branches come back together.
        if any(tree.num_tokens > scorer.max_tokens for tree in part):
            for i, branches in zip(indices, scorer.score(part), strict=True):
                sums[i] = torch.stack([logps.double().sum() for logps in branches])
            continue
        pack = make_pack(part)
        counts = [len(tree.branches) for tree in part]
        sums |= dict(zip(indices, scorer.branches(pack).cpu().split(counts), strict=True))
    return [sums[i] for i in range(len(trees))]


def _intervals(rewards: Tensor, trees: Sequence[Tree]) -> dict[str, float | int | None]:
    margins = (rewards[:, 0] - rewards[:, 1]).double().numpy()
    prompts = [index for index, tree in enumerate(trees) for _ in tree.comparisons]
    assert len(prompts) == len(margins) == len(comparisons_of(trees))
    accuracy = accuracy_interval(margins, clusters=prompts)
    margin = mean_interval(margins, clusters=prompts)
    return {
        "eval/pairs": len(margins),
        "eval/rewards/accuracies": accuracy.value,
        "eval/rewards/accuracies/low": accuracy.low,
        "eval/rewards/accuracies/high": accuracy.high,
        "eval/rewards/margins/low": margin.low,
        "eval/rewards/margins/high": margin.high,
    }
