"""Records to rows of token ids: which tokens train is decided here, once per example (promise 8)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from likelier.data.contents import (
    answer_messages,
    field_name,
    prompt_messages,
    require_scored,
    require_tokens,
    require_unicode,
    texts_of,
    without_text,
)
from likelier.data.faults import RowError, excerpt
from likelier.data.records import Message, Record
from likelier.data.tally import Tally
from likelier.data.templates import Continuation, Renderer, Segment
from likelier.data.tokens import Tokenization
from likelier.data.trees import BoolArray, TokenArray

SPLIT = "boundary split"
SPECIAL = "special token in text"
NO_END = "no end of turn"
CUT_ANSWER = "answer cut when sampled"
EDIT = "template edit"
ADDITION = "text added by the template"
UNSCORED = "first token unscored"
RAW = "raw text, chat template unused"
WINDOW = 24
"""Characters looked at on either side of a boundary."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A completion's token ids, which of them train, and its index in the record."""

    completion: int
    tokens: TokenArray
    scored: BoolArray


@dataclass(frozen=True, slots=True)
class Row:
    """A record as token ids. `record` has lost its text, unless the row is too long and may need it again."""

    index: int
    record: Record
    prompt: TokenArray
    branches: tuple[Branch, ...]


@dataclass(frozen=True, slots=True)
class Draft:
    """A record as text, before the batch is tokenised."""

    index: int
    record: Record
    prompt: str
    chat: bool
    wanted: tuple[tuple[int, Continuation], ...]
    """Completion index and text."""


class RowEncoder:
    """Renders one record after another and tokenises them together."""

    def __init__(
        self, tokenization: Tokenization, tally: Tally, *, as_messages: bool, allow_template_edits: bool
    ) -> None:
        self.tokenization = tokenization
        self.renderer = Renderer(tokenization)
        self._tally = tally
        self._as_messages = as_messages
        self._allow_template_edits = allow_template_edits

    def draft(self, index: int, record: Record, wanted: Sequence[int]) -> Draft:
        """The record's text. Raises `RowError`, with the reason, for one that cannot be used."""
        messages = prompt_messages(record, as_messages=self._as_messages)
        require_unicode(record)
        start = record.prompt if messages is None else self.renderer.prompt(record, messages)
        if messages is None and self.tokenization.has_template:
            self._tally.note(RAW, record)
        self._note_special(record, wanted)
        texts = tuple((at, self._continuation(record, at, messages, str(start))) for at in wanted)
        return Draft(index, record, str(start), messages is not None, texts)

    def _continuation(
        self, record: Record, at: int, messages: list[Message] | None, start: str
    ) -> Continuation:
        """The text after the prompt; empty where sampled tokens stand in its place."""
        completion = record.completions[at]
        field = field_name(record, at)
        if completion.tokens is not None:
            require_tokens(completion, field, self.tokenization)
            return Continuation((), ended=False)
        cut = completion.finish == "length"
        if messages is None:
            if not isinstance(completion.content, str):
                remedy = "give both as strings, or both as messages"
                raise RowError(field, "mixed", f"`{field}` is messages, the prompt a string: {remedy}")
            return Continuation((Segment(completion.content, True),), ended=False)
        try:
            text = self.renderer.continuation(record, messages, answer_messages(completion), start, cut=cut)
        except RowError as error:
            raise RowError(field, error.kind, f"`{field}`: {error.message}") from error
        self._note_template(record, field, text)
        return text

    def _note_template(self, record: Record, field: str, text: Continuation) -> None:
        if text.addition:
            self._tally.note(ADDITION, record, detail=excerpt(text.addition))
        if not text.edit:
            return
        self._tally.note(EDIT, record, detail=text.edit)
        if not self._allow_template_edits:
            what = f"`{field}`: the chat template changed the answer ({text.edit})"
            raise RowError(field, EDIT, f"{what}: change the data, or allow it with --allow-template-edits")

    def _note_special(self, record: Record, wanted: Sequence[int]) -> None:
        """Special tokens' names in the data's own text become those tokens, as anywhere else: count them."""
        for content in (record.prompt, *(record.completions[at].content for at in wanted)):
            for text in texts_of(content):
                if found := self.tokenization.first_special(text):
                    self._tally.note(SPECIAL, record, detail=excerpt(text[slice(*found)]))
                    return

    def rows(self, drafts: Sequence[Draft], *, max_length: int | None) -> Iterator[Row]:
        """Tokenise a batch of drafts; a row that cannot be used goes to the tally."""
        starts, following = _texts(drafts)
        start_ids = dict(zip(starts, self.tokenization.start_texts(starts), strict=True))
        next_ids = dict(zip(following, self.tokenization.continue_texts(following), strict=True))
        for draft in drafts:
            try:
                yield self._row(draft, start_ids, next_ids, max_length)
            except RowError as error:
                self._tally.refuse(draft.record, error)

    def _row(self, draft: Draft, starts: Ids, continuations: Ids, max_length: int | None) -> Row:
        body = starts.get(draft.prompt, [])
        prompt = body if draft.chat else with_bos(body, self.tokenization.bos)
        branches = []
        for at, text in draft.wanted:
            tokens, scored = self._tokens(draft, at, text, starts, continuations)
            if not prompt and tokens:
                scored[0] = False
            require_scored(draft.record, at, scored)
            branches.append(Branch(at, np.asarray(tokens, np.int32), np.asarray(scored, np.bool_)))
        if not prompt:
            self._tally.note(UNSCORED, draft.record)
        longest = max(len(branch.tokens) for branch in branches)
        too_long = max_length is not None and len(prompt) + longest > max_length
        record = draft.record if too_long else without_text(draft.record)
        return Row(draft.index, record, np.asarray(prompt, np.int32), tuple(branches))

    def _tokens(
        self, draft: Draft, at: int, text: Continuation, starts: Ids, continuations: Ids
    ) -> tuple[list[int], list[bool]]:
        """A completion's ids and mask, with its end of turn."""
        completion = draft.record.completions[at]
        if completion.tokens is not None:
            tokens, scored = list(completion.tokens), [True] * len(completion.tokens)
        else:
            tokens, scored = self._joined(draft, text, starts, continuations)
        if completion.finish == "length":
            self._tally.note(CUT_ANSWER, draft.record)
        elif not text.ended:
            end = self._end(draft, sampled=completion.tokens is not None)
            if end is None:
                self._tally.note(NO_END, draft.record)
            elif tokens[-1:] not in ([end], [self.tokenization.eos]):
                tokens, scored = [*tokens, end], [*scored, True]
        return tokens, scored

    def _end(self, draft: Draft, *, sampled: bool) -> int | None:
        """The end of turn to append: EOS to raw text, the template's to sampled tokens of a chat."""
        if not draft.chat:
            return self.tokenization.eos
        token = self.renderer.end_of_turn(draft.record) if sampled else None
        return None if token is None else self.tokenization.continue_texts([token])[0][0]

    def _joined(
        self, draft: Draft, text: Continuation, starts: Ids, continuations: Ids
    ) -> tuple[list[int], list[bool]]:
        """The segments' ids; where a boundary looks merged, prompt and answer are tokenised as one text."""
        tokens: list[int] = []
        scored: list[bool] = []
        for segment in text.segments:
            ids = (continuations if tokens or draft.prompt else starts)[segment.text]
            tokens.extend(ids)
            scored.extend([segment.scored] * len(ids))
        merged = (
            starts[before + after] != starts[before] + continuations[after]
            for before, after in _boundaries(draft.prompt, text)
        )
        if not any(merged):
            return tokens, scored
        return self._merged(draft, text, starts[draft.prompt] if draft.prompt else [], tokens, scored)

    def _merged(
        self, draft: Draft, text: Continuation, body: list[int], tokens: list[int], scored: list[bool]
    ) -> tuple[list[int], list[bool]]:
        """The joint text's ids where they part at the boundary after all; else split there and counted."""
        whole = draft.prompt + text_of(text)
        joint = self.tokenization.start_texts([whole])[0]
        if joint == body + tokens:
            return tokens, scored
        begin = self.tokenization.starts_at(whole, len(draft.prompt))
        if len(text.segments) == 1 and begin == len(body) and joint[:begin] == body:
            return joint[begin:], [True] * (len(joint) - begin)
        self._tally.note(SPLIT, draft.record, detail=excerpt(whole[max(0, len(draft.prompt) - 12) :]))
        return tokens, scored


