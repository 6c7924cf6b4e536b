"""Judges: whoever answers a question of `rubric.py` with a `Said`, or with a `Failure` where no answer could be had.

Here the one behind an OpenAI-compatible address; models that are loaded here stand in `local_judges.py`.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from likelier.data.labelled import utc_now
from likelier.engines.protocol import Failure, Request
from likelier.engines.server import Server


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A judge's answer to one question."""

    text: str = ""
    logps: tuple[float, float] | None = None
    """By log-odds: log-probs of A and of B at the verdict."""
    finish: str | None = None
    """`"length"` where what it wrote was cut."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    time: str = ""

    def row(self) -> dict[str, Any]:
        """What `Said.of` reads back."""
        return asdict(self)

    @classmethod
    def of(cls, row: dict[str, Any]) -> Said:
        """From a `row`."""
        logps = row.get("logps")
        return cls(**{**row, "logps": None if logps is None else (float(logps[0]), float(logps[1]))})


Answered = tuple[int, Said | Failure]


class Judge(Protocol):
    """Whoever answers questions."""

    name: str
    identity: str
    """All that an answer depends on besides the question: part of the key under which it is kept."""

    def ask(self, questions: Sequence[str]) -> Generator[Answered, None, None]:
        """`(index, answer)` of each question, as they are finished."""
        ...

    def close(self) -> None:
        """Lets go of what was loaded."""
        ...


class ServerJudge:
    """A model behind an address, which writes its verdict at temperature 0."""

    def __init__(self, server: Server, *, max_tokens: int) -> None:
        self.server = server
        self.max_tokens = max_tokens
        self.name = server.model
        # Nothing but its name and address is known of a model elsewhere.
        self.identity = f"openai {server.base_url} {server.model} max_tokens {max_tokens}"

    def ask(self, questions: Sequence[str]) -> Generator[Answered, None, None]:
        """Many at once; a failure costs its question alone."""
        requests = (
            Request(prompt=[{"role": "user", "content": text}], max_tokens=self.max_tokens, temperature=0.0)
            for text in questions
        )
        for index, reply in self.server.map(requests):
            if isinstance(reply, Failure):
                yield index, reply
            else:
                yield (
                    index,
                    Said(
                        text=reply.choices[0].text,
                        finish=reply.choices[0].finish,
                        prompt_tokens=reply.prompt_tokens,
                        completion_tokens=reply.completion_tokens,
                        time=utc_now(),
                    ),
                )

    def close(self) -> None:
        """Nothing is held."""


def odds_gap(logps: tuple[float, float]) -> float:
    """`P(A) − P(B)` given that the verdict is one of them: `tanh((log P(A) − log P(B)) / 2)`.

    Averaged over both orders, its sign is that of the mean log-odds: a bias for a place, which adds the same
    log-odds whatever stands there, cancels.

    >>> round(odds_gap((-1.0, -2.0)), 4)
    0.4621
    """
    return math.tanh((logps[0] - logps[1]) / 2)
