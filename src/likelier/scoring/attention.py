"""Tree attention: every node attends to its ancestors and, causally, to itself.

Registered with transformers as the attention function `likelier_tree`, so that any decoder that takes a
custom attention function reads trees. The tree travels with the call, as an attribute of the attention mask
(a four-dimensional bool tensor, which the mask code hands through untouched), never in a global: gradient
checkpointing and two models in one process stay right.

Two exact forms:
- `BlockedAttention`: plain matrix products, block of queries by block of queries. A block's shapes depend on
  its own branch and trunk alone, so on CPU its numbers are the same bits whatever else is in the pack. It
  takes any precision, soft-capping and sliding windows, and its backward recomputes the probabilities.
- on CUDA in half precision, the variable-length kernel of PyTorch, with the trunk's keys expanded per branch.

Departs from the usual flash attention on CPU on purpose: its bfloat16 backward takes six times as long as
this one at the lengths of preference data (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from likelier.scoring.packing import Span

ATTENTION = "likelier_tree"
_QUERY_BLOCK = 128
"""Queries per block: bounds the memory of the scores at [heads, 128, context] for long answers."""


class TreePlan:
    """The spans of one pack, as attention reads them; `carrier()` makes the mask that brings it there."""

    def __init__(self, spans: tuple[Span, ...]) -> None:
        self.spans = spans
        self.calls = 0
        """How often attention was computed from this plan: the check at load counts one per layer."""
        self._varlen: tuple[Tensor, Tensor, Tensor, int, int] | None = None

    def carrier(self, device: torch.device) -> Tensor:
        """A `[1, 1, 1, 1]` bool mask with this plan on it."""
        mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)
        mask.tree = self  # type: ignore[attr-defined]
        return mask

    def varlen(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, int, int]:
        """For a variable-length kernel: key index, cumulative query and key lengths, the longest of both."""
        if self._varlen is None:
            keys = [[*span.context, (span.start, span.stop)] for span in self.spans]
            index = torch.cat([torch.arange(a, b) for path in keys for a, b in path])
            num_queries = [span.stop - span.start for span in self.spans]
            num_keys = [sum(b - a for a, b in path) for path in keys]
            query_ends, key_ends = (
                torch.tensor([0, *n], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)
                for n in (num_queries, num_keys)
            )
            self._varlen = (index.to(device), query_ends, key_ends, max(num_queries), max(num_keys))
        return self._varlen


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention over the tree that `attention_mask` carries; ordinary sdpa when it carries none.

    Args:
        query: `[1, heads, T, D]`; key: `[1, key heads, T, D]`; value: `[1, key heads, T, Dv]`.
        sliding_window: keys seen, in logical positions, the query's own included.

    Returns:
        `[1, T, heads, Dv]`, and None where transformers expects weights.
    """
    plan: TreePlan | None = getattr(attention_mask, "tree", None)
    if plan is None:
        if softcap is not None:
            raise ValueError(
                "soft-capped attention outside a tree: load the model with attn_implementation='eager'"
            )
        window = {} if sliding_window is None else {"sliding_window": sliding_window}
        ordinary: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **window, **kwargs
        )
        return ordinary
    plan.calls += 1
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    if _takes_varlen(query, value, softcap):
        return _varlen_attention(query, key, value, plan, scale, sliding_window), None
    out: Tensor = BlockedAttention.apply(  # type: ignore[no-untyped-call]
        query[0], key[0], value[0], plan.spans, scale, sliding_window, softcap
    )
    return out[None], None


class BlockedAttention(torch.autograd.Function):
    """`[heads, T, D]`, `[key heads, T, D]`, `[key heads, T, Dv]` -> `[T, heads, Dv]`, block by block.

    Queries that share a key head lie side by side, token after token, so that a block of them is one matrix without
    a copy. They, keys and values are kept as they come; the products are in float32 or wider, since half precision
    would round the scores and is no faster at these shapes. The result is what a product reads next, as `value` was.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        spans: tuple[Span, ...],
        scale: float,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        (heads, size, depth), (groups, _, width) = query.shape, value.shape
        kept = query.new_empty(groups, size, heads // groups, depth)
        kept.copy_(query.unflatten(0, (groups, -1)).transpose(1, 2))
        key, value = key.contiguous(), value.contiguous()
        ctx.save_for_backward(kept, key, value)
        ctx.spans, ctx.scale, ctx.window, ctx.softcap = spans, scale, window, softcap
        out = value.new_empty(size, groups, heads // groups, width)
        queries, key, value = _widened(kept, key, value, scale)
        for span in spans:
            keys, values = _along_path(key, span), _along_path(value, span)
            for block in _blocks(span, window):
                start, stop, low, high = block
                _, weights = _weights(_rows(queries, size, block), keys, span, block, window, softcap)
                result = torch.bmm(weights, values[:, low:high])
                out[start:stop] = result.unflatten(1, (stop - start, -1)).transpose(0, 1)
        return out.flatten(1, 2)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        kept, key, value = ctx.saved_tensors
        queries, key, value = _widened(kept, key, value, ctx.scale)
        groups, size = key.shape[:2]
        grad_queries = torch.empty_like(queries)
        grad_key, grad_value = torch.zeros_like(key), torch.zeros_like(value)
        grad_out = grad_out.to(value.dtype).unflatten(1, (groups, -1)).transpose(0, 1).flatten(1, 2)
        for span in ctx.spans:
            keys, values = _along_path(key, span), _along_path(value, span)
            with _summed(grad_key, span) as grad_keys, _summed(grad_value, span) as grad_values:
                for block in _blocks(span, ctx.window):
                    _, _, low, high = block
                    own, grad_block = _rows(queries, size, block), _rows(grad_out, size, block)
                    capped, weights = _weights(own, keys, span, block, ctx.window, ctx.softcap)
                    grad_values[:, low:high].baddbmm_(weights.transpose(1, 2), grad_block)
                    grad_weights = torch.bmm(grad_block, values[:, low:high].transpose(1, 2))
                    grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
                    if capped is not None:
                        grad_scores = grad_scores * (1 - (capped / ctx.softcap).square())
                    grad_keys[:, low:high].baddbmm_(grad_scores.transpose(1, 2), own)
                    _rows(grad_queries, size, block).copy_(torch.bmm(grad_scores, keys[:, low:high]))
        grad_query = grad_queries.mul_(ctx.scale).unflatten(1, (size, -1)).transpose(1, 2).flatten(0, 1)
        return grad_query, grad_key, grad_value, None, None, None, None


def _widened(queries: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """What the products read: scaled queries `[key heads, T × group, D]`, keys and values, float32 or wider."""
    wide = torch.promote_types(queries.dtype, torch.float32)
    return queries.flatten(1, 2).to(wide, copy=True).mul_(scale), key.to(wide), value.to(wide)


def _blocks(span: Span, window: int | None) -> list[tuple[int, int, int, int]]:
    """`(start, stop)` in the flat row and `(low, high)` in the path's keys, per block of a node's queries."""
    blocks = []
    for start in range(span.start, span.stop, _QUERY_BLOCK):
        stop = min(start + _QUERY_BLOCK, span.stop)
        first, last = span.position + start - span.start, span.position + stop - span.start
        blocks.append((start, stop, 0 if window is None else max(0, first - window + 1), last))
    return blocks


def _rows(matrix: Tensor, size: int, block: tuple[int, int, int, int]) -> Tensor:
    """The rows of a block's tokens in `[key heads, T × group, D]`."""
    group = matrix.shape[1] // size
    return matrix[:, block[0] * group : block[1] * group]


