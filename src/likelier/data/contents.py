"""What a record holds, for the tokenizer: texts or messages, and whether they can be used."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from likelier.data.faults import RowError, excerpt
from likelier.data.records import Completion, Content, Message, Record
from likelier.data.templates import ASSISTANT, own_texts
from likelier.data.tokens import Tokenization


def without_text(record: Record) -> Record:
    """What trees need of a record, so that a million rows do not keep their text."""
    return dataclasses.replace(record, prompt="", completions=[], tools=None, chat_template_kwargs={})


def field_name(record: Record, completion: int) -> str:
    """How a message names a completion: chosen, rejected, completion, or its place in the list."""
    if len(record.completions) == 1:
        return "completion"
    if len(record.completions) == 2 and record.ranking == [[0], [1]]:
        return ("chosen", "rejected")[completion]
    return f"completions[{completion}]"


def prompt_messages(record: Record, *, as_messages: bool) -> list[Message] | None:
    """The prompt as messages; None for raw text."""
    if not isinstance(record.prompt, str):
        return record.prompt
    if not as_messages:
        return None
    return [{"role": "user", "content": record.prompt}] if record.prompt else []


def answer_messages(completion: Completion) -> list[Message]:
    """The completion as messages: a plain string is one assistant turn."""
    if isinstance(completion.content, str):
        return [{"role": ASSISTANT, "content": completion.content}]
    return completion.content


def texts_of(content: Content) -> list[str]:
    """The texts of a prompt or completion that the data wrote."""
    return [content] if isinstance(content, str) else [text for turn in content for text in own_texts(turn)]


def require_unicode(record: Record) -> None:
    """A lone surrogate has no bytes, so no tokenizer takes it."""
    fields = {"prompt": record.prompt}
    fields |= {field_name(record, i): answer.content for i, answer in enumerate(record.completions)}
    for name, content in fields.items():
        for text in texts_of(content):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                what = f"`{name}` holds a lone surrogate at character {error.start}"
                raise RowError(name, "surrogate", f"{what}: remove that character") from error


def require_scored(record: Record, at: int, scored: Sequence[bool]) -> None:
    """A completion without a scored token says nothing."""
    if not any(scored):
        field = field_name(record, at)
        raise RowError(field, "nothing to score", f"`{field}` has no token that can be trained: leave it out")


def require_tokens(completion: Completion, field: str, tokenization: Tokenization) -> None:
    """Sampled ids must be this tokenizer's: in range, and decode to the text beside them."""
    tokens = completion.tokens or []
    if any(not 0 <= token < tokenization.vocabulary_size for token in tokens):
        limit = tokenization.vocabulary_size
        raise RowError(field, "tokens", f"`tokens` of `{field}` has ids beyond the tokenizer's {limit}")
    if isinstance(completion.content, str):
        decoded = tokenization.decode(tokens)
        readings = (decoded, tokenization.decode(tokens, special=False))
        if _letters(completion.content) not in map(_letters, readings):
            what = f"`tokens` of `{field}` decodes to {excerpt(decoded)}, not to its text"
            raise RowError(field, "tokens", f"{what}: leave `tokens` out, or use the model they came from")
    elif len(completion.content) > 1:
        raise RowError(field, "tokens", f"`tokens` of `{field}` stands beside several turns: leave it out")


def _letters(text: str) -> str:
    """Text without white space and broken characters, which decoding may write in more than one way."""
    return "".join(text.replace("\ufffd", "").split())
