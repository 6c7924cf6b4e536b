"""Chat templates: from messages to the prompt's text and each completion's text as its continuation.

The prompt is rendered with the template's generation prompt. What the rendering of the whole conversation
adds to it is the completion, up to its end of turn. Where an answer's own text stands in there is found by
rendering a stand-in answer (`PROBE`) in its place: what surrounds it is the template's, the rest the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from likelier.data.faults import RowError, excerpt
from likelier.data.records import Message, Record
from likelier.data.tokens import Tokenization

PROBE = "likelier0stand0in0answer"
ASSISTANT = "assistant"
STRUCTURE = ("tool_calls", "reasoning_content", "thinking", "function_call")


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a completion's text, and whether its tokens train."""

    text: str
    scored: bool


@dataclass(frozen=True, slots=True)
class Continuation:
    """A completion as the template writes it after the prompt."""

    segments: tuple[Segment, ...]
    ended: bool
    """Whether it closes with an end of turn."""
    edit: str | None = None
    """How the template changed the answer's own text, None where it did not."""
    addition: str | None = None
    """Text that the template wrote before the answer's own, None where there is none but white space."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a template writes around an answer."""

    lead: str
    tail: str
    token: str | None
    """The end-of-turn token's text: the first special token in `tail`."""
    end: int | None
    """Where in `tail` it ends."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An assistant turn found in a rendering: `content` and `end` count from the turn's first character."""

    content: int
    end: int | None
    edit: str | None = None
    addition: str | None = None


class Renderer:
    """One tokenizer's chat template. Raises `RowError` for conversations that it cannot write."""

    def __init__(self, tokenization: Tokenization) -> None:
        self._tokenization = tokenization
        self._frame: Frame | None = None

    def prompt(self, record: Record, messages: Sequence[Message]) -> str:
        """The text of `messages` with the generation prompt: all that the model reads before it answers."""
        return self.render(record, messages, generation=True)

    def render(self, record: Record, messages: Sequence[Message], *, generation: bool = False) -> str:
        """The template's text for `messages`."""
        from jinja2 import TemplateError

        if not self._tokenization.has_template:
            remedy = "give the model one (likelier sft --template chatml), or strings in place of messages"
            raise RowError("prompt", "no chat template", f"the tokenizer has no chat template: {remedy}")
        try:
            return str(
                self._tokenization.tokenizer.apply_chat_template(
                    list(messages),
                    tools=record.tools,
                    tokenize=False,
                    add_generation_prompt=generation,
                    **record.chat_template_kwargs,
                )
            )
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise RowError("prompt", "template", f"the chat template refuses the messages: {said}") from error

    def end_of_turn(self, record: Record) -> str | None:
        """The text of the template's end-of-turn token; None where the template writes no special token."""
        if self._frame is None:
            self._frame = self._probe(record, [{"role": "user", "content": "a"}], {"role": ASSISTANT})
        return self._frame.token

    def continuation(
        self, record: Record, prompt: Sequence[Message], answer: Sequence[Message], start: str, *, cut: bool
    ) -> Continuation:
        """`answer` as it continues `start`, the text of `prompt`; without end of turn if it was `cut`."""
        replies = [index for index, turn in enumerate(answer) if turn["role"] == ASSISTANT]
        if not replies:
            raise RowError("completion", "no assistant turn", "the completion has no assistant turn to train")
        messages = [*prompt, *answer[: replies[-1] + 1]]
        places = [len(prompt) + reply for reply in replies]
        full = self.render(record, messages)
        segments: list[Segment] = []
        turns: list[Turn] = []
        written = len(start)
        for place in places:
            before = start if place == len(prompt) else self.prompt(record, messages[:place])
            _require_prefix(full, before, is_prompt=not segments)
            if len(before) > written:
                segments.append(Segment(full[written : len(before)], False))
            last = place == places[-1]
            turn = self._turn(record, messages, place, before, full, last=last)
            stop = turn.content if (cut and last) or turn.end is None else turn.end
            written = len(before) + stop
            segments.append(Segment(full[len(before) : written], True))
            turns.append(turn)
        edits = [turn.edit for turn in turns if turn.edit]
        additions = [turn.addition for turn in turns if turn.addition]
        ended = turns[-1].end is not None and not cut
        return Continuation(
            tuple(segments), ended, edits[0] if edits else None, additions[0] if additions else None
        )

    def _turn(
        self, record: Record, messages: list[Message], place: int, before: str, full: str, *, last: bool
    ) -> Turn:
        """Find the answer and its end of turn in `full`, which begins with `before`."""
        message, written = messages[place], full[len(before) :]
        alone = written if last else self.render(record, messages[: place + 1])[len(before) :]
        content = message.get("content") or ""
        structured = not isinstance(content, str) or any(message.get(key) for key in STRUCTURE)
        frame = self._frame
        if structured or frame is None or alone != frame.lead + content + frame.tail:
            frame = self._frame = self._probe(record, messages[:place], message)
        if structured:
            return _structured(message, written, frame, last=last)
        tail = frame.tail if last else frame.tail[: frame.end]
        for lead in dict.fromkeys((frame.lead, "")):
            if written.startswith(lead + content + tail):
                end = len(lead) + len(content)
                return Turn(end, _plus(end, frame.end), addition=lead.strip() or None)
        return _edited(content, written, frame, last=last)

    def _probe(self, record: Record, before: Sequence[Message], message: Message) -> Frame:
        """What the template writes around a stand-in for `message`, as the last turn."""
        stand_in = {key: value for key, value in message.items() if key not in STRUCTURE} | {"content": PROBE}
        start = self.prompt(record, before)
        text = self.render(record, [*before, stand_in])
        _require_prefix(text, start, is_prompt=True)
        at = text.find(PROBE, len(start))
        if at < 0:
            raise RowError("completion", "template", "the chat template does not write the answer at all")
        tail = text[at + len(PROBE) :]
        start_end = self._tokenization.first_special(tail)
        token, end = (tail[slice(*start_end)], start_end[1]) if start_end else (None, None)
        return Frame(text[len(start) : at], tail, token, end)


