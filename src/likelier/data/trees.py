"""Token trees: the prompt is the trunk, the completions are the branches.

A node has a parent, so a trunk may hang on a trunk; nothing here assumes depth two. A branch is a leaf; its
log-probability is the sum over the scored tokens on its own node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TokenArray = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A run of tokens that continues its parent's."""

    parent: int
    """Index of the parent in `Tree.nodes`, always smaller than the node's own; -1 for a root."""
    tokens: TokenArray
    scored: BoolArray
    """Which of `tokens` are predicted and trained on; all False in a trunk."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """`chosen` is preferred to `rejected`; both are indices into `Tree.branches`."""

    chosen: int
    rejected: int
    weight: float = 1.0
    margin: float = 0.0
    record: int = -1
    """Index of the record it came from, in the order read."""


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """A prompt and its completions, as tokens, with what is known of their order."""

    id: str
    nodes: tuple[Node, ...]
    branches: tuple[int, ...]
    """The node of each branch, in the order of the completions."""
    comparisons: tuple[Comparison, ...] = ()
    """Every strictly ordered pair of branches (one, for a pair)."""
    ranks: tuple[int, ...] | None = None
    """Per branch, 0 for the best; tied branches share a rank. For losses over a ranking."""
    scores: tuple[float, ...] | None = None
    """Per branch. For losses over scores."""
    sources: tuple[tuple[tuple[int, int], ...], ...] = ()
    """Per branch, the (record index, completion index) of every record that it stands for."""
    weight: float = 1.0
    """The weight of the tree's ranking or SFT term; comparisons carry their own."""

    @property
    def num_tokens(self) -> int:
        """Tokens that the model reads for this tree: each node once."""
        return sum(len(node.tokens) for node in self.nodes)

    def path(self, node: int) -> tuple[int, ...]:
        """The nodes from the root down to `node`, which comes last."""
        path = [node]
        while self.nodes[path[0]].parent >= 0:
            path.insert(0, self.nodes[path[0]].parent)
        return tuple(path)

    def branch_length(self, branch: int) -> int:
        """Scored tokens of a branch: the |y| of the losses."""
        return int(self.nodes[self.branches[branch]].scored.sum())


def tree_of(
    trunk: Sequence[int], branches: Sequence[Sequence[int]], *, id: str = "0", **more: object
) -> Tree:
    """A tree of depth two whose branch tokens are all scored.

    >>> tree = tree_of([1, 2], [[3, 4], [5]])
    >>> tree.num_tokens, tree.path(2), tree.branch_length(0)
    (5, (0, 2), 2)
    """
    root = Node(-1, np.asarray(trunk, np.int32), np.zeros(len(trunk), np.bool_))
    leaves = [Node(0, np.asarray(b, np.int32), np.ones(len(b), np.bool_)) for b in branches]
    return Tree(id, (root, *leaves), tuple(range(1, len(leaves) + 1)), **more)  # type: ignore[arg-type]
