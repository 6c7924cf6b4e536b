"""Packing: many token trees in one flat row of tokens, without padding.

    tree A: trunk a b, branches c d | e          flat row   a b c d e f g h i
    tree B: trunk f, branches g h | i            positions  0 1 2 3 2 0 1 2 1

Linear layers, norms and the head work on the flat row and never know. Only attention needs the tree, and gets
it as a list of `Span`s: where a node's tokens lie, and where those of its ancestors do.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from likelier.data.trees import Node, Tree
from likelier.errors import DataError


@dataclass(frozen=True, slots=True)
class Span:
    """The tokens of one node in the flat row, and the context they continue."""

    start: int
    stop: int
    context: tuple[tuple[int, int], ...]
    """`(start, stop)` of each ancestor, from the root down."""
    position: int
    """Logical position of the first token: the number of tokens in the context."""


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """Trees as one row of tokens. `T` tokens, `S` scored tokens, `B` branches.

    Scored tokens lie branch after branch, in the order of `trees` and of their branches.
    """

    trees: tuple[Tree, ...]
    input_ids: Tensor
    """`[1, T]` int64."""
    position_ids: Tensor | None
    """`[1, T]` int64, logical: a branch goes on counting where its trunk ended. None in an ordinary row."""
    spans: tuple[Span, ...]
    predictors: Tensor
    """`[S]` int64: the flat index whose hidden state predicts each scored token."""
    targets: Tensor
    """`[S]` int64: the scored tokens."""
    lengths: tuple[int, ...]
    """Per branch, its number of scored tokens; they sum to `S`."""
    ends: Tensor
    """`[B]` int64: the flat index of each branch's last token (its context's, where it is empty); −1 without any."""

    @property
    def num_tokens(self) -> int:
        """Tokens that the model reads."""
        return int(self.input_ids.shape[1])

    def to(self, device: torch.device) -> Pack:
        """The same pack with its tensors on `device`."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("input_ids", "position_ids", "predictors", "targets", "ends")
        }
        return replace(self, **moved)


def make_pack(trees: Sequence[Tree]) -> Pack:
    """Lay `trees` one after another in a flat row.

    The scored token at the start of a branch is predicted by the last token of its context; one without any
    context (an empty prompt, no BOS) must not be scored, and raises `ValueError`.

    >>> from likelier.data.trees import tree_of
    >>> pack = make_pack([tree_of([7, 8], [[1, 2], [3]])])
    >>> pack.input_ids.tolist(), pack.position_ids.tolist()
    ([[7, 8, 1, 2, 3]], [[0, 1, 2, 3, 2]])
    >>> pack.predictors.tolist(), pack.targets.tolist(), pack.lengths
    ([1, 2, 1], [1, 2, 3], (2, 1))
    >>> pack.ends.tolist()
    [3, 4]
    """
    spans: list[Span] = []
    predictors: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    lengths: list[int] = []
    ends: list[int] = []
    for tree in trees:
        own = _spans_of(tree, spans[-1].stop if spans else 0)
        spans += own
        for node in tree.branches:
            ends.append(_end_of(own[node]))
            where = _predictors_of(tree.nodes[node], own[node])
            predictors.append(where)
            targets.append(tree.nodes[node].tokens[tree.nodes[node].scored])
            lengths.append(len(where))
    tokens = np.concatenate([node.tokens for tree in trees for node in tree.nodes])
    positions = np.concatenate([np.arange(s.position, s.position + s.stop - s.start) for s in spans])
    return Pack(
        tuple(trees),
        torch.from_numpy(tokens.astype(np.int64))[None],
        torch.from_numpy(positions)[None],
        tuple(span for span in spans if span.stop > span.start),
        torch.from_numpy(np.concatenate(predictors).astype(np.int64)),
        torch.from_numpy(np.concatenate(targets).astype(np.int64)),
        tuple(lengths),
        torch.tensor(ends, dtype=torch.int64),
    )


