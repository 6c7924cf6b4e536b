"""Records to token trees: render, tokenise, group, truncate; count what was noticed on the way.

records ─draft→ text ─tokenise→ rows ─group→ rows of one prompt ─truncate→ ─plant→ trees
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from likelier.data.faults import Fault, RowError
from likelier.data.grouping import group_rows, plant, require_different
from likelier.data.records import Record
from likelier.data.rows import Draft, Row, RowEncoder
from likelier.data.selection import Need, Ties, select
from likelier.data.tally import Tally
from likelier.data.tokens import Tokenization
from likelier.data.trees import Tree
from likelier.data.truncation import Truncation
from likelier.errors import UsageError

BATCH = 512


@dataclass(frozen=True, slots=True)
class Encoded:
    """The trees of a data set, and everything that was counted, changed or refused while they were made."""

    trees: list[Tree]
    counts: Counter[str] = field(default_factory=Counter)
    """By kind (`"boundary split"`, `"prompt tokens lost"` …): rows; of kinds of answers, answers; or tokens."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """By kind: where the first few stand."""
    refused: list[Fault] = field(default_factory=list)
    """The rows that cannot be used, with reasons."""


def encode(
    records: Iterable[Record],
    tokenizer: Any,
    *,
    need: Need = "pairs",
    max_length: int | None = None,
    as_messages: bool = False,
    allow_template_edits: bool = False,
    cut_answers: bool = False,
    group_prompts: bool = True,
    ties: Ties = "drop",
) -> Encoded:
    """Token trees of `records`: which tokens train is decided here (promise 8 of the design).

    Args:
        records: rows, in order; a comparison's `record` and a branch's `sources` count them from 0.
        tokenizer: a `transformers` tokenizer with a `tokenizers` backend, or a `Tokenization` of one.
        need: what the stage uses of a row; rows without it are refused (`selection.Need`).
        max_length: tokens of a branch with its prompt at most; None for no limit.
        as_messages: a plain string prompt is a user turn and a plain string answer an assistant turn.
        allow_template_edits: keep rows whose answer the chat template changes, as the template writes them.
        cut_answers: cut answers that are too long from the right, rather than refuse their rows.
        group_prompts: rows with the same prompt tokens share a tree.
        ties: tied answers are dropped, or compared each way with half the weight.

    Raises:
        UsageError: `max_length` is smaller than 2.
        ModelError: the tokenizer is a slow one.
    """
    if max_length is not None and max_length < 2:
        raise UsageError(f"--max-length {max_length}: a prompt and an answer take 2 tokens at least")
    tally = Tally()
    tokenization = Tokenization.of(tokenizer)
    encoder = RowEncoder(
        tokenization, tally, as_messages=as_messages, allow_template_edits=allow_template_edits
    )
    rows = _rows(records, encoder, tally, need=need, ties=ties, max_length=max_length)
    groups = group_rows(rows, need=need, group_prompts=group_prompts, num_bos=len(tokenization.bos))
    if max_length is not None:
        truncation = Truncation(
            encoder.renderer, tokenization, tally, max_length=max_length, cut_answers=cut_answers
        )
        groups = [truncation.fit(group, as_messages=as_messages) for group in groups]
    trees = _trees(groups, tally, need=need, ties=ties)
    return Encoded(trees, tally.counts, tally.examples, tally.refused)


def _rows(
    records: Iterable[Record],
    encoder: RowEncoder,
    tally: Tally,
    *,
    need: Need,
    ties: Ties,
    max_length: int | None,
) -> Iterator[Row]:
    """Draft and tokenise the rows that the stage needs, a batch at a time."""
    drafts: list[Draft] = []
    for index, record in enumerate(records):
        try:
            if wanted := select(record, need, ties, tally):
                drafts.append(encoder.draft(index, record, wanted))
        except RowError as error:
            tally.refuse(record, error)
        if len(drafts) == BATCH:
            yield from encoder.rows(drafts, max_length=max_length)
            drafts = []
    yield from encoder.rows(drafts, max_length=max_length)


def _trees(groups: Iterable[list[Row]], tally: Tally, *, need: Need, ties: Ties) -> list[Tree]:
    """Groups as trees; identical answers of a pair are found here, after whatever was cut."""
    trees = []
    for group in groups:
        kept = [row for row in group if need != "pairs" or _differs(row, tally)]
        tree = plant(kept, need=need, ties=ties, tally=tally) if kept else None
        if tree is not None:
            trees.append(tree)
    return trees


def _differs(row: Row, tally: Tally) -> bool:
    try:
        require_different(row)
    except RowError as error:
        tally.refuse(row.record, error)
        return False
    return True
