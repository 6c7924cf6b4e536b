"""One raw row on its way to a record: typed access to its columns, and what all formats have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from likelier.data import fields
from likelier.data.faults import RowError
from likelier.data.json_rows import json_value
from likelier.data.records import Completion, Content, Message, Record
from likelier.data.transcripts import answer_turns, is_transcript, transcript_turns


@dataclass(frozen=True, slots=True)
class RawRow:
    """A raw row, where it stands, and how its text is to be taken."""

    values: Mapping[str, Any]
    file: str
    number: int
    as_messages: bool = False
    """Plain strings become turns: a prompt the user's, an answer the assistant's; transcripts fall apart."""

    def get(self, field: str) -> Any:
        """A column that must be there and hold something."""
        return fields.get(self.values, field)

    def has(self, field: str) -> bool:
        """Whether a column is there and not null."""
        return self.values.get(field) is not None

    def text(self, field: str) -> str:
        """A column of text."""
        return fields.text(self.get(field), field)

    def optional_text(self, field: str) -> str:
        """A column of text, `""` where it is absent or null."""
        return self.text(field) if self.has(field) else ""

    def content(self, field: str) -> Content:
        """A column of text or turns."""
        return fields.content(self.get(field), field)

    def messages(self, field: str) -> list[Message]:
        """A column of turns."""
        return fields.messages(self.get(field), field)

    def finite(self, field: str) -> float:
        """A column of finite numbers."""
        return fields.number(self.get(field), field)

    def answers(self, *names: str) -> list[Completion]:
        """One answer a column, with the row's `tokens` and `finish` of each, by name or in this order."""
        return self._detailed([fields.answer(self.get(name), name) for name in names], names)

    def answer_list(self, field: str) -> list[Completion]:
        """A column that holds several answers, with the row's `tokens` and `finish` in the same order."""
        return self._detailed(fields.list_of(self.get(field), field, fields.answer), ())

    def _detailed(self, answers: list[Completion], names: Sequence[str]) -> list[Completion]:
        tokens = self._per_answer("tokens", answers, names)
        finish = self._per_answer("finish", answers, names)
        if not any(value is not None for value in (*tokens, *finish)):
            return answers
        return [
            Completion(
                content=answer.content,
                tokens=answer.tokens if ids is None else fields.tokens(ids, f"tokens[{index}]"),
                finish=answer.finish if end is None else fields.finish(end, f"finish[{index}]"),
            )
            for index, (answer, ids, end) in enumerate(zip(answers, tokens, finish, strict=True))
        ]

    def _per_answer(self, field: str, answers: list[Completion], names: Sequence[str]) -> Sequence[Any]:
        """A column that has one value per answer; None for each where the row has no such column."""
        given = self.values.get(field)
        if isinstance(given, Mapping) and names:
            return [given.get(name) for name in names]
        if given is None or len(answers) == 1:
            return [given] * len(answers)
        if not isinstance(given, (list, tuple)) or len(given) != len(answers):
            raise fields.wrong_type(
                field, given, f"a list with an entry for each of the {len(answers)} answers"
            )
        return given

    def record(
        self,
        prompt: Content,
        completions: list[Completion],
        *,
        ranking: list[list[int]] | None = None,
        scores: list[float] | None = None,
        label: bool | None = None,
        verdict: str | None = None,
        id: str | None = None,
        names: Sequence[str] = (),
        raw_text: bool = False,
    ) -> Record:
        """The record, with the columns that every format may have; refuses what no training could use.

        `names` are the columns of the answers, for messages; `raw_text` says that the row is text alone,
        without a prompt, and stays so.
        """
        if not raw_text:
            prompt, completions = self._as_turns(prompt, completions)
        self._refuse_media()
        names = names or [f"completions[{index}]" for index in range(len(completions))]
        for answer, name in zip(completions, names, strict=True):
            _check_answer(answer, name)
        _check_distinct(completions, ranking, names)
        return Record(
            file=self.file,
            row=self.number,
            id=id or self.id(),
            prompt=prompt,
            completions=completions,
            ranking=ranking,
            scores=scores,
            label=label,
            verdict=verdict,
            weight=self._number_or("weight", 1.0, least=0.0),
            margin=self._number_or("margin", 0.0),
            source=self.optional_text("source") or None,
            tools=self._tools(is_text=isinstance(prompt, str)),
            chat_template_kwargs=self._template_arguments(is_text=isinstance(prompt, str)),
        )

    def id(self, field: str = "id") -> str:
        """The row's own id, else its number."""
        value = self.values.get(field)
        if value is None or value == "":
            return str(self.number)
        if isinstance(value, int) and not isinstance(value, bool):
            if value.bit_length() > 256:
                raise RowError(field, "out of range", f"`{field}` has more than 77 digits: give it as text")
            return str(value)
        return fields.text(value, field)

    def _number_or(self, field: str, default: float, *, least: float = float("-inf")) -> float:
        value = self.values.get(field)
        return default if value is None else fields.number(value, field, least=least)

    def _as_turns(self, prompt: Content, completions: list[Completion]) -> tuple[Content, list[Completion]]:
        """Everything as turns if anything is, or if a system prompt or `as_messages` asks for it."""
        system = self.optional_text("system")
        structured = isinstance(prompt, list) or any(
            isinstance(answer.content, list) for answer in completions
        )
        if not (structured or system or self.as_messages):
            return prompt, completions
        transcript = isinstance(prompt, str) and is_transcript(prompt)
        turns = prompt if isinstance(prompt, list) else _prompt_turns(prompt)
        if system and turns[:1] != [{"role": "system", "content": system}]:
            if turns and turns[0]["role"] == "system":
                message = (
                    "`system` differs from the system turn that the prompt begins with: delete one of them"
                )
                raise RowError("system", "contradiction", message)
            turns = [{"role": "system", "content": system}, *turns]
        return turns, [_answer_as_turns(answer, transcript=transcript) for answer in completions]

    def _refuse_media(self) -> None:
        for field in ("images", "image", "videos", "video", "audios", "audio"):
            value = self.values.get(field)
            if value is not None and value not in ([], ""):
                raise RowError(
                    field, "images", f"the row has `{field}`: only text can be trained on; leave it out"
                )

    def _tools(self, *, is_text: bool) -> list[Any] | None:
        """`tools`, as a list or as JSON inside a string (ShareGPT); an empty one is none."""
        tools = self.values.get("tools")
        if isinstance(tools, str) and tools.strip():
            tools = _json_tools(tools)
        if not tools:
            return None
        if is_text:
            raise _needs_turns("tools")
        return fields.list_of(tools, "tools", fields.plain)

    def _template_arguments(self, *, is_text: bool) -> dict[str, Any]:
        """`chat_template_kwargs` without those that are null (columns that other rows fill)."""
        given = self.values.get("chat_template_kwargs") or {}
        if not isinstance(given, Mapping):
            raise fields.wrong_type("chat_template_kwargs", given, "an object")
        kept = {name: value for name, value in given.items() if value is not None}
        if kept and is_text:
            raise _needs_turns("chat_template_kwargs")
        return {name: fields.plain(value, "chat_template_kwargs") for name, value in kept.items()}


