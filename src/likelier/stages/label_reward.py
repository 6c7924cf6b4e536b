"""Preferences by a reward: it scores each prompt's completions, their order is the preference.

A line is `{"id", "prompt", "completions", "scores", "ranking", "labeller", "time", "reason"}`: a prompt's answers
with their sampled tokens, and their order, ties together. Labels by a reward are deterministic,
and the manifest says so: no finite reward explains them (math.md, "Where the note slips").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from likelier.data.labelled import answer_text, labelled_row, utc_now
from likelier.data.output import JsonLines
from likelier.data.raw_row import ranking_of
from likelier.data.reading import load_records
from likelier.data.records import Record
from likelier.engines.rewards import Reward, resolve_reward
from likelier.errors import DataError
from likelier.manifest import write_manifest
from likelier.stages.label_config import LabelConfig


@dataclass(frozen=True, slots=True)
class Labelled:
    """What labelling by a machine did."""

    prompts: int
    """With at least one pair."""
    all_answers: int
    """Those looked at, of all prompts."""
    pairs: int
    """Strictly ordered pairs of answers."""
    undecided: int
    """Prompts all of whose answers scored the same: nothing to learn from, and left out."""
    skipped: int
    """Prompts left out for an answer that is no text (empty, NUL bytes); the manifest lists them."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """As they are written."""


def label_by_reward(config: LabelConfig, samples: Any, *, say: Callable[[str], None]) -> Labelled:
    """Scores the completions of `samples` and writes `config.out` and its manifest.

    Raises:
        UsageError: no such reward.
        DataError: samples that cannot be read, or of which none is preferred to another.
        WorkError: a reward that is no finite number.
    """
    reward = resolve_reward(config.reward)
    # An empty answer cannot be read back as one: its row is counted and listed, not trained on.
    records, faults = load_records(samples, skip_bad_rows=True)
    scored = [_scored(record, reward) for record in records]
    kept = [record for record in scored if len(record.ranking or ()) > 1]
    if not kept:
        raise DataError(
            f"{config.samples}: `{config.reward}` scores all answers of every prompt alike, so nothing is "
            "preferred; sample more answers or choose another --reward"
        )
    about = {"labeller": f"reward {reward.name}", "reason": reward.meaning}
    labelled = Labelled(
        prompts=len(kept),
        all_answers=sum(len(record.completions) for record in scored),
        pairs=sum(_num_pairs(record.ranking or []) for record in kept),
        undecided=len(scored) - len(kept),
        skipped=len(faults),
        rows=[labelled_row(record, time=utc_now(), **about) for record in kept],
    )
    if config.out is not None:
        _write(config.out, config, labelled, [str(fault) for fault in faults])
    say(
        f"{labelled.pairs} pairs of {labelled.prompts} prompts; left out: {labelled.undecided} prompts whose answers "
        f"score alike, {labelled.skipped} unusable rows"
    )
    return labelled


def _write(out: Path, config: LabelConfig, labelled: Labelled, skipped: list[str]) -> None:
    with JsonLines(out) as file:
        for row in labelled.rows:
            file.write(row)
    write_manifest(
        out,
        stage="label",
        config=config.model_dump(),
        inputs={"samples": config.samples} if config.samples.is_file() else {},
        pairs=labelled.pairs,
        prompts=labelled.prompts,
        undecided=labelled.undecided,
        skipped=skipped,
        labels="deterministic: the higher score is preferred, equal scores are tied",
    )


def _scored(record: Record, reward: Reward) -> Record:
    texts = [answer_text(completion) for completion in record.completions]
    scores = reward([record.prompt] * len(texts), texts)
    ranking = ranking_of(scores)
    answers = record.completions
    if len(ranking) == 2 == len(answers):  # a pair is written with its better answer first
        (better,), (worse,) = ranking
        answers, scores = [answers[better], answers[worse]], [scores[better], scores[worse]]
        ranking = [[0], [1]]
    return replace(
        record, completions=answers, ranking=ranking, scores=scores, verdict=None, label=None, margin=0.0
    )


def _num_pairs(ranking: list[list[int]]) -> int:
    """Pairs of answers in different groups.

    >>> _num_pairs([[0], [1, 2]])
    2
    """
    total = sum(map(len, ranking))
    return (total * (total - 1) - sum(len(group) * (len(group) - 1) for group in ranking)) // 2
