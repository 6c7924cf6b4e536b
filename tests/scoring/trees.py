"""Token trees for the tests of scoring: the shapes that matter, and random ones."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from likelier.data.trees import Node, Tree, tree_of

VOCAB = 128


def random_tree(seed, trunk, branches, *, id="tree", unscored=0.0, vocab=VOCAB):
    """A tree of depth two over random tokens; a share `unscored` of the branches' tokens is not scored."""
    rng = np.random.default_rng(seed)
    tokens = [rng.integers(3, vocab, size).astype(np.int32) for size in (trunk, *branches)]
    nodes = [Node(-1, tokens[0], np.zeros(trunk, np.bool_))]
    for part in tokens[1:]:
        scored = rng.random(len(part)) >= unscored
        if trunk == 0 and len(part):
            scored[0] = False
        nodes.append(Node(0, part, scored))
    return Tree(id, tuple(nodes), tuple(range(1, len(nodes))))


def nested_tree(seed, *, vocab=VOCAB):
    """Trunk on trunk on trunk, an empty trunk between; branches hang at depths one, two and four."""
    rng = np.random.default_rng(seed)

    def node(parent, size, scored):
        return Node(parent, rng.integers(3, vocab, size).astype(np.int32), np.full(size, scored))

    nodes = (
        node(-1, 9, False),
        node(0, 5, True),
        node(0, 7, False),
        node(2, 6, True),
        node(2, 0, False),
        node(4, 4, False),
        node(5, 3, True),
        node(5, 11, True),
    )
    return Tree("nested", nodes, (1, 3, 6, 7))


def example_trees():
    """One, two, three and eight branches; no trunk, one token, long; past the window (8) and the query block (128)."""
    return [
        random_tree(0, 0, [7], id="no trunk"),
        random_tree(1, 1, [4, 12], id="trunk of one token"),
        random_tree(2, 21, [5, 12, 3], id="three"),
        random_tree(3, 6, range(1, 9), id="eight"),
        nested_tree(4),
        random_tree(5, 30, [10, 14], id="some unscored", unscored=0.5),
        random_tree(6, 140, [300, 2], id="past the query block"),
    ]


@st.composite
def trees(draw, *, max_nodes=7, max_length=12, vocab=VOCAB):
    """Random trees of any depth, empty nodes, repeated parents and unscored runs included."""
    size = draw(st.integers(1, max_nodes))
    parents = [-1] + [draw(st.integers(0, index - 1)) for index in range(1, size)]
    lengths = [draw(st.integers(0, max_length)) for _ in range(size)]
    leaves = [index for index in range(size) if index not in parents]
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    nodes = []
    for index, (parent, length) in enumerate(zip(parents, lengths, strict=True)):
        scored = rng.random(length) < draw(st.sampled_from([0.0, 0.5, 1.0]))
        if index not in leaves:
            scored[:] = False
        elif length and not _context(parents, lengths, index):
            scored[0] = False
        nodes.append(Node(parent, rng.integers(0, vocab, length).astype(np.int32), scored))
    order = draw(st.permutations(leaves))
    return Tree(f"random {seed}", tuple(nodes), tuple(order))


def _context(parents, lengths, index):
    """Tokens before a node."""
    total, above = 0, parents[index]
    while above >= 0:
        total, above = total + lengths[above], parents[above]
    return total


__all__ = ["example_trees", "nested_tree", "random_tree", "tree_of", "trees"]