def ranking_of(scores: Sequence[float]) -> list[list[int]]:
    """The ranking that scores say: best first, equal scores tied.

    >>> ranking_of([1.0, 3.0, 1.0])
    [[1], [0, 2]]
    """
    groups: dict[float, list[int]] = {}
    for index, score in enumerate(scores):
        groups.setdefault(score, []).append(index)
    return [groups[score] for score in sorted(groups, reverse=True)]


def _needs_turns(field: str) -> RowError:
    message = f"`{field}` goes with turns, but the prompt is raw text: give turns, or --as messages"
    return RowError(field, "wrong type", message)


def _json_tools(text: str) -> list[Any]:
    try:
        value = json_value(text)
    except RowError as error:
        raise RowError("tools", error.kind, f"`tools` is text that is {error.message}") from None
    return value if isinstance(value, list) else [value]


def _prompt_turns(prompt: str) -> list[Message]:
    if is_transcript(prompt):
        return transcript_turns(prompt)
    return [{"role": "user", "content": prompt}]


def _answer_as_turns(answer: Completion, *, transcript: bool) -> Completion:
    if isinstance(answer.content, list):
        return answer
    if transcript:
        return replace(answer, content=answer_turns(answer.content))
    return replace(answer, content=[{"role": "assistant", "content": answer.content}])


def _check_answer(answer: Completion, name: str) -> None:
    """An answer says something, and as turns begins and ends with the assistant's."""
    if isinstance(answer.content, str):
        if not answer.content:
            raise RowError(name, "empty answer", f"`{name}` is an empty answer: fill it in or delete the row")
        return
    speakers = [turn["role"] for turn in answer.content]
    if not any(_says(turn) for turn in answer.content if turn["role"] == "assistant"):
        raise RowError(name, "empty answer", f"`{name}` is an answer that says nothing: delete the row")
    if speakers[0] != "assistant" or speakers[-1] != "assistant":
        span = f"runs from {speakers[0]} to {speakers[-1]}"
        raise RowError(name, "wrong role", f"`{name}` {span}: an answer begins and ends with assistant")


def _says(turn: Message) -> bool:
    return bool(turn["content"].strip() or turn.get("tool_calls"))


def _check_distinct(
    completions: list[Completion], ranking: list[list[int]] | None, names: Sequence[str]
) -> None:
    """No two answers that are ranked apart may say the same: there is nothing to prefer."""
    if ranking is None or len(ranking) < 2:
        return
    rank_of = {member: rank for rank, group in enumerate(ranking) for member in group}
    for left, right in combinations(sorted(rank_of), 2):
        if rank_of[left] != rank_of[right] and completions[left].content == completions[right].content:
            equal = f"`{names[left]}` equals `{names[right]}`"
            message = f"{equal}: there is nothing to prefer; delete the row or call it a tie"
            raise RowError(names[right], "chosen equals rejected", message)
