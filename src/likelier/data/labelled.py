"""The one form of labelled rows, whoever labelled them: a preference row, and who made it, when and why."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from likelier.data.canonical import canonical_row
from likelier.data.records import Completion, Content, Record


def utc_now() -> str:
    """The time as labels bear it: ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def labelled_row(record: Record, *, labeller: str, time: str, reason: str) -> dict[str, Any]:
    """The row of a record whose ranking, scores and verdict are a new label; reading it gives the record again.

    Args:
        record: a pair has its better answer first.
        labeller: `"reward NAME"`, `"judge NAME"` or `"human NAME"`.
        time: when the label was made, as `utc_now` writes it.
        reason: one line, or what the labeller said.

    >>> from likelier.data.reading import read
    >>> record = next(read([{"prompt": "Hi", "chosen": "x", "rejected": "y"}]))
    >>> labelled_row(record, labeller="human ann", time="2026-01-01T00:00:00Z", reason="")["labeller"]
    'human ann'
    """
    answers = [replace(answer, content=plain_answer(answer.content)) for answer in record.completions]
    row = canonical_row(replace(record, completions=answers))
    return {**row, "labeller": labeller, "time": time, "reason": reason}


def bare(record: Record) -> Record:
    """The record without whatever labels it had."""
    return replace(record, ranking=None, scores=None, verdict=None, label=None, margin=0.0)


def plain_answer(content: Content) -> Content:
    """One assistant turn without tool calls and the like as its text; reading makes a turn of it again.

    >>> plain_answer([{"role": "assistant", "content": "Hello"}])
    'Hello'
    """
    if isinstance(content, list) and len(content) == 1 and content[0].keys() == {"role", "content"}:
        return str(content[0]["content"]) if content[0]["role"] == "assistant" else content
    return content


def answer_text(completion: Completion) -> str:
    """An answer's text as rewards and judges read it: its last turn's, where it has turns."""
    if isinstance(completion.content, str):
        return completion.content
    return str(completion.content[-1]["content"])
