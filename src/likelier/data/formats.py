"""The formats of rows: which columns tell each, and how one of its rows becomes records.

`FORMATS` is tried from top to bottom; the first format whose columns a row has reads it, unless `--format`
names one. Other projects' formats stand in `formats_foreign.py`, `formats_tldr.py` and `formats_chat.py`; here are
our own.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from likelier.data import fields, formats_chat, formats_foreign, formats_tldr
from likelier.data.faults import RowError, did_you_mean, excerpt
from likelier.data.raw_row import RawRow, ranking_of
from likelier.data.records import Completion, Content, Message, Record
from likelier.data.transcripts import is_transcript, split_conversations, split_transcripts
from likelier.errors import UsageError


@dataclass(frozen=True, slots=True)
class Format:
    """A form of rows."""

    name: str
    columns: frozenset[str]
    """A row that has all of these is of this format; none, for one that must be named."""
    read: Callable[[RawRow], Iterable[Record]]
    key: Callable[[Mapping[str, Any]], Hashable] | None = None
    """Where one example spans rows that follow one another: what they have in common."""
    gather: Callable[[Sequence[RawRow]], RawRow] | None = None
    """Makes one row of them."""


def _pairs(row: RawRow) -> list[Record]:
    """`chosen` and `rejected`: answers to `prompt`, or whole conversations that share their beginning."""
    chosen, rejected = row.answers("chosen", "rejected")
    if "prompt" not in row.values:
        prompt, *contents = _split(chosen.content, rejected.content)
    else:
        prompt, *contents = _without_opening(row.content("prompt"), chosen.content, rejected.content)
    completions = [
        _with_content(answer, rest) for answer, rest in zip((chosen, rejected), contents, strict=True)
    ]
    scores = None
    if row.has("score_chosen") and row.has("score_rejected"):
        scores = [row.finite("score_chosen"), row.finite("score_rejected")]
    names = ("chosen", "rejected")
    return [row.record(prompt, completions, ranking=[[0], [1]], scores=scores, names=names)]


def _split(chosen: Content, rejected: Content) -> tuple[Content, Content, Content]:
    if isinstance(chosen, str) and isinstance(rejected, str):
        return split_transcripts(chosen, rejected)
    if isinstance(chosen, list) and isinstance(rejected, list):
        return split_conversations(chosen, rejected)
    raise RowError(
        "rejected", "wrong type", "`chosen` and `rejected` must both be text or both be lists of turns"
    )


def _without_opening(prompt: Content, chosen: Content, rejected: Content) -> tuple[Content, Content, Content]:
    """The prompt and the answers, where the answers may be whole conversations that begin with the prompt."""
    if isinstance(chosen, list) and isinstance(rejected, list):
        return _turns_without_opening(prompt, chosen, rejected)
    if isinstance(prompt, str) and is_transcript(prompt):
        return prompt, _after(prompt, chosen), _after(prompt, rejected)
    return prompt, chosen, rejected


def _after(opening: str, content: Content) -> Content:
    return content.removeprefix(opening) if isinstance(content, str) else content


def _turns_without_opening(
    prompt: Content, chosen: list[Message], rejected: list[Message]
) -> tuple[Content, Content, Content]:
    alone = [not side or side[0]["role"] == "assistant" for side in (chosen, rejected)]
    if all(alone):
        return prompt, chosen, rejected
    if any(alone):
        message = (
            "one of `chosen` and `rejected` is a whole conversation, the other an answer: give both alike"
        )
        raise RowError("chosen" if alone[1] else "rejected", "contradiction", message)
    opening, *answers = split_conversations(chosen, rejected)
    if not (_opens(prompt, opening) if isinstance(prompt, str) else opening[: len(prompt)] == prompt):
        message = "`chosen` begins with turns that are not `prompt`: give one of the two, or answers alone"
        raise RowError("prompt", "contradiction", message)
    return opening, answers[0], answers[1]


def _opens(prompt: str, opening: list[dict[str, Any]]) -> bool:
    """Whether a prompt given as text is what a user says in the opening turns."""
    return any(turn["role"] == "user" and turn["content"].strip() == prompt.strip() for turn in opening)


def _with_content(answer: Completion, content: Content) -> Completion:
    if answer.tokens is not None and content != answer.content:
        message = "`tokens` are those of an answer alone, and `chosen` and `rejected` hold the prompt too"
        raise RowError("tokens", "contradiction", message)
    return Completion(content=content, tokens=answer.tokens, finish=answer.finish)


def _votes(row: RawRow) -> list[Record]:
    """`a`, `b` and a `winner`; a tie and `both_bad` are no preference."""
    first, second = row.answers("a", "b")
    prompt, winner = row.content("prompt"), row.get("winner")
    if winner == "a":
        return [row.record(prompt, [first, second], ranking=[[0], [1]], names=("a", "b"))]
    if winner == "b":
        return [row.record(prompt, [second, first], ranking=[[0], [1]], names=("b", "a"))]
    if winner in ("tie", "both_bad"):
        return [row.record(prompt, [first, second], ranking=[[0, 1]], verdict=winner, names=("a", "b"))]
    hint = did_you_mean(winner, ("a", "b", "tie", "both_bad"))
    message = f'`winner` must be "a", "b", "tie" or "both_bad", not {excerpt(winner)}{hint}'
    raise RowError("winner", "wrong value", message)


def _rankings(row: RawRow) -> list[Record]:
    """`completions` with a `ranking`, `scores` (best is highest), or neither (sampled, not yet labelled)."""
    completions = row.answer_list("completions")
    if not completions:
        raise RowError("completions", "empty answer", "`completions` is an empty list: delete the row")
    scores = fields.list_of(row.get("scores"), "scores", fields.number) if row.has("scores") else None
    if scores is not None and len(scores) != len(completions):
        message = f"`scores` has {len(scores)} entries for {len(completions)} completions: give one each"
        raise RowError("scores", "wrong length", message)
    ranking = ranking_of(scores) if scores is not None else None
    if row.has("ranking"):
        ranking = _ranking(row.get("ranking"), len(completions))
    return [row.record(row.content("prompt"), completions, ranking=ranking, scores=scores)]


def _ranking(value: Any, count: int) -> list[list[int]]:
    """A ranking that names each of `count` completions once."""
    ranking: list[list[int]] = fields.list_of(value, "ranking", _group)
    named = sorted(index for group in ranking for index in group)
    if named != list(range(count)):
        message = f"`ranking` must name each of 0 to {count - 1} once (it names {excerpt(named)})"
        raise RowError("ranking", "wrong ranking", message)
    return ranking


def _group(value: Any, field: str) -> list[int]:
    group = fields.list_of(value, field, fields.integer)
    if not group:
        raise RowError("ranking", "wrong ranking", f"`{field}` is an empty group: leave it out")
    return group


def _unpaired(row: RawRow) -> list[Record]:
    """One `completion` (or the last answer of `messages`) and whether it is a good one."""
    label = fields.truth(row.get("label"), "label")
    if "completion" in row.values or "messages" not in row.values:
        answers = row.answers("completion")
        return [row.record(row.content("prompt"), answers, ranking=[[0]], label=label, names=("completion",))]
    return [formats_chat.labelled_conversation(row, row.messages("messages"), label, "messages")]


def _completions(row: RawRow) -> list[Record]:
    """A `prompt` and the `completion` to imitate."""
    answers = row.answers("completion")
    return [row.record(row.content("prompt"), answers, ranking=[[0]], names=("completion",))]


def _messages(row: RawRow) -> list[Record]:
    """A conversation; every assistant turn in it is imitated."""
    return [formats_chat.whole_conversation(row, row.messages("messages"), "messages")]


def _text(row: RawRow) -> list[Record]:
    """Text without a prompt, imitated from its first token."""
    text = Completion(content=row.text("text"))
    return [row.record("", [text], ranking=[[0]], names=("text",), raw_text=True)]


def _prompts(row: RawRow) -> list[Record]:
    """A prompt alone, to be answered: `prompt`, an `instruction` with its input, or FastChat's `turns`."""
    if "prompt" in row.values or not ({"instruction", "turns"} & row.values.keys()):
        return [row.record(row.content("prompt"), [])]
    name = next((name for name in ("id", "question_id") if row.has(name)), "id")
    return [row.record(formats_foreign.question(row), [], id=row.id(name))]