def pack_trees(trees: Sequence[Tree], *, max_tokens: int) -> list[list[int]]:
    """Group `trees` into packs of at most `max_tokens` tokens; returns indices into `trees`.

    Longest first, each into the fullest pack that still has room: as few packs as that gives, then filled evenly,
    since memory is that of the largest. A tree over the budget stands alone (`split_tree` cuts it first). The same
    trees always give the same packs.

    >>> from likelier.data.trees import tree_of
    >>> pack_trees([tree_of([1] * n, [[2]]) for n in (3, 6, 2)], max_tokens=8)
    [[1], [0, 2]]
    """
    sizes = [tree.num_tokens for tree in trees]
    packs = _filled(sizes, max_tokens)
    even = math.ceil(sum(sizes) / max(1, len(packs)))
    for budget in (even + even * slack // 100 for slack in (1, 3, 6, 12, 25)):
        if budget < max_tokens and len(evener := _filled(sizes, budget)) == len(packs):
            return evener
    return packs


def _filled(sizes: Sequence[int], budget: int) -> list[list[int]]:
    packs: list[list[int]] = []
    # (tokens left, pack), sorted: the fullest pack with room is found by bisection.
    rooms: list[tuple[int, int]] = []
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        at = bisect.bisect_left(rooms, (sizes[index], -1))
        if at < len(rooms):
            room, pack = rooms.pop(at)
            packs[pack].append(index)
        else:
            room, pack = budget, len(packs)
            packs.append([index])
        bisect.insort(rooms, (room - sizes[index], pack))
    return packs


def split_tree(tree: Tree, *, max_tokens: int) -> list[Tree]:
    """`tree` in parts of at most `max_tokens` tokens, each with whole branches and the trunks they hang on.

    The parts hold the branches in order and carry no comparisons: they are for scoring, and the caller puts
    the numbers together. A single branch whose path is over the budget raises `DataError`.
    """
    if tree.num_tokens <= max_tokens:
        return [tree]
    parts: list[Tree] = []
    chosen: list[int] = []
    for branch in range(len(tree.branches)):
        if chosen and _tokens_on_paths(tree, [*chosen, branch]) > max_tokens:
            parts.append(subtree(tree, chosen))
            chosen = []
        chosen.append(branch)
        length = _tokens_on_paths(tree, [branch])
        if length > max_tokens:
            raise DataError(
                f"example {tree.id}: one answer with its prompt has {length} tokens, over --max-tokens"
                f" {max_tokens}; raise --max-tokens or set --max-length {max_tokens}"
            )
    return [*parts, subtree(tree, chosen)]


def subtree(tree: Tree, branches: Sequence[int]) -> Tree:
    """`tree` with only `branches` (indices into `tree.branches`) and the nodes that they hang on."""
    kept = sorted({node for branch in branches for node in tree.path(tree.branches[branch])})
    number = {node: i for i, node in enumerate(kept)}
    number[-1] = -1
    nodes = tuple(
        Node(number[tree.nodes[n].parent], tree.nodes[n].tokens, tree.nodes[n].scored) for n in kept
    )
    return Tree(tree.id, nodes, tuple(number[tree.branches[branch]] for branch in branches))


def _spans_of(tree: Tree, start: int) -> list[Span]:
    spans: list[Span] = []
    for node in tree.nodes:
        if node.parent < 0:
            context: tuple[tuple[int, int], ...] = ()
        else:
            above = spans[node.parent]
            context = above.context
            if above.stop > above.start:
                context = (*context, (above.start, above.stop))
        position = sum(stop - begin for begin, stop in context)
        spans.append(Span(start, start + len(node.tokens), context, position))
        start += len(node.tokens)
    return spans


def _end_of(span: Span) -> int:
    if span.stop > span.start:
        return span.stop - 1
    return span.context[-1][1] - 1 if span.context else -1


def _predictors_of(node: Node, span: Span) -> np.ndarray:
    where = np.flatnonzero(node.scored)
    predictors = span.start + where - 1
    if len(where) and where[0] == 0:
        if not span.context:
            raise ValueError("the first token of a tree has nothing before it and cannot be scored")
        predictors[0] = span.context[-1][1] - 1
    return predictors


def _tokens_on_paths(tree: Tree, branches: Sequence[int]) -> int:
    kept = {node for branch in branches for node in tree.path(tree.branches[branch])}
    return sum(len(tree.nodes[node].tokens) for node in kept)
