"""Preferences from samples: a reward scores each prompt's completions, their order is the preference.

A line is `{"id", "prompt", "completions", "scores", "ranking", "labeller", "reason"}`: a prompt's answers
with their sampled tokens, and their order, ties together. Labels by a reward are deterministic,
and the manifest says so: no finite reward explains them (math.md, "Where the note slips").
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from likelier.config import StageConfig
from likelier.data.output import JsonLines
from likelier.data.raw_row import ranking_of
from likelier.data.reading import load_records
from likelier.data.records import Completion, Record
from likelier.engines.rewards import Reward, resolve_reward
from likelier.errors import DataError
from likelier.manifest import write_manifest


class LabelConfig(StageConfig):
    """What is labelled, and by what."""

    samples: Path = Field(description="a file that `likelier sample` wrote")
    reward: str = Field(
        default="vader", description="vader, length, regex:PATTERN, module:function or a classifier"
    )
    out: Path = Field(description="the file to write")


@dataclass(frozen=True, slots=True)
class Labelled:
    """What `label_file` did."""

    prompts: int
    """With at least one pair."""
    all_answers: int
    """Those scored, of all prompts."""
    pairs: int
    """Strictly ordered pairs of answers."""
    undecided: int
    """Prompts all of whose answers scored the same: nothing to learn from, and left out."""
    skipped: int
    """Prompts left out for an answer that is no text (empty, NUL bytes); the manifest lists them."""


def label_file(config: LabelConfig) -> Labelled:
    """Scores the completions of `config.samples` and writes `config.out` and its manifest.

    Raises:
        UsageError: no such reward.
        DataError: samples that cannot be read, or of which none is preferred to another.
        WorkError: a reward that is no finite number.
    """
    reward = resolve_reward(config.reward)
    # An empty answer cannot be read back as one: its row is counted and listed, not trained on.
    records, faults = load_records(config.samples, skip_bad_rows=True)
    rows = [_row(record, reward) for record in records]
    kept = [row for row in rows if len(row["ranking"]) > 1]
    if not kept:
        raise DataError(
            f"{config.samples}: `{config.reward}` scores all answers of every prompt alike, so nothing is "
            "preferred; sample more answers or choose another --reward"
        )
    with JsonLines(config.out) as file:
        for row in kept:
            file.write(row)
    labelled = Labelled(
        prompts=len(kept),
        all_answers=sum(len(row["completions"]) for row in rows),
        pairs=sum(_num_pairs(row["ranking"]) for row in kept),
        undecided=len(rows) - len(kept),
        skipped=len(faults),
    )
    write_manifest(
        config.out,
        stage="label",
        config=config.model_dump(),
        inputs={"samples": config.samples},
        pairs=labelled.pairs,
        prompts=labelled.prompts,
        undecided=labelled.undecided,
        skipped=[str(fault) for fault in faults],
        labels="deterministic: the higher score is preferred, equal scores are tied",
    )
    return labelled


def _row(record: Record, reward: Reward) -> dict[str, Any]:
    texts = [_text(completion) for completion in record.completions]
    scores = reward([record.prompt] * len(texts), texts)
    answers = [
        {"text": text, "tokens": completion.tokens, "finish": completion.finish}
        for text, completion in zip(texts, record.completions, strict=True)
    ]
    return {
        "id": record.id,
        "prompt": record.prompt,
        "completions": answers,
        "scores": scores,
        "ranking": ranking_of(scores),
        "labeller": f"reward {reward.name}",
        "reason": reward.meaning,
    }


def _text(completion: Completion) -> str:
    """The answer's text, also where reading has made a turn of it."""
    if isinstance(completion.content, str):
        return completion.content
    return str(completion.content[-1]["content"])


def _num_pairs(ranking: list[list[int]]) -> int:
    """Pairs of answers in different groups.

    >>> _num_pairs([[0], [1, 2]])
    2
    """
    total = sum(map(len, ranking))
    return (total * (total - 1) - sum(len(group) * (len(group) - 1) for group in ranking)) // 2
