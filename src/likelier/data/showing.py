"""Decoded examples with the trained tokens marked: the cheapest check of masks there is.

What trains is marked ⟦so⟧, in terminals also by colour: a mark is still there in a pipe, in a log, and where
colours are off. Characters that would move the
cursor, reorder the line or pass for a marker are written as escapes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from likelier.data.tokens import Tokenization
from likelier.data.trees import Tree

if TYPE_CHECKING:
    from rich.text import Text

OPEN, CLOSE = "⟦", "⟧"
TRAINED_STYLE, READ_STYLE, HEADING_STYLE = "bold green", "dim", "bold"
ESCAPED_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")
JOINERS = "\u200c\u200d"
BROKEN = "\ufffd"
"""What a character decodes to while some of its bytes are in the next run."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of an example: a heading (`scored` is None), text that is read, or text that trains."""

    text: str
    scored: bool | None


def spread(count: int, number: int) -> list[int]:
    """`number` indices spread evenly over `count` (all of them where there are fewer).

    >>> spread(100, 4), spread(2, 4)
    ([0, 33, 66, 99], [0, 1])
    """
    if count <= number:
        return list(range(count))
    return [round(index * (count - 1) / max(1, number - 1)) for index in range(number)]


def plain_examples(trees: Sequence[Tree], tokenizer: Any, *, number: int = 10) -> str:
    """Examples spread over `trees` as plain text, what trains in ⟦ ⟧."""
    return "".join(map(_marked, _examples(trees, Tokenization.of(tokenizer), number)))


def rich_examples(trees: Sequence[Tree], tokenizer: Any, *, number: int = 10) -> Text:
    """The same for a terminal, what trains also in colour; text of the data is never read as markup."""
    from rich.text import Text

    styles = {None: HEADING_STYLE, False: READ_STYLE, True: TRAINED_STYLE}
    pieces = _examples(trees, Tokenization.of(tokenizer), number)
    return Text.assemble(*((_marked(piece), styles[piece.scored]) for piece in pieces))


def _marked(piece: Piece) -> str:
    return f"{OPEN}{piece.text}{CLOSE}" if piece.scored else piece.text


def escape(text: str) -> str:
    """`text` without control characters, direction marks and our own markers; line breaks stay.

    >>> escape("bell \\x07, and ⟦this⟧")
    'bell \\\\x07, and \\\\u27e6this\\\\u27e7'
    """
    return "".join(_escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    if letter == "\n" or letter in JOINERS:
        return letter
    hidden = unicodedata.category(letter) in ESCAPED_CATEGORIES or letter in OPEN + CLOSE
    return letter.encode("unicode_escape").decode() if hidden else letter


def _examples(trees: Sequence[Tree], tokenization: Tokenization, number: int) -> Iterator[Piece]:
    for index in spread(len(trees), number):
        tree = trees[index]
        yield Piece(f"── example {escape(tree.id)}: {tree.num_tokens} tokens ──\n", None)
        for branch in range(len(tree.branches)):
            yield from _branch(tree, branch, tokenization, with_trunk=branch == 0)
        yield Piece("\n", None)


def _branch(tree: Tree, branch: int, tokenization: Tokenization, *, with_trunk: bool) -> Iterator[Piece]:
    """A branch's text, after the prompt's where it is the tree's first."""
    *trunk, leaf = (tree.nodes[node] for node in tree.path(tree.branches[branch]))
    read = [int(token) for node in trunk for token in node.tokens]
    if with_trunk:
        yield Piece(f"prompt, {len(read)} tokens:\n", None)
        yield Piece(escape(tokenization.decode(read)) + "\n", False)
    if not len(leaf.tokens):  # An answer that is still to be drawn.
        return
    yield Piece(f"{_name(tree, branch)}, {tree.branch_length(branch)} tokens trained:\n", None)
    for scored, run in groupby(zip(leaf.tokens, leaf.scored, strict=True), key=lambda pair: bool(pair[1])):
        before = tokenization.decode(read).rstrip(BROKEN)
        read += [int(token) for token, _ in run]
        after = tokenization.decode(read)
        # Decoded alone, a run would lose its first space.
        yield Piece(escape(after[len(before) :]), scored)
    yield Piece("\n", None)


def _name(tree: Tree, branch: int) -> str:
    if len(tree.comparisons) == 1:
        comparison = tree.comparisons[0]
        return "chosen" if branch == comparison.chosen else "rejected"
    wins = sum(comparison.chosen == branch for comparison in tree.comparisons)
    losses = sum(comparison.rejected == branch for comparison in tree.comparisons)
    compared = f" (better than {wins}, worse than {losses})" if tree.comparisons else ""
    return f"answer {branch + 1}{compared}"
