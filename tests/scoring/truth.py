"""The truth of promise 1: each branch an ordinary unpadded row through plain transformers.

`eager` takes its softmax in float32 and sdpa knows no soft-cap, so the rows go through an attention of plain
matrix products with the softmax in the precision of the scores. It shares no line with the package: it reads no
mask, and builds causality and the sliding window from the row's own positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from likelier.data.trees import Tree

TRUTH = "truth_of_tests"
CALLS: list[nn.Module] = []
"""The layers that called the attention below: proof that they did."""


def plain_attention(
    module, query, key, value, attention_mask, scaling=None, sliding_window=None, softcap=None, **kwargs
):
    """`softmax(q kᵀ · scale) v` over whole rows: `[1, heads, T, D]` -> `[1, T, heads, Dv]`."""
    CALLS.append(module)
    group = query.shape[1] // key.shape[1]
    key, value = (heads.repeat_interleave(group, dim=1) for heads in (key, value))
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    position = torch.arange(query.shape[2])
    distance = position[:, None] - position[None, :]
    seen = distance >= 0
    if sliding_window is not None:
        seen &= distance < sliding_window
    weights = torch.softmax(scores.masked_fill(~seen, float("-inf")), dim=-1)
    return (weights @ value).transpose(1, 2), None


AttentionInterface.register(TRUTH, plain_attention)
AttentionMaskInterface.register(TRUTH, eager_mask)


@dataclass(frozen=True)
class Numbers:
    """Log-probs of the scored tokens, branch after branch, and gradients of `(weights · logps).sum()`."""

    logps: list[Tensor]
    gradients: list[Tensor | None]


def plain_row(model: nn.Module, tree: Tree, branch: int) -> Tensor:
    """Log-probs of one branch's scored tokens: the row is its path's tokens, and nothing else."""
    path = [tree.nodes[node] for node in tree.path(tree.branches[branch])]
    row = torch.from_numpy(np.concatenate([node.tokens for node in path]).astype(np.int64))
    before = sum(len(node.tokens) for node in path[:-1])
    where = before + torch.from_numpy(np.flatnonzero(path[-1].scored))
    if not len(where):
        return torch.zeros(0, dtype=next(model.parameters()).dtype)
    logits = model(input_ids=row[None], use_cache=False).logits[0]
    logps = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    return logps[where - 1, row[where]]


def plain_rows(model: nn.Module, trees: list[Tree]) -> list[Tensor]:
    """Log-probs of every branch of `trees`, in order."""
    return [plain_row(model, tree, branch) for tree in trees for branch in range(len(tree.branches))]


def truth_of(model: PreTrainedModel, trees: list[Tree], *, gradients: bool = True) -> Numbers:
    """The truth for `trees`; models that take an attention function get the one above."""
    own = model.config._attn_implementation
    if takes_attention_function(model):
        model.set_attn_implementation(TRUTH)
    try:
        return with_gradients(model, plain_rows(model, trees), wanted=gradients)
    finally:
        model.set_attn_implementation(own)


def with_gradients(model: nn.Module, logps: list[Tensor], *, wanted: bool = True) -> Numbers:
    """`logps` with the gradients of a weighted sum that no two tokens enter alike."""
    parameters = list(model.parameters())
    if not wanted:
        return Numbers([part.detach() for part in logps], [None] * len(parameters))
    flat = torch.cat(logps)
    weights = torch.linspace(-1, 1, len(flat), dtype=flat.dtype) + 0.1
    # Parameters that are frozen have no gradient, here or anywhere.
    trained = [p for p in parameters if p.requires_grad]
    found = iter(torch.autograd.grad((flat * weights).sum(), trained, allow_unused=True))
    gradients = [next(found) if p.requires_grad else None for p in parameters]
    return Numbers([part.detach() for part in logps], gradients)


def takes_attention_function(model: PreTrainedModel) -> bool:
    """Whether transformers lets this family's attention be replaced."""
    return bool(getattr(model, "_supports_attention_backend", False))


def logp_error(ours: list[Tensor], expected: list[Tensor]) -> float:
    """The largest relative error of a branch's log-prob; branches without scored tokens have none."""
    pairs = [(o.double().sum(), e.double().sum()) for o, e in zip(ours, expected, strict=True) if len(e)]
    return max(float(((o - e) / e).abs().detach()) for o, e in pairs)


def token_error(ours: list[Tensor], expected: list[Tensor]) -> float:
    """`‖Δ‖/‖·‖` over all tokens: nothing cancels in it."""
    o, e = torch.cat(ours).detach().double(), torch.cat(expected).detach().double()
    return float((o - e).norm() / e.norm())


def gradient_error(ours: list[Tensor | None], expected: list[Tensor | None]) -> float:
    """`‖Δg‖/‖g‖` over all parameters; an absent gradient is zero."""
    difference = total = 0.0
    for o, e in zip(ours, expected, strict=True):
        if o is None and e is None:
            continue
        o, e = (torch.zeros_like(e if o is None else o) if g is None else g for g in (o, e))
        difference += float((o - e).double().square().sum())
        total += float(e.double().square().sum())
    return (difference / total) ** 0.5