def _format(name: str, columns: str, read: Callable[[RawRow], Iterable[Record]], **more: Any) -> Format:
    return Format(name, frozenset(columns.split()), read, **more)


FORMATS: tuple[Format, ...] = (
    _format("pairs", "prompt chosen rejected", _pairs),
    *(_format(*entry) for entry in formats_chat.FORMATS),
    _format(
        "oasst-messages",
        "message_tree_id parent_id text role",
        formats_chat.oasst_tree,
        key=lambda values: values.get("message_tree_id"),
        gather=formats_chat.gather_tree,
    ),
    *(_format(*entry) for entry in formats_foreign.FORMATS),
    *(_format(*entry) for entry in formats_tldr.FORMATS),
    _format(
        "helpsteer",
        "prompt response helpfulness",
        formats_foreign.helpsteer,
        key=lambda values: str(values.get("prompt")),
        gather=formats_foreign.gather_helpsteer,
    ),
    _format("pairs", "chosen", _pairs),
    _format("pairs", "rejected", _pairs),
    _format("votes", "winner", _votes),
    _format("votes", "a b", _votes),
    _format("rankings", "completions", _rankings),
    _format("unpaired", "completion label", _unpaired),
    _format("unpaired", "messages label", _unpaired),
    _format("completions", "completion", _completions),
    _format("messages", "messages", _messages),
    _format("text", "text", _text),
    _format("hh", "", _pairs),
    _format("ultrafeedback-binarized", "", _pairs),
    _format("prompts", "", _prompts),
)

