"""Rows to trees: what is shared, what is compared, how large groups are cut, and weights."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from likelier.data.encoding import encode
from likelier.data.grouping import cut_groups, num_pairs, weigh_prompts
from likelier.data.records import Completion, Record
from likelier.data.tokens import Tokenization
from likelier.data.trees import Tree, tree_of
from tests.data.tiny_tokenizers import byte_level, pair, single, trained

TOKENIZER = byte_level(None)
TOKENIZATION = Tokenization(TOKENIZER)


def answers(*texts: str, row: int = 1, prompt: str = "say", **more: Any) -> Record:
    completions = [Completion(content=text) for text in texts]
    return Record(file="d", row=row, id=str(row), prompt=prompt, completions=completions, **more)


def compared(tree: Tree) -> list[tuple[str, str, int]]:
    """(chosen text, rejected text, record) of every comparison."""
    text = [
        trained(tree, TOKENIZER, branch).removesuffix("<|im_end|>") for branch in range(len(tree.branches))
    ]
    return [(text[c.chosen], text[c.rejected], c.record) for c in tree.comparisons]


def test_rows_of_one_prompt_share_trunk_and_equal_answers() -> None:
    rows = [
        pair("say", " a", " b", row=1, weight=2.0, margin=0.5),
        pair("tell", " a", " b", row=2),
        pair("say", " b", " c", row=3),
    ]
    first, second = encode(rows, TOKENIZATION).trees
    assert compared(first) == [(" a", " b", 0), (" b", " c", 2)]
    assert [(c.weight, c.margin) for c in first.comparisons] == [(2.0, 0.5), (1.0, 0.0)]
    assert first.sources == (((0, 0),), ((0, 1), (2, 0)), ((2, 1),))
    assert first.ranks is None
    assert compared(second) == [(" a", " b", 1)]


def test_the_prompt_decides_what_is_gathered_and_not_the_id() -> None:
    """Rows of one id are not merged over different prompts, nor kept apart where only their ids differ."""
    rows = [
        answers(" a", " b", row=1, prompt="say", ranking=[[0], [1]]),
        answers(" c", " d", row=1, prompt="say ", ranking=[[0], [1]]),
        answers(" e", " f", row=1, prompt="say", ranking=[[0], [1]]),
        answers(" a", " g", row=2, prompt="say", ranking=[[0], [1]]),
    ]
    encoded = encode(rows, TOKENIZATION)
    first, second = encoded.trees
    assert compared(first) == [(" a", " b", 0), (" e", " f", 2), (" a", " g", 3)]
    assert compared(second) == [(" c", " d", 1)]
    assert (first.id, second.id) == ("1", "1")
    assert not encoded.refused


def test_every_row_a_tree_of_its_own() -> None:
    rows = [pair("say", " a", " b", row=1), pair("say", " a", " b", row=2)]
    trees = encode(rows, TOKENIZATION, group_prompts=False).trees
    assert [compared(tree) for tree in trees] == [[(" a", " b", 0)], [(" a", " b", 1)]]


def test_a_ranking_gives_all_strictly_ordered_pairs_and_ranks() -> None:
    row = answers(" a", " b", " c", " d", ranking=[[2], [0, 3], [1]], scores=[1.0, 0.0, 2.0, 1.0])
    encoded = encode([row], TOKENIZATION)
    (tree,) = encoded.trees
    expected = {("c", "a"), ("c", "d"), ("c", "b"), ("a", "b"), ("d", "b")}
    assert {(chosen.strip(), rejected.strip()) for chosen, rejected, _ in compared(tree)} == expected
    assert (tree.ranks, tree.scores) == ((1, 2, 0, 1), (1.0, 0.0, 2.0, 1.0))
    assert encoded.counts["tie left out"] == 1


def test_scores_alone_give_the_order() -> None:
    tree = encode([answers(" a", " b", " c", scores=[1.0, 3.0, 2.0])], TOKENIZATION).trees[0]
    assert tree.ranks == (2, 0, 1)
    assert compared(tree)[0][:2] == (" b", " c")


@pytest.mark.parametrize(("verdict", "kind"), [("tie", "tie left out"), ("both_bad", "both bad left out")])
def test_a_tie_is_left_out_and_counted_or_halved(verdict: str, kind: str) -> None:
    row = answers(" a", " b", ranking=[[0, 1]], verdict=verdict, weight=3.0, margin=1.0)
    dropped = encode([row], TOKENIZATION)
    assert (dropped.trees, dropped.refused, dropped.counts[kind]) == ([], [], 1)
    (tree,) = encode([row], TOKENIZATION, ties="half").trees
    assert compared(tree) == [(" a", " b", 0), (" b", " a", 0)]
    assert [(c.weight, c.margin) for c in tree.comparisons] == [(1.5, 0.0)] * 2
    assert num_pairs(tree) == 1


def test_what_each_stage_needs() -> None:
    rows = [
        pair("say", " a", " b", row=1),
        answers(" c", row=2, label=True),
        answers(" d", row=3, label=False),
        answers(" e", " f", row=4, ranking=[[0, 1]], verdict="tie"),
        single("say", " g", row=5),
    ]
    best = encode(rows, TOKENIZATION, need="best")
    (tree,) = best.trees
    assert [trained(tree, TOKENIZER, b) for b in range(3)] == [f" {x}<|im_end|>" for x in "acg"]
    assert tree.comparisons == ()
    assert best.counts["unwanted answer left out"] == best.counts["tie left out"] == 1
    (everything,) = encode(rows, TOKENIZATION, need="completions").trees
    assert [source[0] for source in everything.sources] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (2, 0),
        (3, 0),
        (3, 1),
        (4, 0),
    ]
    pairs = encode(rows, TOKENIZATION)
    assert [(fault.row, fault.kind) for fault in pairs.refused] == [(n, "unpaired") for n in (2, 3, 5)]
    scores = encode(rows, TOKENIZATION, need="scores")
    assert {fault.kind for fault in scores.refused} == {"no scores"}


def test_rows_to_imitate_are_taken_whole_and_preferences_refused() -> None:
    """Sampled answers that nobody has ordered are all rows to imitate; of ordered ones only the best would be."""
    rows = [
        single("say", " a", row=1),
        answers(" b", row=2, label=True),
        answers(" c", row=3, label=False),
        answers(" d", " e", row=4),
        pair("say", " f", " g", row=5),
        answers(" h", " i", row=6, ranking=[[0, 1]], verdict="tie"),
        answers(" j", " k", row=7, scores=[1.0, 2.0]),
        answers(" l", row=8, scores=[1.0]),
    ]
    found = encode(rows, TOKENIZATION, need="examples")
    (tree,) = found.trees
    assert [trained(tree, TOKENIZER, b)[1] for b in range(len(tree.branches))] == list("abdel")
    assert [(fault.row, fault.kind) for fault in found.refused] == [(n, "preference") for n in (5, 6, 7)]
    assert found.counts["unwanted answer left out"] == 1
    best = encode(rows, TOKENIZATION, need="best")
    (tree,) = best.trees
    assert [trained(tree, TOKENIZER, b)[1] for b in range(len(tree.branches))] == list("abfkl")
    assert [(fault.row, fault.kind) for fault in best.refused] == [(4, "unranked")]


def test_a_prompts_weight_is_shared_by_its_answers_where_each_is_a_term() -> None:
    rows = [single("say", " a", row=1), single("say", " b", row=2), single("tell", " c", row=3)]
    trees = weigh_prompts(encode(rows, TOKENIZATION, need="examples").trees, by_branch=True)
    assert [tree.weight for tree in trees] == [0.5, 1.0]
    texts = encode([single("", t, row=n) for n, t in enumerate(("ab", "cd"))], TOKENIZATION, need="examples")
    assert [tree.weight for tree in weigh_prompts(texts.trees, by_branch=True)] == [1.0, 1.0]
    with_bos = weigh_prompts([tree_of([1], [[2]]), tree_of([1], [[3]]), tree_of([1, 4], [[3]])], num_bos=1)
    assert [tree.weight for tree in with_bos] == [1.0, 1.0, 1.0]


def test_a_ranking_stage_keeps_rows_apart_and_equal_answers_too() -> None:
    rows = [answers(" a", " a", " b", row=n, ranking=[[0], [1], [2]]) for n in (1, 2)]
    trees = encode(rows, TOKENIZATION, need="ranking").trees
    assert [tree.ranks for tree in trees] == [(0, 1, 2)] * 2
    merged = encode(rows, TOKENIZATION)
    assert len(merged.trees[0].branches) == 2
    assert merged.counts["identical answers in order"] == 2


def test_best_answers_of_other_weight_do_not_share_a_tree() -> None:
    rows = [pair("say", " a", " b", row=n, weight=w) for n, w in enumerate((1.0, 2.0, 1.0))]
    trees = encode(rows, TOKENIZATION, need="best").trees
    assert [(tree.weight, len(tree.branches)) for tree in trees] == [(1.0, 2), (2.0, 1)]


def test_rows_without_a_prompt_do_not_become_one_tree() -> None:
    assert len(encode([single("", "ab", row=n) for n in (1, 2)], TOKENIZATION, need="best").trees) == 2


def test_a_large_group_is_cut_in_order_and_a_ranking_never() -> None:
    rows = [pair("say", f" {i}", f" {i + 1}", row=i) for i in range(5)]
    (tree,) = encode(rows, TOKENIZATION).trees
    parts = cut_groups([tree], batch_size=2)
    assert [compared(part) for part in parts] == [compared(tree)[i : i + 2] for i in (0, 2, 4)]
    assert [len(part.branches) for part in parts] == [3, 3, 2]
    (ranked,) = encode([answers(" a", " b", " c", ranking=[[0], [1], [2]])], TOKENIZATION).trees
    assert cut_groups([ranked], batch_size=2) == [ranked]
    (several,) = encode([single("say", " a", row=n) for n in range(5)], TOKENIZATION, need="best").trees
    assert [num_pairs(part) for part in cut_groups([several], batch_size=2)] == [2, 2, 1]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_grouping_and_cutting_lose_no_pair(data: st.DataObject) -> None:
    rows, expected = [], []
    for index in range(data.draw(st.integers(1, 6))):
        texts = data.draw(
            st.lists(st.sampled_from([" a", " b", " c", " d"]), min_size=2, max_size=4, unique=True)
        )
        prompt = data.draw(st.sampled_from(["say", "tell"]))
        rows.append(answers(*texts, row=index, prompt=prompt, ranking=[[i] for i in range(len(texts))]))
        expected += [(better, worse, index) for better, worse in combinations(texts, 2)]
    batch_size = data.draw(st.integers(1, 8))
    trees = cut_groups(encode(rows, TOKENIZATION).trees, batch_size=batch_size)
    assert sorted(c for tree in trees for c in compared(tree)) == sorted(expected)
    for tree in trees:
        records = {record for source in tree.sources for record, _ in source}
        assert num_pairs(tree) <= batch_size or len(records) == 1
        used = {b for c in tree.comparisons for b in (c.chosen, c.rejected)}
        assert used == set(range(len(tree.branches)))


def test_each_prompt_weighs_one() -> None:
    rows = [pair("say", f" {i}", " b", row=i, weight=float(i)) for i in range(1, 5)] + [
        pair("tell", " a", " b")
    ]
    trees = weigh_prompts(cut_groups(encode(rows, TOKENIZATION).trees, batch_size=2))
    weights = [[c.weight for c in tree.comparisons] for tree in trees]
    assert math.isclose(sum(weights[0] + weights[1]), 1.0)
    assert weights[0] == pytest.approx([0.1, 0.2])
    assert weights[2] == [1.0]
    assert trees[0].weight + trees[1].weight == trees[2].weight == 1.0
