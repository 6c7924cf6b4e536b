"""What is asked of an OpenAI-compatible server, and what it answers: bodies out, checked choices in.

A list of messages goes to `/chat/completions`, a plain string to `/completions`. Servers differ in what they know:
`Request.body` has an exact form and, for a server that refuses what is optional in it, plainer ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from likelier.data.records import Content

FULL, WITHOUT_EXTRAS, ONE_AT_A_TIME = range(3)
"""Forms of a body: as asked; without log-probs and token ids; and with one answer per request."""
FORM_NAMES = {
    WITHOUT_EXTRAS: "log-probs and token ids",
    ONE_AT_A_TIME: "several answers a request (and log-probs and token ids)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt with how it is to be answered; what is None is left to the server."""

    prompt: Content
    n: int = 1
    """Answers wanted. A server that gives fewer is asked again for the rest."""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    """Of the first answer; when the rest is asked for, the number of answers had so far is added."""
    logprobs: bool = False
    """Ask for the log-prob of every token, and for token ids."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Sent as it stands: what not every server knows (`top_k`, `min_p`)."""

    @property
    def chat(self) -> bool:
        """Whether this goes to `/chat/completions`."""
        return not isinstance(self.prompt, str)

    def body(self, model: str, *, had: int = 0, form: int = FULL) -> dict[str, Any]:
        """The JSON to send for the answers after the first `had`.

        >>> Request(prompt="Hi", n=4, seed=7).body("m", had=1)
        {'model': 'm', 'prompt': 'Hi', 'n': 3, 'seed': 8}
        """
        body: dict[str, Any] = {"model": model, ("messages" if self.chat else "prompt"): self.prompt}
        wanted = 1 if form == ONE_AT_A_TIME else self.n - had
        if wanted > 1:
            body["n"] = wanted
        settings = {"max_tokens": self.max_tokens, "temperature": self.temperature, "top_p": self.top_p}
        body |= {name: value for name, value in settings.items() if value is not None}
        if self.stop:
            body["stop"] = list(self.stop)
        if self.seed is not None:
            body["seed"] = self.seed + had
        if self.logprobs and form == FULL:
            body |= {"logprobs": True if self.chat else 0, "return_token_ids": True}
        return body | dict(self.extra)

    def plainer(self, form: int) -> int | None:
        """The next form that differs from `form`, or None."""
        if form == FULL and self.logprobs:
            return WITHOUT_EXTRAS
        return ONE_AT_A_TIME if form < ONE_AT_A_TIME and self.n > 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One answer."""

    text: str
    finish: str | None
    """The server's `finish_reason`: `"stop"`, `"length"`, or another word of its own."""
    tokens: list[int] | None = None
    """Token ids, where the server gives them (vLLM's `token_ids`)."""
    logprobs: list[float] | None = None
    """Of each token, where the server gives them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """All that was wanted, and what it took."""

    choices: list[Choice]
    prompt_tokens: int = 0
    """By the server's own count; 0 where it gives none."""
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A request that was given up."""

    reason: str
    """A kind, to count by: `"timeout"`, `"HTTP 500"`, `"not JSON"` …"""
    detail: str
    """One line for a person."""
    attempts: int
    choices: list[Choice] = field(default_factory=list)
    """Answers that were had before it was given up."""


class Unusable(Exception):  # noqa: N818
    """An answer that is none: `reason` is a kind to count by, the message one line."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def read_reply(text: str, *, chat: bool) -> Reply:
    """The answers in a server's JSON; those that are none are left out.

    Raises:
        Unusable: no JSON, or no usable answer in it.

    >>> read_reply('{"choices": [{"text": "a", "finish_reason": "stop"}, {}]}', chat=False).choices
    [Choice(text='a', finish='stop', tokens=None, logprobs=None)]
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise Unusable("not JSON", f"the answer is not JSON: {text[:80]!r}") from None
    listed = value.get("choices") if isinstance(value, dict) else None
    found = [_choice(item, chat=chat) for item in (listed if isinstance(listed, list) else [])]
    choices = [choice for choice in found if choice is not None]
    if not choices:
        raise Unusable("fields missing", f"the answer holds no text: {text[:120]!r}")
    usage = value.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Reply(
        choices=choices,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
    )


def _choice(item: Any, *, chat: bool) -> Choice | None:
    holder = item.get("message") if isinstance(item, dict) and chat else item
    text = holder.get("content" if chat else "text") if isinstance(holder, dict) else None
    finish = item.get("finish_reason") if isinstance(item, dict) else None
    if not isinstance(text, str) or not isinstance(finish, str | None):
        return None
    tokens, logprobs = item.get("token_ids"), _logprobs(item.get("logprobs"), chat=chat)
    if not (isinstance(tokens, list) and tokens and all(type(token) is int for token in tokens)):
        tokens = None
    return Choice(text=text, finish=finish, tokens=tokens, logprobs=logprobs)


def _logprobs(value: Any, *, chat: bool) -> list[float] | None:
    if not isinstance(value, dict):
        return None
    listed = value.get("content" if chat else "token_logprobs")
    if not isinstance(listed, list) or not listed:
        return None
    numbers = [item.get("logprob") if chat and isinstance(item, dict) else item for item in listed]
    finite = [float(n) for n in numbers if isinstance(n, int | float) and math.isfinite(n)]
    return finite if len(finite) == len(numbers) else None


def _count(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0