Ids = dict[str, list[int]]
"""Token ids by text, for one batch."""


def _texts(drafts: Sequence[Draft]) -> tuple[list[str], list[str]]:
    """The different texts of a batch that open a row, and those that continue one."""
    starts: dict[str, None] = {}
    continuations: dict[str, None] = {}
    for draft in drafts:
        starts[draft.prompt] = None
        for _, text in draft.wanted:
            continuations |= dict.fromkeys(segment.text for segment in text.segments)
            if not draft.prompt and text.segments:
                starts[text.segments[0].text] = None
            for before, after in _boundaries(draft.prompt, text):
                starts |= {before: None, before + after: None}
                continuations[after] = None
    return list(starts), list(continuations)


def _boundaries(prompt: str, text: Continuation) -> Iterator[tuple[str, str]]:
    """The text just before and just after each place where tokens are made to part.

    A token that runs across such a place shows in this window; tokenising every prompt once more with each of
    its answers would show no more, and takes most of the time.
    """
    written = prompt
    for segment in text.segments:
        if written and segment.text:
            yield written[-WINDOW:], segment.text[:WINDOW]
        written = (written + segment.text)[-WINDOW:]


def text_of(text: Continuation) -> str:
    """A continuation's segments as one text."""
    return "".join(segment.text for segment in text.segments)


def with_bos(body: list[int], bos: list[int]) -> list[int]:
    """`body` with BOS in front, once.

    >>> with_bos([5, 6], [1]), with_bos([1, 5], [1])
    ([1, 5, 6], [1, 5])
    """
    return body if body[: len(bos)] == bos else bos + body