def _weights(
    queries: Tensor,
    keys: Tensor,
    span: Span,
    block: tuple[int, int, int, int],
    window: int | None,
    softcap: float | None,
) -> tuple[Tensor | None, Tensor]:
    """The soft-capped scores (None without a cap) and their softmax, `[key heads, queries × group, keys]`."""
    start, stop, low, high = block
    scores = torch.bmm(queries, keys[:, low:high].transpose(1, 2))
    capped = None
    if softcap is not None:
        capped = torch.tanh(scores / softcap) * softcap
        scores = capped.clone()
    first = span.position + start - span.start
    mask = _band(stop - start, high - low, first - low, window, scores.dtype, scores.device)
    scores.unflatten(1, (stop - start, -1)).add_(mask[:, None])
    return capped, torch.softmax(scores, -1)


@lru_cache(maxsize=512)
def _band(
    queries: int, keys: int, first: int, window: int | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """The additive mask `[queries, keys]`: query i stands at position `first + i` of the keys' path."""
    query = torch.arange(first, first + queries, device=device)[:, None]
    key = torch.arange(keys, device=device)[None]
    hidden = key > query
    if window is not None:
        hidden |= key <= query - window
    return torch.zeros(queries, keys, dtype=dtype, device=device).masked_fill_(hidden, float("-inf"))


def _ranges(span: Span) -> list[tuple[int, int]]:
    """Where the tokens from the root to the end of `span` lie; neighbours are one range."""
    ranges = [(span.start, span.stop)]
    for start, stop in reversed(span.context):
        if stop == ranges[0][0]:
            ranges[0] = (start, ranges[0][1])
        else:
            ranges.insert(0, (start, stop))
    return ranges


def _along_path(heads: Tensor, span: Span) -> Tensor:
    """The rows of `[heads, T, D]` from the root to the end of `span`."""
    parts = [heads[:, start:stop] for start, stop in _ranges(span)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


@contextmanager
def _summed(total: Tensor, span: Span) -> Iterator[Tensor]:
    """Gradients along a path, to be added to; they go back to their nodes in the order of the spans."""
    ranges = _ranges(span)
    if len(ranges) == 1:
        yield total[:, slice(*ranges[0])]
        return
    path = total.new_zeros(total.shape[0], sum(stop - start for start, stop in ranges), total.shape[2])
    yield path
    offset = 0
    for start, stop in ranges:
        total[:, start:stop] += path[:, offset : offset + stop - start]
        offset += stop - start


def _takes_varlen(query: Tensor, value: Tensor, softcap: float | None) -> bool:
    half = query.dtype in (torch.bfloat16, torch.float16) or value.dtype in (torch.bfloat16, torch.float16)
    return query.is_cuda and half and softcap is None and query.shape[-1] == value.shape[-1]


def _varlen_attention(
    query: Tensor, key: Tensor, value: Tensor, plan: TreePlan, scale: float, window: int | None
) -> Tensor:
    """The same through PyTorch's variable-length kernel, causal from the bottom right."""
    from torch.nn.attention.varlen import varlen_attn

    dtype = value.dtype if value.dtype in (torch.bfloat16, torch.float16) else query.dtype
    group = query.shape[1] // key.shape[1]
    index, query_ends, key_ends, longest_query, longest_keys = plan.varlen(query.device)
    # index_select, not indexing: its backward is deterministic. Heads are repeated since `enable_gqa` came
    # after torch 2.11.
    keys, values = (
        heads[0].to(dtype).repeat_interleave(group, 0).transpose(0, 1).index_select(0, index)
        for heads in (key, value)
    )
    out: Tensor = varlen_attn(  # type: ignore[assignment]
        query[0].to(dtype).transpose(0, 1).contiguous(),
        keys.contiguous(),
        values.contiguous(),
        query_ends,
        key_ends,
        longest_query,
        longest_keys,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
    )
    return out[None]


AttentionInterface.register(ATTENTION, tree_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
