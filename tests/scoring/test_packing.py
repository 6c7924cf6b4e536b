"""Packing: every token once, positions logical, each scored token predicted by the one before it on its path."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likelier.data.trees import Node, Tree, tree_of
from likelier.errors import DataError
from likelier.scoring.packing import make_pack, pack_trees, split_tree, subtree
from tests.scoring.trees import nested_tree, random_tree, trees

FORESTS = st.lists(trees(), min_size=1, max_size=5)


def row_of(tree, branch):
    """A branch's ordinary row: its tokens, and which of them are scored."""
    path = [tree.nodes[node] for node in tree.path(tree.branches[branch])]
    tokens = np.concatenate([node.tokens for node in path])
    scored = np.concatenate([*(np.zeros(len(n.tokens), np.bool_) for n in path[:-1]), path[-1].scored])
    return tokens, scored


def branches_of(forest):
    return [(tree, branch) for tree in forest for branch in range(len(tree.branches))]


@settings(deadline=None)
@given(FORESTS)
def test_every_token_lies_in_the_row_once(forest):
    pack = make_pack(forest)
    nodes = [node for tree in forest for node in tree.nodes]
    assert pack.num_tokens == sum(tree.num_tokens for tree in forest) == pack.input_ids.shape[1]
    assert pack.input_ids[0].tolist() == [token for node in nodes for token in node.tokens.tolist()]
    # The spans cut the row from end to end; empty nodes have none.
    assert [(s.start, s.stop) for s in pack.spans] == cuts([len(node.tokens) for node in nodes])


def cuts(lengths):
    ends = np.cumsum(lengths).tolist()
    return [(end - length, end) for end, length in zip(ends, lengths, strict=True) if length]


@settings(deadline=None)
@given(FORESTS)
def test_context_and_position_are_those_of_the_path(forest):
    """Read back from the spans, each branch is its ordinary row, and its positions are 0, 1, 2 …"""
    pack = make_pack(forest)
    spans = {span.start: span for span in pack.spans}
    start = 0
    for tree in forest:
        starts = np.cumsum([start, *(len(node.tokens) for node in tree.nodes)])
        for number, branch in enumerate(tree.branches):
            if not len(tree.nodes[branch].tokens):
                continue
            span = spans[int(starts[branch])]
            where = [i for a, b in (*span.context, (span.start, span.stop)) for i in range(a, b)]
            assert pack.input_ids[0, where].tolist() == row_of(tree, number)[0].tolist()
            assert pack.position_ids[0, where].tolist() == list(range(len(where)))
            assert span.position == len(where) - (span.stop - span.start)
        start = int(starts[-1])


@settings(deadline=None)
@given(FORESTS)
def test_predictors_and_targets_are_those_of_the_rows(forest):
    pack = make_pack(forest)
    expected_targets, before = [], []
    for tree, branch in branches_of(forest):
        tokens, scored = row_of(tree, branch)
        where = np.flatnonzero(scored)
        expected_targets += tokens[where].tolist()
        before += [(tokens[i - 1], i - 1) for i in where]
    assert pack.targets.tolist() == expected_targets
    found = zip(
        pack.input_ids[0, pack.predictors].tolist(),
        pack.position_ids[0, pack.predictors].tolist(),
        strict=True,
    )
    assert list(found) == before
    assert pack.lengths == tuple(int(row_of(*where)[1].sum()) for where in branches_of(forest))
    assert sum(pack.lengths) == len(pack.targets) == len(pack.predictors)
    assert pack.targets.dtype == pack.predictors.dtype == pack.input_ids.dtype == torch.int64


def test_the_first_token_of_a_branch_is_predicted_by_the_last_of_its_trunk():
    """Past an empty node in between, and not by the end of the branch that lies before it."""
    nodes = [
        Node(-1, np.array([5, 6], np.int32), np.zeros(2, np.bool_)),
        Node(0, np.array([], np.int32), np.zeros(0, np.bool_)),
        Node(1, np.array([7, 8], np.int32), np.ones(2, np.bool_)),
        Node(1, np.array([9], np.int32), np.ones(1, np.bool_)),
    ]
    pack = make_pack([Tree("t", tuple(nodes), (2, 3))])
    assert pack.predictors.tolist() == [1, 2, 1]


