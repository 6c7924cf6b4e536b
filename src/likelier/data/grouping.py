"""Rows to trees: rows of one prompt share a trunk, equal answers a branch."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

import numpy as np

from likelier.data.faults import RowError
from likelier.data.records import Record
from likelier.data.rows import Branch, Row
from likelier.data.selection import BOTH_BAD, TIE, Need, Ties, ranking_of
from likelier.data.tally import Tally
from likelier.data.trees import Comparison, Node, Tree

IDENTICAL = "identical answers in order"


def group_rows(rows: Iterable[Row], *, need: Need, group_prompts: bool, num_bos: int) -> list[list[Row]]:
    """Rows with the same prompt tokens together, in the order in which each prompt first comes.

    A ranking, or answers with scores, stay a tree of their own: their loss is one term per row. So does a row
    whose prompt is BOS or nothing: there is nothing to share.
    """
    groups: dict[object, list[Row]] = {}
    for row in rows:
        alone = not group_prompts or need in ("ranking", "scores") or len(row.prompt) <= num_bos
        key: object = row.index
        if not alone:
            weight = row.record.weight if need in ("best", "examples") else 1.0
            key = (hashlib.blake2b(row.prompt.tobytes(), digest_size=16).digest(), weight)
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def plant(rows: Sequence[Row], *, need: Need, ties: Ties, tally: Tally) -> Tree | None:
    """One tree of rows that share a prompt; None where a pair stage has nothing left to compare."""
    sharing = need in ("pairs", "completions")
    branches: list[Branch] = []
    sources: list[list[tuple[int, int]]] = []
    known: dict[tuple[bytes, bytes], int] = {}
    comparisons: list[Comparison] = []
    for row in rows:
        places = {}
        for branch in row.branches:
            key = (branch.tokens.tobytes(), branch.scored.tobytes())
            at = known.setdefault(key, len(branches)) if sharing else len(branches)
            if at == len(branches):
                branches.append(branch)
                sources.append([])
            sources[at].append((row.index, branch.completion))
            places[branch.completion] = at
        if need not in ("best", "examples"):
            comparisons += _comparisons(row, places, need, ties, tally)
    if need == "pairs" and not comparisons:
        return None
    return _tree(rows, branches, sources, comparisons)


def require_different(row: Row) -> None:
    """Raises `RowError` where all that a row calls better is, token by token, what it calls worse."""
    tokens = {branch.completion: branch.tokens.tobytes() for branch in row.branches}
    groups = [{tokens[i] for i in group if i in tokens} for group in ranking_of(row.record) or []]
    if len(groups) > 1 and len(set().union(*groups)) == 1:
        raise RowError("rejected", "identical", "chosen and rejected are the same tokens: leave the row out")


def _comparisons(
    row: Row, places: dict[int, int], need: Need, ties: Ties, tally: Tally
) -> Iterator[Comparison]:
    """Every strictly ordered pair of a row; halved ties each way round with half the weight."""
    record = row.record
    groups = [[places[i] for i in group if i in places] for group in ranking_of(record) or []]
    for better, worse in combinations(groups, 2):
        for chosen, rejected in ((c, r) for c in better for r in worse):
            if chosen == rejected:
                tally.note(IDENTICAL, record)
            else:
                yield Comparison(chosen, rejected, record.weight, record.margin, row.index)
    tied = [pair for group in groups for pair in combinations(group, 2) if pair[0] != pair[1]]
    if ties == "half" and need == "pairs":
        for one, other in tied:
            yield Comparison(one, other, record.weight / 2, 0.0, row.index)
            yield Comparison(other, one, record.weight / 2, 0.0, row.index)
    elif tied and need == "pairs":
        tally.note(BOTH_BAD if record.verdict == "both_bad" else TIE, record, number=len(tied))


def _tree(
    rows: Sequence[Row],
    branches: Sequence[Branch],
    sources: Sequence[list[tuple[int, int]]],
    comparisons: Sequence[Comparison],
) -> Tree:
    record, prompt = rows[0].record, rows[0].prompt
    weights = {row.record.weight for row in rows}
    own = len(rows) == 1 and len(branches) == len(rows[0].branches)
    root = Node(-1, prompt, np.zeros(len(prompt), np.bool_))
    return Tree(
        record.id,
        (root, *(Node(0, branch.tokens, branch.scored) for branch in branches)),
        tuple(range(1, len(branches) + 1)),
        comparisons=tuple(comparisons),
        ranks=_ranks(record, branches) if own else None,
        scores=_scores(record, branches) if own else None,
        sources=tuple(map(tuple, sources)),
        weight=weights.pop() if len(weights) == 1 else 1.0,
    )


def _ranks(record: Record, branches: Sequence[Branch]) -> tuple[int, ...] | None:
    ranks = {i: rank for rank, group in enumerate(ranking_of(record) or []) for i in group}
    kept = [branch.completion for branch in branches]
    return tuple(ranks[i] for i in kept) if all(i in ranks for i in kept) else None


def _scores(record: Record, branches: Sequence[Branch]) -> tuple[float, ...] | None:
    scores = record.scores
    return None if scores is None else tuple(scores[branch.completion] for branch in branches)


def num_pairs(tree: Tree) -> int:
    """What a tree counts towards `batch_size`: its pairs (a halved tie is one); without pairs, its rows.

    >>> from likelier.data.trees import tree_of
    >>> num_pairs(tree_of([1], [[2], [3]], comparisons=(Comparison(0, 1),)))
    1
    """
    if not tree.comparisons:
        return sum(map(len, tree.sources)) or len(tree.branches)
    return len({(c.record, min(c.chosen, c.rejected), max(c.chosen, c.rejected)) for c in tree.comparisons})


def cut_groups(trees: Iterable[Tree], *, batch_size: int) -> list[Tree]:
    """Trees of separate rows with more than `batch_size` pairs, cut in order; a ranking is never cut.

    Each part keeps the branches that its own comparisons (or, without any, its own rows) need.
    """
    return [part for tree in trees for part in _parts(tree, batch_size)]


def _parts(tree: Tree, batch_size: int) -> Iterator[Tree]:
    records = list(dict.fromkeys(record for source in tree.sources for record, _ in source))
    if num_pairs(tree) <= batch_size or len(records) < 2:
        yield tree
        return
    part: list[int] = []
    held = 0
    for record, size in zip(records, _sizes(tree, records), strict=True):
        if part and held + size > batch_size:
            yield _restricted(tree, part)
            part, held = [], 0
        part.append(record)
        held += size
    yield _restricted(tree, part)


def _sizes(tree: Tree, records: Sequence[int]) -> list[int]:
    """`num_pairs` of each record of a tree."""
    pairs = {(c.record, min(c.chosen, c.rejected), max(c.chosen, c.rejected)) for c in tree.comparisons}
    counted = (record for record, *_ in pairs) if pairs else (r for s in tree.sources for r, _ in s)
    counts = Counter(counted)
    return [counts[record] for record in records]


def _restricted(tree: Tree, records: Sequence[int]) -> Tree:
    """The part of a tree of depth two that stands for `records`."""
    wanted = set(records)
    sources = [tuple(place for place in source if place[0] in wanted) for source in tree.sources]
    kept = [branch for branch, source in enumerate(sources) if source]
    new = {branch: at for at, branch in enumerate(kept)}
    comparisons = tuple(
        dataclasses.replace(c, chosen=new[c.chosen], rejected=new[c.rejected])
        for c in tree.comparisons
        if c.record in wanted
    )
    return dataclasses.replace(
        tree,
        nodes=(tree.nodes[0], *(tree.nodes[tree.branches[branch]] for branch in kept)),
        branches=tuple(range(1, len(kept) + 1)),
        comparisons=comparisons,
        sources=tuple(sources[branch] for branch in kept),
    )


def weigh_prompts(trees: Sequence[Tree], *, by_branch: bool = False, num_bos: int = 0) -> list[Tree]:
    """The trees with weights such that each prompt's pairs, and its trees, weigh 1 together.

    Args:
        by_branch: a tree's weight is that of each of its branches, as for SFT, not of its one term.
        num_bos: trunks of no more tokens than that are no prompts that trees could share.

    >>> from likelier.data.trees import tree_of
    >>> pairs = (Comparison(0, 1), Comparison(0, 2), Comparison(1, 2))
    >>> weighed = weigh_prompts([tree_of([1], [[2], [3], [4]], comparisons=pairs)])
    >>> sum(comparison.weight for comparison in weighed[0].comparisons)
    1.0
    >>> weigh_prompts([tree_of([1], [[2], [3]])], by_branch=True)[0].weight
    0.5
    """
    prompts: list[object] = []
    for index, tree in enumerate(trees):
        tokens = tree.nodes[0].tokens
        prompts.append(tokens.tobytes() if len(tokens) > num_bos else index)
    pairs: defaultdict[object, float] = defaultdict(float)
    rows: defaultdict[object, float] = defaultdict(float)
    for prompt, tree in zip(prompts, trees, strict=True):
        pairs[prompt] += sum(c.weight for c in tree.comparisons)
        rows[prompt] += tree.weight * (len(tree.branches) if by_branch else 1)
    return [_scaled(tree, pairs[prompt], rows[prompt]) for prompt, tree in zip(prompts, trees, strict=True)]


def _scaled(tree: Tree, pairs: float, rows: float) -> Tree:
    comparisons = tuple(dataclasses.replace(c, weight=c.weight / (pairs or 1.0)) for c in tree.comparisons)
    return dataclasses.replace(tree, comparisons=comparisons, weight=tree.weight / (rows or 1.0))
