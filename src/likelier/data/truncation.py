"""Trees that are too long: the prompt is cut by one amount for the whole tree, answers only when asked.

Of a chat the oldest whole turns go first (the system turn stays, and a user turn comes next); when only one
is left, the start of its text goes. Of raw text the start goes; BOS stays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from likelier.data.contents import field_name, prompt_messages, require_scored
from likelier.data.faults import RowError
from likelier.data.records import Message, Record
from likelier.data.rows import Branch, Row
from likelier.data.tally import Tally
from likelier.data.templates import PROBE, Renderer
from likelier.data.tokens import Tokenization
from likelier.data.trees import TokenArray

PROMPTS_CUT = "prompts cut (rows)"
PROMPT_TOKENS_LOST = "prompt tokens lost"
ANSWERS_CUT = "answers cut"
ANSWER_TOKENS_LOST = "answer tokens lost"
TOO_LONG = "too long"
SYSTEM_ROLES = ("system", "developer")


class Truncation:
    """Cuts the rows of one tree down to `max_length` tokens per branch with its prompt."""

    def __init__(
        self,
        renderer: Renderer,
        tokenization: Tokenization,
        tally: Tally,
        *,
        max_length: int,
        cut_answers: bool,
    ) -> None:
        self._renderer = renderer
        self._tokenization = tokenization
        self._tally = tally
        self._max_length = max_length
        self._cut_answers = cut_answers

    def fit(self, rows: Sequence[Row], *, as_messages: bool) -> list[Row]:
        """Rows of one prompt, each branch with the prompt within `max_length`; the others go to the tally."""
        longest = max(map(_longest, rows))
        if len(rows[0].prompt) + longest <= self._max_length:
            return list(rows)
        long_row = max(rows, key=_longest)
        messages = prompt_messages(long_row.record, as_messages=as_messages)
        try:
            least = self._least(long_row, messages)
        except RowError as error:
            return self._fitting(rows, error)
        kept = [fitted for row in rows if (fitted := self._fit_answers(row, least)) is not None]
        if not kept:
            return []
        room = self._max_length - max(map(_longest, kept))
        prompt = rows[0].prompt
        if len(prompt) > room:
            prompt = self._cut(long_row, messages, room)
        for row in kept:
            self._note_prompt(row, len(row.prompt) - len(prompt))
        return [dataclasses.replace(row, prompt=prompt) for row in kept]

    def _fitting(self, rows: Sequence[Row], error: RowError) -> list[Row]:
        """The rows that fit uncut, where the prompt cannot be cut; the others are refused for `error`."""
        fits = [len(row.prompt) + _longest(row) <= self._max_length for row in rows]
        for row, fitting in zip(rows, fits, strict=True):
            if not fitting:
                self._tally.refuse(row.record, error)
        return [row for row, fitting in zip(rows, fits, strict=True) if fitting]

    def _note_prompt(self, row: Row, lost: int) -> None:
        if lost > 0:
            self._tally.note(PROMPTS_CUT, row.record)
            self._tally.note(PROMPT_TOKENS_LOST, row.record, number=lost)

    def _fit_answers(self, row: Row, least: int) -> Row | None:
        """The row with no answer longer than a prompt of `least` tokens leaves room for; None if refused."""
        room = self._max_length - least
        if _longest(row) <= room:
            return row
        try:
            if not self._cut_answers or room < 1:
                raise _too_long(row, room, self._max_length)
            return dataclasses.replace(
                row, branches=tuple(self._cut_answer(row, b, room) for b in row.branches)
            )
        except RowError as error:
            self._tally.refuse(row.record, error)
            return None

    def _cut_answer(self, row: Row, branch: Branch, room: int) -> Branch:
        lost = len(branch.tokens) - room
        if lost <= 0:
            return branch
        self._tally.note(ANSWERS_CUT, row.record)
        self._tally.note(ANSWER_TOKENS_LOST, row.record, number=lost)
        require_scored(row.record, branch.completion, branch.scored[:room].tolist())
        return Branch(branch.completion, branch.tokens[:room], branch.scored[:room])

    def _least(self, row: Row, messages: list[Message] | None) -> int:
        """Tokens of the shortest prompt that cutting can leave."""
        if messages is None:
            return min(len(row.prompt), max(1, len(self._tokenization.bos)))
        return len(self._frame(row.record, list(_shorter(messages))[-1], 0))

    def _cut(self, row: Row, messages: list[Message] | None, room: int) -> TokenArray:
        """The prompt in at most `room` tokens."""
        if messages is None:
            bos = len(self._tokenization.bos)
            bos = bos if row.prompt[:bos].tolist() == self._tokenization.bos else 0
            return np.concatenate([row.prompt[:bos], row.prompt[len(row.prompt) - room + bos :]])
        candidates = list(_shorter(messages))
        for candidate in candidates[1:]:
            try:
                text = self._renderer.prompt(row.record, candidate)
            except RowError:  # A template that refuses this start may take a later one.
                continue
            tokens = self._tokenization.start_texts([text])[0]
            if len(tokens) <= room:
                return np.asarray(tokens, np.int32)
        return np.asarray(self._frame(row.record, candidates[-1], room), np.int32)

    def _frame(self, record: Record, messages: list[Message], room: int) -> list[int]:
        """The prompt with as much of its first turn's end as `room` allows, the template around it whole."""
        at = _first_turn(messages)
        if at == len(messages) or not isinstance(messages[at].get("content"), str):
            raise RowError("prompt", TOO_LONG, "the prompt is too long and has no text that could be cut")
        whole = self._renderer.prompt(record, messages)
        stand_in = [*messages[:at], {**messages[at], "content": PROBE}, *messages[at + 1 :]]
        before, _, after = self._renderer.prompt(record, stand_in).partition(PROBE)
        if not (whole.startswith(before) and whole.endswith(after)):
            raise RowError("prompt", TOO_LONG, "the prompt is too long, and its template lets nothing be cut")
        content = whole[len(before) : len(whole) - len(after)]
        head, *_ = self._tokenization.start_texts([before])
        body, tail = self._tokenization.continue_texts([content, after])
        keep = max(0, room - len(head) - len(tail))
        return [*head, *body[len(body) - min(keep, len(body)) :], *tail]


def _longest(row: Row) -> int:
    return max(len(branch.tokens) for branch in row.branches)


def _first_turn(messages: Sequence[Message]) -> int:
    """Index of the first turn that is no system turn."""
    roles = (message["role"] for message in messages)
    return next((i for i, role in enumerate(roles) if role not in SYSTEM_ROLES), len(messages))


def _shorter(messages: list[Message]) -> Iterator[list[Message]]:
    """`messages`, then without the oldest turns: each time the system turn, and from a later user turn on."""
    first = _first_turn(messages)
    yield messages
    for start in range(first + 1, len(messages)):
        if messages[start]["role"] == "user":
            yield [*messages[:first], *messages[start:]]


def _too_long(row: Row, room: int, max_length: int) -> RowError:
    long = max(row.branches, key=lambda branch: len(branch.tokens))
    field = field_name(row.record, long.completion)
    return RowError(
        field,
        TOO_LONG,
        f"`{field}` has {len(long.tokens)} tokens, and --max-length {max_length} leaves {max(0, room)}: "
        "raise it, or allow --cut-answers",
    )
