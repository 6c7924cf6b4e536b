"""A record's one written form: the row that reads back as the same record, and digests of its content."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from likelier.data.records import Completion, Content, Record


def canonical_row(record: Record) -> dict[str, Any]:
    """The preference row of a record, in the design's form; reading it gives the record again.

    >>> from likelier.data.reading import read
    >>> record = next(read([{"prompt": "Hi", "a": "x", "b": "y", "winner": "b"}]))
    >>> canonical_row(record)
    {'id': '1', 'prompt': 'Hi', 'chosen': 'y', 'rejected': 'x'}
    """
    row: dict[str, Any] = {"id": record.id, "prompt": record.prompt, **_answers(record)}
    if "text" in row:
        del row["prompt"]
    optional: dict[str, tuple[Any, Any]] = {
        "weight": (record.weight, 1.0),
        "margin": (record.margin, 0.0),
        "source": (record.source, None),
        "tools": (record.tools, None),
        "chat_template_kwargs": (record.chat_template_kwargs, {}),
    }
    return row | {name: value for name, (value, default) in optional.items() if value != default}


def _answers(record: Record) -> dict[str, Any]:
    answers = [_answer(completion) for completion in record.completions]
    if record.verdict is not None:
        return {"a": answers[0], "b": answers[1], "winner": record.verdict}
    if record.ranking == [[0], [1]]:
        scores = zip(("score_chosen", "score_rejected"), record.scores or (), strict=False)
        return {"chosen": answers[0], "rejected": answers[1], **dict(scores)}
    if record.ranking == [[0]] and record.scores is None:
        if record.prompt == "" and record.label is None and isinstance(answers[0], str):
            return {"text": answers[0]}
        label = {} if record.label is None else {"label": record.label}
        return {"completion": answers[0], **label}
    named = {"completions": answers, "ranking": record.ranking, "scores": record.scores}
    return {name: value for name, value in named.items() if value}


def _answer(completion: Completion) -> Any:
    details = {"tokens": completion.tokens, "finish": completion.finish}
    given = {name: value for name, value in details.items() if value is not None}
    if not given:
        return completion.content
    return {"text" if isinstance(completion.content, str) else "messages": completion.content, **given}


_written = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode


def digest(value: Any, *, size: int = 16) -> bytes:
    """A digest of JSON-like content that does not depend on the order of keys."""
    if isinstance(value, str):
        text = '"' + value
    else:
        text = _written(value)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()


def prompt_digest(prompt: Content) -> bytes:
    """What makes two prompts the same one: their content."""
    return digest(prompt)