_OURS = """
    prompt chosen rejected a b winner completion label completions ranking scores messages text system id
    weight margin source finish tokens tools chat_template_kwargs score_chosen score_rejected
"""
OUR_COLUMNS = frozenset(_OURS.split())
"""Columns that `--columns` may rename others to, besides those that tell a foreign format."""


def named_format(name: str) -> Format:
    """The format that `--format` names."""
    for form in FORMATS:
        if form.name == name:
            return form
    names = list(dict.fromkeys(form.name for form in FORMATS))
    raise UsageError(
        f"--format: unknown format `{name}`{did_you_mean(name, names)} (known: {', '.join(names)})"
    )


@lru_cache(maxsize=256)
def find_format(columns: frozenset[str]) -> Format:
    """The format that these columns tell; a `RowError` where none does."""
    for form in FORMATS:
        if form.columns and form.columns <= columns:
            return form
    shown = ", ".join(sorted(map(str, columns))[:12]) or "none"
    if columns & {"prompt", "response", "answer", "question", "instruction", "turns"}:
        remedy = (
            "the answers are missing: name them with --columns (chosen=…,rejected=…), or name the --format"
        )
    else:
        remedy = "name the --format, or rename them with --columns prompt=…,chosen=…,rejected=…"
    raise RowError(None, "missing", f"no known format has just these columns ({shown[:200]}); {remedy}")


@lru_cache(maxsize=1)
def known_columns() -> frozenset[str]:
    """Every column that some format reads."""
    return OUR_COLUMNS.union(*(form.columns for form in FORMATS))


def check_columns(columns: Mapping[str, str]) -> None:
    """Refuses renaming to a column that no format reads."""
    known = known_columns()
    for column in columns:
        if column not in known:
            raise UsageError(
                f"--columns: no format has a column `{column}`{did_you_mean(column, sorted(known))}"
            )