def test_a_scored_first_token_has_nothing_to_predict_it():
    with pytest.raises(ValueError, match="nothing before it"):
        make_pack([tree_of([], [[1, 2]])])


@settings(deadline=None)
@given(FORESTS, st.integers(1, 60))
def test_packs_hold_every_tree_once_within_the_budget(forest, max_tokens):
    packs = pack_trees(forest, max_tokens=max_tokens)
    assert sorted(i for pack in packs for i in pack) == list(range(len(forest)))
    for pack in packs:
        total = sum(forest[i].num_tokens for i in pack)
        over = [i for i in pack if forest[i].num_tokens > max_tokens]
        assert total <= max_tokens or (len(over) == 1 and total == forest[over[0]].num_tokens)
    assert packs == pack_trees(forest, max_tokens=max_tokens)


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_packs_are_filled_well(sizes):
    """Best fit, longest first: no two packs could be one, and within 11/9 of the least possible (plus one)."""
    forest = [random_tree(0, size, [1]) for size in sizes]
    totals = [sum(forest[i].num_tokens for i in pack) for pack in pack_trees(forest, max_tokens=41)]
    assert all(a + b > 41 for i, a in enumerate(totals) for b in totals[:i])
    assert len(totals) <= 11 / 9 * np.ceil(sum(totals) / 41) * 1.5 + 1


@settings(deadline=None)
@given(trees(), st.integers(1, 60))
def test_parts_cover_the_branches_in_order(tree, max_tokens):
    longest = max(len(row_of(tree, branch)[0]) for branch in range(len(tree.branches)))
    if longest > max_tokens:
        with pytest.raises(DataError, match=rf"example {tree.id}: .* {max_tokens}"):
            split_tree(tree, max_tokens=max_tokens)
        return
    parts = split_tree(tree, max_tokens=max_tokens)
    assert all(part.num_tokens <= max_tokens for part in parts)
    rows = [row_of(part, branch) for part in parts for branch in range(len(part.branches))]
    assert len(rows) == len(tree.branches)
    for branch, (tokens, scored) in enumerate(rows):
        expected_tokens, expected_scored = row_of(tree, branch)
        assert np.array_equal(tokens, expected_tokens)
        assert np.array_equal(scored, expected_scored)
    # No part could have taken the next branch as well: prompts are repeated no more than they must.
    first = 0
    for part, following in pairwise(parts):
        taken = [*range(first, first + len(part.branches) + 1)]
        assert subtree(tree, taken).num_tokens > max_tokens
        first += len(part.branches)
        assert following.branches


def test_a_tree_within_the_budget_stays_itself():
    tree = nested_tree(0)
    assert split_tree(tree, max_tokens=tree.num_tokens) == [tree]


def test_a_branch_over_the_budget_names_the_remedy():
    with pytest.raises(DataError, match=r"example 7: .* has 9 tokens, over --max-tokens 8; .*--max-length 8"):
        split_tree(tree_of([1] * 5, [[2], [3] * 4], id="7"), max_tokens=8)


def test_subtree_keeps_only_what_its_branches_hang_on():
    tree = nested_tree(0)
    part = subtree(tree, [2, 0])
    assert part.branches == (5, 1)
    assert [len(node.tokens) for node in part.nodes] == [9, 5, 7, 0, 4, 3]
    assert [node.parent for node in part.nodes] == [-1, 0, 0, 2, 3, 4]


def test_a_pack_without_scored_tokens():
    pack = make_pack([tree_of([1, 2], [[]])])
    assert pack.lengths == (0,)
    assert pack.predictors.shape == pack.targets.shape == (0,)


def test_moving_a_pack_moves_its_tensors():
    pack = make_pack([nested_tree(0)]).to(torch.device("meta"))
    moved = (pack.input_ids, pack.position_ids, pack.predictors, pack.targets)
    assert {tensor.device.type for tensor in moved} == {"meta"}
