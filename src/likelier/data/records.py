"""The one form in which every stage meets a row of data, whatever file it came from.

Reading (`reading.py`, with a function per format in `formats.py` and beside it) makes records, checks (`checks.py`)
look at them, `encoding.py` turns them into token trees. A record is text: no tokenizer, no model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
"""One turn: `{"role": …, "content": …}`, plus whatever else the chat template reads (`tool_calls` …)."""

Content = str | list[Message]
"""A plain string is raw text; a list of messages goes through the model's chat template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One answer: raw text, or the turns that continue the prompt's messages."""

    content: Content
    tokens: list[int] | None = None
    """The very token ids that a model sampled, if known; trained on as they are, never re-tokenised."""
    finish: str | None = None
    """`"stop"`, or `"length"` for a sampled answer that was cut (it gets no end of turn)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One prompt, its completions, and what is known of their order.

    A pair is `completions=[chosen, rejected]`, `ranking=[[0], [1]]`. A tie is `ranking=[[0, 1]]`. An SFT row has
    one completion and `ranking=[[0]]`; an unpaired row has one completion and a `label`.
    """

    file: str
    """Where the row stands, for messages: a path, a hub name, or `"<rows>"`."""
    row: int
    """Its number there; the first row is 1."""
    id: str
    prompt: Content
    completions: list[Completion]
    ranking: list[list[int]] | None = None
    """Indices into `completions`, best group first; the members of one group are tied."""
    scores: list[float] | None = None
    label: bool | None = None
    verdict: str | None = None
    """`"tie"` or `"both_bad"` where the row said so, else None."""
    weight: float = 1.0
    margin: float = 0.0
    source: str | None = None
    tools: list[Any] | None = None
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """`file, row n`: how a message names this record."""
        return f"{self.file}, row {self.row}"
