"""The training step: from the trees of a step to the gradient of its loss, and the figures that are logged.

The loss is `Σ w ℓ / Σ w` over the step's pairs (for SFT over its scored tokens), whatever the packs: the
denominator is known before the first forward, so packs only add up. A loss with a statistic over the step, and a
tree that is cut because it exceeds `max_tokens`, take two forwards: log-probs first, then the gradient through
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from likelier.data.trees import Tree
from likelier.errors import DataError, UsageError, WorkError, is_out_of_memory
from likelier.objectives import Objective, reward_metrics
from likelier.scoring.packing import make_pack, split_tree
from likelier.scoring.scorer import Scorer


@dataclass(frozen=True, slots=True)
class Loss:
    """An objective with its settings, as the step applies it."""

    objective: Objective
    beta: float
    options: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """What a loss is summed over, as indices into a flat list of branches. `n` items of `K` branches."""

    index: Tensor
    """`[n, K]` int64; column 0 chosen and 1 rejected for pairs."""
    weights: Tensor
    """`[n]` float64 (`[n, 1]` for sft)."""
    labels: dict[str, Tensor]
    """What the objective takes by keyword: `margin` for pairs, `mask` with `ranks` or `scores` for K-way."""


@dataclass(slots=True)
class StepResult:
    """Sums over the trees of a step, for the figures that are logged."""

    loss: float = 0.0
    rewards: list[Tensor] = field(default_factory=list)
    """Per part, `[pairs, 2]`."""
    logps: list[Tensor] = field(default_factory=list)

    def metrics(self) -> dict[str, float]:
        """The figures of the step, means over all its pairs."""
        result = {"loss": self.loss}
        if self.rewards:
            for name, values in reward_metrics(torch.cat(self.rewards)).items():
                result[name] = float(values.mean())
            chosen, rejected = torch.cat(self.logps).mean(0).tolist()
            result |= {"logps/chosen": chosen, "logps/rejected": rejected}
        return result


def items_of(trees: Sequence[Tree], objective: Objective) -> Items:
    """The pairs, rankings or branches of `trees` that `objective` compares; branches are counted through.

    Raises:
        DataError: margins with a loss that does not read them.
    """
    offsets = [0]
    for tree in trees:
        offsets.append(offsets[-1] + len(tree.branches))
    if objective.kind == "sft":
        index = torch.arange(offsets[-1])[:, None]
        weights = [tree.weight for tree in trees for _ in tree.branches]
        return Items(index, torch.tensor(weights, dtype=torch.float64)[:, None], {})
    if objective.kind == "pair":
        return _pairs(trees, offsets, objective)
    width = max(len(tree.branches) for tree in trees)
    rows, masks, labels = [], [], []
    name = "ranks" if objective.kind == "ranking" else "scores"
    for offset, tree in zip(offsets, trees, strict=False):
        count = len(tree.branches)
        rows.append([offset + k if k < count else offset for k in range(width)])
        masks.append([k < count for k in range(width)])
        labels.append([*getattr(tree, name), *[0] * (width - count)])
    dtype = torch.int64 if name == "ranks" else torch.float64
    keywords = {"mask": torch.tensor(masks), name: torch.tensor(labels, dtype=dtype)}
    return Items(
        torch.tensor(rows), torch.tensor([tree.weight for tree in trees], dtype=torch.float64), keywords
    )


def comparisons_of(trees: Sequence[Tree]) -> Tensor:
    """All ordered pairs as `[pairs, 2]` indices into the branches, counted through."""
    rows, offset = [], 0
    for tree in trees:
        rows += [(offset + c.chosen, offset + c.rejected) for c in tree.comparisons]
        offset += len(tree.branches)
    return torch.tensor(rows, dtype=torch.int64).view(-1, 2)


def step_denominator(trees: Sequence[Tree], objective: Objective) -> float:
    """`Σ w` over the step (for sft `Σ w · scored tokens`)."""
    items = items_of(trees, objective)
    lengths = _lengths(trees).index_select(0, items.index.flatten()).view(items.index.shape)
    return float(objective.denominators(items.weights, lengths).sum())


def step_gradient(
    scorer: Scorer,
    trees: Sequence[Tree],
    reference: Sequence[Tensor] | None,
    loss: Loss,
) -> StepResult:
    """Add the gradient of the step's loss to the parameters' `.grad`, and return its figures.

    Args:
        scorer: of the policy.
        trees: the step's, whole.
        reference: per tree, the reference's `[branches]` float64 log-probs; None for a reference-free loss.

    Raises:
        WorkError: a loss that is not finite; the message names the rows.
    """
    denominator = step_denominator(trees, loss.objective)
    budget = scorer.max_tokens
    cut = any(tree.num_tokens > budget for tree in trees)
    if cut or loss.objective.stepwise:
        return _two_pass(scorer, trees, reference, loss, denominator)
    result = StepResult()
    for indices in scorer.make_packs(trees):
        part = [trees[i] for i in indices]
        policy = scorer.branches(make_pack(part))
        known = None if reference is None else torch.cat([reference[i] for i in indices]).to(policy.device)
        value = part_loss(policy, known, part, loss, result) / denominator
        require_finite(value, "loss", part)
        _require_slope(value, loss)
        value.backward()
        result.loss += float(value.detach())
    return result


def part_loss(
    policy: Tensor, reference: Tensor | None, trees: Sequence[Tree], loss: Loss, result: StepResult
) -> Tensor:
    """`Σ w ℓ` over some trees of a step, from their branches' log-probs `[B]`; notes their figures in `result`.

    Raises:
        UsageError: the loss refused its inputs, failed, or returned another shape than one value per pair or tree.
    """
    items = items_of(trees, loss.objective)
    lengths = _lengths(trees).to(policy.device)
    index = items.index.to(policy.device)

    def gathered(values: Tensor) -> Tensor:
        # index_select: its backward is deterministic on two threads where indexing's is not.
        return values.index_select(0, index.flatten()).view(index.shape)

    labels = {name: value.to(policy.device) for name, value in items.labels.items()}
    chosen_reference = None if reference is None else gathered(reference)
    try:
        losses = loss.objective(
            gathered(policy), chosen_reference, gathered(lengths), loss.beta, **labels, **loss.options
        )
    except ValueError as error:
        raise UsageError(f"--loss {loss.objective.name}: {error}") from error
    except Exception as error:
        if is_out_of_memory(error):
            raise
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        raise UsageError(f"--loss {loss.objective.name} failed with {what} (--debug shows where)") from error
    _note(policy.detach(), reference, lengths, trees, loss, result)
    return (losses.double() * items.weights.to(policy.device)).sum()


def _two_pass(
    scorer: Scorer,
    trees: Sequence[Tree],
    reference: Sequence[Tensor] | None,
    loss: Loss,
    denominator: float,
) -> StepResult:
    """Log-probs of the whole step, the loss's gradient with respect to them, then that through a second forward."""
    scored = [torch.stack([logps.double().sum() for logps in branches]) for branches in scorer.score(trees)]
    policy = torch.cat(scored).to(scorer.device).requires_grad_()
    result = StepResult()
    known = None if reference is None else torch.cat(list(reference)).to(scorer.device)
    value = part_loss(policy, known, trees, loss, result) / denominator
    require_finite(value, "loss", trees)
    _require_slope(value, loss)
    (slopes,) = torch.autograd.grad(value, policy)
    result.loss = float(value.detach())
    parts: list[Tree] = []
    slope_of: list[Tensor] = []
    offset = 0
    for tree in trees:
        for part in split_tree(tree, max_tokens=scorer.max_tokens):
            parts.append(part)
            slope_of.append(slopes[offset : offset + len(part.branches)])
            offset += len(part.branches)
    for indices in scorer.make_packs(parts):
        logps = scorer.branches(make_pack([parts[i] for i in indices]))
        (logps * torch.cat([slope_of[i] for i in indices])).sum().backward()
    return result


