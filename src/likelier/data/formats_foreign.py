"""Formats of other data sets that are raw text: SHP, HelpSteer 1 to 3, UltraFeedback, PandaLM, questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from likelier.data import fields
from likelier.data.faults import RowError, excerpt
from likelier.data.formats_chat import instruction
from likelier.data.raw_row import RawRow, ranking_of
from likelier.data.records import Completion, Content, Record


def _ordered(
    row: RawRow, prompt: Content, names: tuple[str, str], better: int, *, id: str | None = None
) -> Record:
    """A pair of columns of which `better` (0 or 1) is preferred, or none where it is -1."""
    answers = row.answers(*names)
    if better == -1:
        return row.record(prompt, answers, ranking=[[0, 1]], verdict="tie", names=names, id=id)
    order = (better, 1 - better)
    shown = tuple(names[index] for index in order)
    return row.record(prompt, [answers[index] for index in order], ranking=[[0], [1]], names=shown, id=id)


def shp(row: RawRow) -> list[Record]:
    """Stanford Human Preferences: `labels` is 1 where `human_ref_A` is preferred and 0 where B is."""
    label = fields.integer(row.get("labels"), "labels")
    if label not in (0, 1):
        raise RowError(
            "labels", "wrong value", f"`labels` must be 1 (A is better) or 0 (B is better), not {label}"
        )
    return [_ordered(row, row.text("history"), ("human_ref_A", "human_ref_B"), 1 - label)]


def helpsteer3(row: RawRow) -> list[Record]:
    """HelpSteer 3: turns in `context`; `overall_preference` from -3 (response 1 is better) to 3."""
    names = ("response1", "response2")
    return [_ordered(row, row.messages("context"), names, _preference(row, "overall_preference"))]


def helpsteer2(row: RawRow) -> list[Record]:
    """HelpSteer 2's preferences: `preference_strength` from -3 (response 1 is better) to 3."""
    names = ("response_1", "response_2")
    return [_ordered(row, row.content("prompt"), names, _preference(row, "preference_strength"))]


def _preference(row: RawRow, field: str) -> int:
    """0 or 1 for the better response, -1 for a tie."""
    strength = row.finite(field)
    if not -3 <= strength <= 3:
        raise RowError(field, "out of range", f"`{field}` must lie between -3 and 3, not {strength:g}")
    return -1 if strength == 0 else int(strength > 0)


def helpsteer(row: RawRow) -> list[Record]:
    """HelpSteer 1 and 2: the responses that follow one another under one prompt, scored by `helpfulness`."""
    responses, scores = row.get("response"), row.get("helpfulness")
    answers = fields.list_of(responses, "response", fields.answer)
    points: list[float] = fields.list_of(scores, "helpfulness", fields.number)
    names = [f"response[{index}]" for index in range(len(answers))]
    return [
        row.record(row.content("prompt"), answers, ranking=ranking_of(points), scores=points, names=names)
    ]


def gather_helpsteer(rows: Sequence[RawRow]) -> RawRow:
    """The rows of one prompt as one row."""
    first = rows[0]
    lists = {name: [row.get(name) for row in rows] for name in ("response", "helpfulness")}
    return RawRow({**first.values, **lists}, first.file, first.number, first.as_messages)


def ultrafeedback(row: RawRow) -> list[Record]:
    """UltraFeedback as published: four `completions` with GPT-4's scores.

    The score is `fine-grained_score`, the mean over the aspects, and `overall_score` only where that is
    missing: some overall scores of 1 were recorded as 10 (reported by Argilla).
    """
    given = fields.list_of(row.get("completions"), "completions", _scored_response)
    if not given:
        raise RowError("completions", "empty answer", "`completions` is an empty list: delete the row")
    answers = [Completion(content=response) for response, _ in given]
    scores = [score for _, score in given]
    return [row.record(instruction(row), answers, ranking=ranking_of(scores), scores=scores)]


def _scored_response(value: Any, field: str) -> tuple[str, float]:
    if not isinstance(value, Mapping):
        raise fields.wrong_type(field, value, "an object with `response` and a score")
    name = "fine-grained_score" if value.get("fine-grained_score") is not None else "overall_score"
    response = fields.text(fields.get(value, "response", within=field), f"{field}.response")
    return response, fields.number(fields.get(value, name, within=field), f"{field}.{name}")


def pandalm(row: RawRow) -> list[Record]:
    """PandaLM's annotators (1, 2, or 0 for a tie): the answer that more than half prefer, else a tie."""
    votes = [_vote(row, name) for name in sorted(row.values) if name.startswith("annotator")]
    if not votes:
        raise RowError("annotator1", "missing", "`annotator1` is missing: PandaLM rows carry their votes")
    vote, count = Counter(votes).most_common(1)[0]
    winner = vote if 2 * count > len(votes) else 0
    return [_ordered(row, instruction(row), ("response1", "response2"), winner - 1, id=row.id("idx"))]


def _vote(row: RawRow, field: str) -> int:
    vote = fields.integer(row.get(field), field)
    if vote not in (0, 1, 2):
        raise RowError(field, "wrong value", f"`{field}` must be 1, 2 or 0 for a tie, not {excerpt(vote)}")
    return vote


def question(row: RawRow) -> str:
    """What is asked: FastChat's one of `turns`, or an `instruction` with its input (Self-Instruct's first)."""
    if "turns" in row.values:
        turns = fields.list_of(row.get("turns"), "turns", fields.text)
        if len(turns) != 1:
            message = f"`turns` holds {len(turns)} questions; only one can be answered: keep the first"
            raise RowError("turns", "wrong length", message)
        return str(turns[0])
    instances = row.values.get("instances")
    if not instances:
        return instruction(row)
    first = fields.list_of(instances, "instances", _instance)[0]
    return instruction(RawRow({**row.values, "input": first}, row.file, row.number))


def _instance(value: Any, field: str) -> Any:
    """The input of one of Self-Instruct's instances."""
    if not isinstance(value, Mapping):
        raise fields.wrong_type(field, value, "an object with `input`")
    return value.get("input")


FORMATS: tuple[tuple[str, str, Callable[[RawRow], Iterable[Record]]], ...] = (
    ("shp", "history human_ref_A human_ref_B", shp),
    ("helpsteer3", "context response1 response2 overall_preference", helpsteer3),
    ("helpsteer2", "response_1 response_2 preference_strength", helpsteer2),
    ("pandalm", "instruction response1 response2 annotator1", pandalm),
    ("ultrafeedback", "instruction completions", ultrafeedback),
)
