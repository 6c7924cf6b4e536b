"""From a stage's `--data` to records and trees: unusable rows are refused, or left out and counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from likelier.data.columns import parse_columns
from likelier.data.encoding import Encoded, encode
from likelier.data.faults import Fault
from likelier.data.reading import load_records
from likelier.data.records import Record
from likelier.data.rows_config import RowsConfig
from likelier.data.selection import Need, Ties
from likelier.data.trees import Tree
from likelier.errors import DataError


def read_rows(config: RowsConfig, data: Any) -> tuple[list[Record], list[Fault]]:
    """The rows of `data` that can be read, and with --skip-bad-rows those that cannot.

    Raises:
        DataError: one that cannot, without --skip-bad-rows.
    """
    return load_records(
        data,
        format=config.format,
        columns=parse_columns(config.columns),
        as_messages=config.as_ == "messages",
        skip_bad_rows=config.skip_bad_rows,
    )


def encode_rows(
    config: RowsConfig,
    records: Sequence[Record],
    tokenizer: Any,
    *,
    need: Need,
    ties: Ties,
    group_prompts: bool,
) -> Encoded:
    """The trees of `records`, and what was refused and counted on the way."""
    return encode(
        records,
        tokenizer,
        need=need,
        max_length=config.max_length,
        allow_template_edits=config.allow_template_edits,
        cut_answers=config.cut_answers,
        group_prompts=group_prompts,
        ties=ties,
    )


def usable_records(config: RowsConfig, data: Any, say: Callable[[str], None]) -> list[Record]:
    """The rows of `data` that can be read; those left out are counted aloud.

    Raises:
        DataError: one that cannot, without --skip-bad-rows.
    """
    records, faults = read_rows(config, data)
    if faults:
        say(f"left out as unusable: {by_kind(faults)}")
    return records


def usable_trees(
    config: RowsConfig,
    records: Sequence[Record],
    tokenizer: Any,
    *,
    need: Need,
    ties: Ties = "drop",
    group_prompts: bool,
    say: Callable[[str], None],
) -> list[Tree]:
    """The trees of `records`; rows left out are counted aloud.

    Raises:
        DataError: one that cannot be used, without --skip-bad-rows.
    """
    encoded = encode_rows(config, records, tokenizer, need=need, ties=ties, group_prompts=group_prompts)
    if encoded.refused and not config.skip_bad_rows:
        raise DataError(
            f"{len(encoded.refused)} rows cannot be scored; the first: {encoded.refused[0]}"
            " (--skip-bad-rows leaves such rows out)"
        )
    if encoded.refused:
        say(f"left out as unusable: {by_kind(encoded.refused)}")
    return encoded.trees


def by_kind(faults: Sequence[Fault]) -> str:
    """How many of each kind, in the order met."""
    kinds = [fault.kind for fault in faults]
    return ", ".join(f"{kind} {kinds.count(kind)}" for kind in dict.fromkeys(kinds))