def _pairs(trees: Sequence[Tree], offsets: Sequence[int], objective: Objective) -> Items:
    compared = [c for tree in trees for c in tree.comparisons]
    weights = torch.tensor([c.weight for c in compared], dtype=torch.float64)
    labels = {}
    if any(c.margin for c in compared):
        if "margin" not in objective.options:
            raise DataError(
                f"the data has `margin`s, which the loss `{objective.name}` does not read;"
                " drop that column or use a loss that does (sigmoid)"
            )
        labels["margin"] = torch.tensor([c.margin for c in compared], dtype=torch.float64)
    return Items(comparisons_of(trees), weights, labels)


def _note(
    policy: Tensor,
    reference: Tensor | None,
    lengths: Tensor,
    trees: Sequence[Tree],
    loss: Loss,
    result: StepResult,
) -> None:
    pairs = comparisons_of(trees).to(policy.device)
    if len(pairs) == 0:
        return
    rewards = loss.objective.rewards(policy, reference, lengths, loss.beta)
    result.rewards.append(rewards[pairs].cpu())
    result.logps.append(policy[pairs].cpu())


def _lengths(trees: Sequence[Tree]) -> Tensor:
    counts = [tree.branch_length(branch) for tree in trees for branch in range(len(tree.branches))]
    return torch.tensor(counts, dtype=torch.int64)


def _require_slope(value: Tensor, loss: Loss) -> None:
    if not value.requires_grad:
        raise UsageError(
            f"--loss {loss.objective.name} does not depend on the policy's log-probs, so it teaches nothing:"
            " compute it from `policy`, without detach or no_grad"
        )


def require_finite(value: Tensor, what: str, trees: Sequence[Tree]) -> None:
    """Raises `WorkError`, naming rows, where the loss or the gradient norm of `trees` is not a number."""
    if not torch.isfinite(value):
        rows = ", ".join(tree.id for tree in trees[:8])
        more = f" and {len(trees) - 8} more" if len(trees) > 8 else ""
        raise WorkError(
            f"the {what} is {float(value.detach())} in the rows {rows}{more}; the model is as it was before this step:"
            " lower --learning-rate or look at these rows with `likelier check`"
        )