def own_texts(message: Message) -> list[str]:
    """The texts of a turn that a template has to write: content, thinking, names of the tools called."""
    content = message.get("content") or ""
    parts = [content] if isinstance(content, str) else [part.get("text") for part in content]
    thinking = [message.get("reasoning_content"), message.get("thinking")]
    calls = [call.get("function", call).get("name") for call in message.get("tool_calls") or []]
    return [text for text in (*parts, *thinking, *calls) if isinstance(text, str)]


def _structured(message: Message, written: str, frame: Frame, *, last: bool) -> Turn:
    """A turn with tool calls, thinking or parts: its end-of-turn token closes it."""
    edit = next((f"dropped {excerpt(text)}" for text in own_texts(message) if text not in written), None)
    at = -1 if frame.token is None else _close(written, frame.token, last=last)
    if frame.token is None or at < 0:
        return Turn(len(written), None, edit)
    return Turn(at, at + len(frame.token), edit)


def _edited(content: str, written: str, frame: Frame, *, last: bool) -> Turn:
    """A turn whose text the template changed: what is left of it ends where the frame's tail begins."""
    at = _close(written, frame.tail[: frame.end], last=last) if frame.tail else len(written)
    if at < 0:
        raise RowError("completion", "template", "the chat template ends this answer as it ends no other")
    body = written[:at].removeprefix(frame.lead)
    return Turn(at, _plus(at, frame.end), edit=f"{excerpt(content)} became {excerpt(body)}")


def _close(written: str, tail: str, *, last: bool) -> int:
    """Where a turn closes: at the last `tail` if no turn follows, at the first if others do."""
    return written.rfind(tail) if last else written.find(tail)


def _plus(length: int, end: int | None) -> int | None:
    return None if end is None else length + end


def _require_prefix(full: str, before: str, *, is_prompt: bool) -> None:
    if full.startswith(before):
        return
    length = next((i for i, (a, b) in enumerate(zip(full, before, strict=False)) if a != b), len(full))
    whose = "the prompt's" if is_prompt else "that of its earlier turns"
    raise RowError(
        "completion",
        "rendering",
        f"the chat template's full rendering does not begin with {whose} "
        f"(it has {excerpt(full[length:])} where the prompt has {excerpt(before[length:])}): "
        "set `chat_template_kwargs`, or use another template",
    )
