"""The order of training: which trees each step takes, as a pure function of (data, seed, epoch).

A step is the next trees in order, whole, until they hold `batch_size` pairs. Where training stands is one
integer, the number of steps done; `Order.locate` turns it into an epoch and a step within it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from likelier.data.grouping import num_pairs
from likelier.data.trees import Tree
from likelier.errors import UsageError


def tree_hash(trees: Iterable[Tree]) -> str:
    """SHA-256 over all that training reads of the trees: structure, tokens, masks, order, weights.

    >>> from likelier.data.trees import tree_of
    >>> tree_hash([tree_of([1], [[2]])]) == tree_hash([tree_of([1], [[2]], id="other name")])
    True
    """
    digest = hashlib.sha256()
    for tree in trees:
        comparisons = [(c.chosen, c.rejected, float(c.weight), float(c.margin)) for c in tree.comparisons]
        scores = tree.scores and [float(score) for score in tree.scores]
        shape = [(node.parent, len(node.tokens)) for node in tree.nodes]
        told = (shape, tree.branches, comparisons, tree.ranks, scores, float(tree.weight))
        digest.update(repr(told).encode() + b"\n")
        for node in tree.nodes:
            digest.update(np.asarray(node.tokens, "<i4").tobytes())
            digest.update(np.asarray(node.scored, np.uint8).tobytes())
    return digest.hexdigest()


def permutation(count: int, *, seed: int, epoch: int, content_hash: str) -> list[int]:
    """The order in which an epoch visits `count` trees.

    Philox keyed by a hash of the arguments; its raw words, unlike numpy's shuffles, are the same in every
    version of numpy.

    >>> sorted(permutation(5, seed=0, epoch=0, content_hash=""))
    [0, 1, 2, 3, 4]
    """
    key = hashlib.sha256(f"{content_hash}/{seed}/{epoch}".encode()).digest()
    words = np.random.Philox(key=int.from_bytes(key[:16], "little")).random_raw(count)
    return [int(index) for index in np.argsort(words, kind="stable")]


def steps(
    trees: Sequence[Tree], *, batch_size: int, seed: int, epoch: int, content_hash: str
) -> list[list[int]]:
    """The steps of one epoch, each a list of indices into `trees`; the last may be short.

    Args:
        trees: cut beforehand by `grouping.cut_groups`.
        batch_size: a step ends with the tree that brings it to this many pairs.
        seed: of the run.
        epoch: counted from 0.
        content_hash: `tree_hash` of the data.

    >>> from likelier.data.trees import tree_of
    >>> five = [tree_of([1], [[2]])] * 5
    >>> [len(step) for step in steps(five, batch_size=2, seed=0, epoch=0, content_hash="")]
    [2, 2, 1]
    """
    order = permutation(len(trees), seed=seed, epoch=epoch, content_hash=content_hash)
    return list(_filled(order, [num_pairs(tree) for tree in trees], batch_size))


def _filled(order: Iterable[int], sizes: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    step: list[int] = []
    held = 0
    for index in order:
        step.append(index)
        held += sizes[index]
        if held >= batch_size:
            yield step
            step, held = [], 0
    if step:
        yield step


class Order:
    """The steps of a whole run, found by their number.

    Rankings of several sizes fill steps unevenly, so epochs may differ in their number of steps: they are
    counted, once each, as far as is asked.

    >>> from likelier.data.trees import tree_of
    >>> order = Order([tree_of([1], [[2]])] * 5, batch_size=2, seed=0)
    >>> order.locate(4), len(order.step(5)), order.total(2)
    ((1, 1), 1, 6)
    """

    def __init__(
        self, trees: Sequence[Tree], *, batch_size: int, seed: int, content_hash: str | None = None
    ) -> None:
        """Raises `UsageError` where there is nothing to order, or steps would be empty."""
        if batch_size < 1:
            raise UsageError(f"--batch-size {batch_size}: a step takes 1 pair at least")
        if not trees:
            raise UsageError("no rows are left to train on: run `likelier check` on the data to see why")
        self.content_hash = tree_hash(trees) if content_hash is None else content_hash
        self._sizes = [num_pairs(tree) for tree in trees]
        self._batch_size = batch_size
        self._seed = seed
        self._ends: list[int] = []
        self._kept: tuple[int, list[list[int]]] | None = None

    def epoch(self, epoch: int) -> list[list[int]]:
        """The steps of one epoch, counted from 0."""
        if self._kept is None or self._kept[0] != epoch:
            order = permutation(
                len(self._sizes), seed=self._seed, epoch=epoch, content_hash=self.content_hash
            )
            self._kept = epoch, list(_filled(order, self._sizes, self._batch_size))
        return self._kept[1]

    def total(self, epochs: int) -> int:
        """The number of steps in the first `epochs` epochs."""
        while len(self._ends) < epochs:
            steps_before = self._ends[-1] if self._ends else 0
            self._ends.append(steps_before + len(self.epoch(len(self._ends))))
        return self._ends[epochs - 1] if epochs else 0

    def locate(self, position: int) -> tuple[int, int]:
        """The epoch and the step within it that come after `position` steps."""
        epoch = 0
        while self.total(epoch + 1) <= position:
            epoch += 1
        return epoch, position - self.total(epoch)

    def step(self, position: int) -> list[int]:
        """Indices of the trees of the step that comes after `position` steps."""
        epoch, index = self.locate(position)
        return self.epoch(epoch)[index]
