"""From settings to what a training loop needs: the trees, and the loss."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from likelier.data.faults import Fault
from likelier.data.grouping import cut_groups, weigh_prompts
from likelier.data.records import Record
from likelier.data.selection import Need, Ties
from likelier.data.splitting import hash_records, split_by_prompt
from likelier.data.tokens import Tokenization
from likelier.data.trees import Tree
from likelier.data.usable import by_kind, encode_rows, read_rows
from likelier.errors import DataError, UsageError
from likelier.objectives import Objective, check_options, resolve, with_sft
from likelier.training.config import DpoConfig, RowTrainingConfig
from likelier.training.step import Loss


@dataclass(slots=True)
class Data:
    """Trees to train on and to evaluate on, and what was counted while they were made."""

    train: list[Tree]
    evaluation: list[Tree] = field(default_factory=list)
    content_hash: str = ""
    """Of the training records."""
    hashes: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    drawn_by: str = ""
    """Hash of what random numbers are drawn by, where any are: a resumed run must draw the same."""


def load_data(
    config: RowTrainingConfig, data: Any, eval_data: Any, tokenizer: Any, *, need: Need, ties: Ties = "drop"
) -> Data:
    """Read, split and encode; unusable rows are refused, or left out and counted.

    Args:
        need: what the stage uses of a row, with `ties` for what becomes of ties.

    Raises:
        DataError: unusable rows without --skip-bad-rows.
    """
    notes: list[str] = []
    records, faults = _records(config, data, notes)
    held_out: list[Record] = []
    held_out_faults = faults
    if eval_data:
        held_out, held_out_faults = _records(config, eval_data, notes)
    elif config.eval_share is not None:
        records, held_out = split_by_prompt(records, config.eval_share, seed=0)
    train = _trees(config, records, faults, tokenizer, need, ties, notes)
    if config.weigh == "prompts":
        num_bos = len(Tokenization.of(tokenizer).bos)
        train = weigh_prompts(train, by_branch=need in ("best", "examples"), num_bos=num_bos)
    hashes = {"train": hash_records(records)}
    evaluation: list[Tree] = []
    if held_out:
        evaluation = _trees(config, held_out, held_out_faults, tokenizer, need, ties, notes)
        hashes["eval"] = hash_records(held_out)
    return Data(cut_groups(train, batch_size=config.batch_size), evaluation, hashes["train"], hashes, notes)


def resolve_loss(config: DpoConfig, loss: Any, *, given: Collection[str]) -> Loss:
    """The objective and its options.

    Raises:
        UsageError: an unknown loss, or an option that it does not read.
    """
    options = {
        name: getattr(config, name)
        for name in ("label_smoothing", "gamma", "odds_weight", "unlikelihood_weight")
        if getattr(config, name) is not None
    }
    try:
        objective = resolve(loss)
        check_options(objective, options)
        _require_comparison(objective)
        objective = with_sft(objective, weight=config.sft_weight)
    except ValueError as error:
        raise UsageError(f"--loss: {error}") from None
    if "beta" in given and not objective.reads_beta:
        raise UsageError(f"--beta: the loss `{objective.name}` does not read it; leave it out")
    return Loss(objective, config.beta, options)


def _require_comparison(objective: Objective) -> None:
    if objective.kind == "sft":
        raise UsageError(
            "--loss sft compares no answers: `likelier sft` trains on them, with --on chosen on the preferred ones"
        )


def need_of(objective: Objective) -> Need:
    """What the data must hold for an objective."""
    kinds: dict[str, Need] = {"pair": "pairs", "ranking": "ranking", "scores": "scores"}
    return kinds[objective.kind]


def _records(config: RowTrainingConfig, data: Any, notes: list[str]) -> tuple[list[Record], list[Fault]]:
    records, faults = read_rows(config, data)
    if faults:
        notes.append(f"left out as unusable: {by_kind(faults)}")
    return records, faults


def _trees(
    config: RowTrainingConfig,
    records: list[Record],
    faults: list[Fault],
    tokenizer: Any,
    need: Need,
    ties: Ties,
    notes: list[str],
) -> list[Tree]:
    """The trees of `records`; `faults` are the rows that were left out while they were read."""
    encoded = encode_rows(
        config, records, tokenizer, need=need, ties=ties, group_prompts=config.group_prompts
    )
    if encoded.refused and not config.skip_bad_rows:
        raise DataError(
            f"{len(encoded.refused)} of {len(records)} rows cannot be used"
            f" ({by_kind(encoded.refused)}); the first: {encoded.refused[0]}"
            " (--skip-bad-rows leaves such rows out, `likelier check --model …` lists them)"
        )
    if encoded.refused:
        notes.append(f"left out as unusable: {by_kind(encoded.refused)}")
    noticed = ", ".join(f"{kind} {count}" for kind, count in encoded.counts.most_common())
    if noticed:
        notes.append(f"noticed: {noticed}")
    if encoded.trees and not any(map(_weight, encoded.trees)):
        raise DataError(
            "every row has `weight` 0, which leaves nothing to take a mean over; drop that column"
        )
    if not encoded.trees:
        raise _nothing_left([*faults, *encoded.refused], noticed)
    return encoded.trees


def _weight(tree: Tree) -> float:
    return sum(comparison.weight for comparison in tree.comparisons) if tree.comparisons else tree.weight


def _nothing_left(faults: Sequence[Fault], noticed: str) -> DataError:
    """What became of the rows, where none is left: the notes that say so would never be printed."""
    reasons = [f"left out as unusable: {by_kind(faults)}; the first: {faults[0]}"] if faults else []
    reasons += [f"noticed: {noticed}"] if noticed else []
    why = f" ({'; '.join(reasons)})" if reasons else ""
    return DataError(
        f"the data holds no row that can be trained on{why}; `likelier check --model …` lists them"
    )
