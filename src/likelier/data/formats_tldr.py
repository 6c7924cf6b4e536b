"""Summaries of Reddit posts: comparisons by people (openai/summarize_from_feedback), and the posts' own summaries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from likelier.data import fields
from likelier.data.faults import RowError
from likelier.data.raw_row import RawRow
from likelier.data.records import Completion, Record


def comparison(row: RawRow) -> list[Record]:
    """A post in `info`, two `summaries`, and `choice`, the index of the better one; ties there are none."""
    summaries = fields.list_of(row.get("summaries"), "summaries", _summary)
    if len(summaries) != 2:
        message = f"`summaries` holds {len(summaries)} summaries: a comparison has two"
        raise RowError("summaries", "wrong length", message)
    better = fields.integer(row.get("choice"), "choice")
    if better not in (0, 1):
        message = f"`choice` must be 0 or 1, the index of the better summary, not {better}"
        raise RowError("choice", "wrong value", message)
    order = (better, 1 - better)
    names = [f"summaries[{index}]" for index in order]
    return [
        row.record(
            _prompt(_info(row)), [summaries[index] for index in order], ranking=[[0], [1]], names=names
        )
    ]


def post(row: RawRow) -> list[Record]:
    """A post in columns of its own, and the `summary` that its author wrote."""
    answer = Completion(content=_after_the_prompt(row.text("summary")))
    return [row.record(_prompt(row.values), [answer], ranking=[[0]], names=("summary",))]


def _info(row: RawRow) -> Mapping[str, Any]:
    info = row.get("info")
    if not isinstance(info, Mapping):
        raise fields.wrong_type("info", info, "an object with `subreddit`, `title` and `post`")
    if info.get("post") is None and info.get("article") is not None:
        message = "`info` holds a news article, not a Reddit post: leave such rows out (--skip-bad-rows)"
        raise RowError("info", "no Reddit post", message)
    return info


def _prompt(values: Mapping[str, Any]) -> str:
    """As arXiv 2009.01325 writes a post to be summarised."""
    subreddit, title, text = (
        fields.text(fields.get(values, name), name).strip() for name in ("subreddit", "title", "post")
    )
    return f"SUBREDDIT: r/{subreddit}\nTITLE: {title}\nPOST: {text}\nTL;DR:"


def _summary(value: Any, field: str) -> Completion:
    if not isinstance(value, Mapping):
        raise fields.wrong_type(field, value, "an object with `text`")
    text = fields.text(fields.get(value, "text", within=field), f"{field}.text")
    return Completion(content=_after_the_prompt(text))


def _after_the_prompt(summary: str) -> str:
    """With one space before it, whether the source has one or none; an empty one stays empty, and is refused."""
    return f" {summary.strip()}" if summary.strip() else ""


FORMATS: tuple[tuple[str, str, Callable[[RawRow], Iterable[Record]]], ...] = (
    ("summarize-from-feedback", "info summaries choice", comparison),
    ("tldr", "subreddit title post summary", post),
)
