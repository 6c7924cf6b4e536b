"""Log-probs and entropies of next-token distributions through the head, a block of rows at a time, with gradients.

As `head.py`, whose log-probs these are bit for bit; the entropy costs a pass over logits that are there anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from likelier.scoring.head import (
    ELEMENT_ROWS,
    LogitShape,
    logit_blocks,
    through_head,
    whole_blocks,
    wide_dtype,
)
from likelier.scoring.weights import WorkingWeights

_LEAST_LOG = -1e30


@dataclass(frozen=True, slots=True, eq=False)
class TokenFigures:
    """What one forward says of a pack's scored tokens, each `[S]`, float32 or wider, with their gradients."""

    logps: Tensor
    """`log π(y_t | x, y_<t)`, as `Scorer.token_logps` gives it."""
    entropies: Tensor
    """Of the distribution that y_t is drawn from, in nats."""
    values: Tensor | None
    """Of the state in which y_t is drawn; None without a value head."""


class TokenDistribution(torch.autograd.Function):
    """`log p[target]` and `−Σ p log p`, `p = softmax(shape(h Wᵀ + b))`: hidden `[S, D]`, targets `[S]` -> two of `[S]`.

    `parameters` are those of `weights`, the head's working copy; `trained` says whether a backward may follow.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weights: WorkingWeights,
        targets: Tensor,
        shape: LogitShape,
        trained: bool,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        rows, targets, kept = whole_blocks(ctx, hidden, targets, weights, shape, trained=trained)
        logps = rows.new_empty(len(rows), dtype=wide_dtype(weights.dtype))
        entropies = torch.empty_like(logps)
        for block, logits in logit_blocks(rows, targets, weights, shape, into=kept):
            peak = logits.amax(1, keepdim=True)
            target = logits.gather(1, targets[block, None])[:, 0] - peak[:, 0]
            below = logits.sub_(peak)
            powers = below.exp()
            total = powers.sum(1)
            normalizer = total.log()
            logps[block] = target - normalizer
            # 0 log 0 is 0.
            entropies[block] = normalizer - powers.mul_(below.clamp_(min=_LEAST_LOG)).sum(1) / total
        ctx.save_for_backward(rows, targets, entropies)
        return logps[: len(hidden)], entropies[: len(hidden)]

    @staticmethod
    def backward(ctx: Any, grad_logps: Tensor, grad_entropies: Tensor) -> tuple[Any, ...]:
        rows, targets, entropies = ctx.saved_tensors
        slopes = F.pad(torch.stack([grad_logps, grad_entropies], 1), (0, 0, 0, ctx.spare))
        kept, ctx.kept = ctx.kept, None

        def of_logits(part: slice) -> Tensor:
            known = rows[part], targets[part], entropies[part], slopes[part]
            return _grad_logits(*known, ctx.weights, ctx.shape, kept)

        return through_head(ctx, rows, of_logits, whole=kept is not None)


def _grad_logits(
    rows: Tensor,
    targets: Tensor,
    entropies: Tensor,
    slopes: Tensor,
    weights: WorkingWeights,
    shape: LogitShape,
    kept: Tensor | None,
) -> Tensor:
    """`(onehot − p) · slope of the log-prob − p (log p + H) · slope of the entropy`, through the shape: `[S, V]`."""
    result = rows.new_empty(len(rows), len(weights.matrix)) if kept is None else kept
    entropic = bool(slopes[:, 1].any())
    for block, logits in logit_blocks(rows, targets, weights, shape, known=kept):
        of_logp, of_entropy = slopes[block].to(logits.dtype).split(1, dim=1)
        probabilities = torch.softmax(logits, 1)
        if entropic:
            surprise = (
                torch.log_softmax(logits, 1)
                .clamp_(min=_LEAST_LOG)
                .add_(entropies[block, None].to(logits.dtype))
            )
            grads = surprise.mul_(-of_entropy).sub_(of_logp).mul_(probabilities)
        else:
            grads = probabilities.mul_(-of_logp)
        grads.scatter_add_(1, targets[block, None], of_logp)
        result[block] = shape.backward_(grads, logits)
    return result


def token_entropies(logps: Tensor) -> Tensor:
    """`−Σ_v p_v log p_v` in nats along the last dimension of log-probs over a whole vocabulary.

    >>> round(token_entropies(torch.tensor([[0.5, 0.25, 0.25]]).log()).item(), 6)  # 1.5 bits
    1.039721
    """
    return -(logps.exp() * logps.clamp(min=_LEAST_LOG)).sum(-1)


def state_values(states: Tensor, head: nn.Linear) -> Tensor:
    """The head's output on hidden states `[S, D]` -> `[S]` float64, a row's bits whatever the others are."""
    # As in the head: over a single row a sum is shared out between threads, in another order.
    rows = F.pad(states, (0, 0, 0, -len(states) % ELEMENT_ROWS)).double()
    values = (rows * head.weight[0].double()).sum(1)[: len(states)]
    return values if head.bias is None else values + head.bias.double()
