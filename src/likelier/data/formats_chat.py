"""Formats made of turns: conversations, LLaMA-Factory's ShareGPT and alpaca forms, OpenAssistant's trees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from likelier.data import fields
from likelier.data.faults import RowError, excerpt
from likelier.data.raw_row import RawRow
from likelier.data.records import Completion, Message, Record


def whole_conversation(row: RawRow, turns: list[Message], field: str) -> Record:
    """A conversation to imitate: the prompt ends where the assistant first speaks."""
    start = next((index for index, turn in enumerate(turns) if turn["role"] == "assistant"), len(turns))
    return _conversation(row, turns, start, field)


def labelled_conversation(row: RawRow, turns: list[Message], label: bool, field: str) -> Record:
    """A conversation whose last answer (all that follows the user's last turn) is labelled."""
    users = [index for index, turn in enumerate(turns) if turn["role"] == "user"]
    return _conversation(row, turns, users[-1] + 1 if users else 0, field, label=label)


def _conversation(
    row: RawRow, turns: list[Message], start: int, field: str, *, label: bool | None = None
) -> Record:
    if start >= len(turns):
        message = (
            f"`{field}` has no turn of the assistant to learn from"
            if turns
            else f"`{field}` is an empty list"
        )
        raise RowError(field, "empty answer", f"{message}: delete the row")
    answer = Completion(content=turns[start:])
    return row.record(turns[:start], [answer], ranking=[[0]], label=label, names=(field,))


def sharegpt(row: RawRow) -> list[Record]:
    """`conversations` with `chosen` and `rejected`, with a `kto_tag` or `label`, or alone."""
    turns = row.messages("conversations")
    if row.has("chosen") or row.has("rejected"):
        return [
            row.record(
                turns, row.answers("chosen", "rejected"), ranking=[[0], [1]], names=("chosen", "rejected")
            )
        ]
    tag = next((name for name in ("kto_tag", "label") if name in row.values), None)
    if tag:
        return [labelled_conversation(row, turns, fields.truth(row.get(tag), tag), "conversations")]
    return [whole_conversation(row, turns, "conversations")]


def alpaca(row: RawRow) -> list[Record]:
    """`instruction`, `input`, `history` as turns, answered by `chosen` and `rejected` or by `output`."""
    prompt = alpaca_turns(row)
    if "chosen" in row.values or "rejected" in row.values:
        return [
            row.record(
                prompt, row.answers("chosen", "rejected"), ranking=[[0], [1]], names=("chosen", "rejected")
            )
        ]
    output = row.get("output")
    if isinstance(output, (list, tuple)) and len(output) == 2:
        answers = fields.list_of(output, "output", fields.answer)
        return [row.record(prompt, answers, ranking=[[0], [1]], names=("output[0]", "output[1]"))]
    label = fields.truth(row.get("kto_tag"), "kto_tag") if "kto_tag" in row.values else None
    return [row.record(prompt, row.answers("output"), ranking=[[0]], label=label, names=("output",))]


def alpaca_turns(row: RawRow) -> list[Message]:
    """The earlier rounds of `history`, then the instruction with its input."""
    history = fields.list_of(row.get("history"), "history", _round) if row.has("history") else []
    earlier = [
        turn for question, reply in history for turn in (_turn("user", question), _turn("assistant", reply))
    ]
    return [*earlier, _turn("user", instruction(row))]


def instruction(row: RawRow) -> str:
    """`instruction`, and `input` below it where there is one."""
    given = row.optional_text("input")
    return f"{row.text('instruction')}\n{given}" if given else row.text("instruction")


def _turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _round(value: Any, field: str) -> list[str]:
    spoken = fields.list_of(value, field, fields.text)
    if len(spoken) != 2:
        raise RowError("history", "wrong length", f"`{field}` must hold a question and its answer")
    return spoken


def oasst_tree(row: RawRow) -> Iterator[Record]:
    """A record for each user's turn with two or more ranked answers; rank 0 is best, equal ranks are tied."""
    found = list(_ranked_turns(row, _tree_node(row.get("prompt"), "prompt"), [], 0))
    if not found:
        message = "no turn of this tree has two or more ranked answers: there is nothing to compare"
        raise RowError("prompt", "nothing ranked", message)
    yield from found


def _tree_node(value: Any, field: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise fields.wrong_type(field, value, "a message of an OpenAssistant tree")
    return value


def _ranked_turns(
    row: RawRow, node: Mapping[str, Any], before: list[Message], depth: int
) -> Iterator[Record]:
    if depth > 200:
        raise RowError(
            "prompt", "malformed", "the tree is more than 200 turns deep: is a message its own ancestor?"
        )
    turns = [*before, fields.message({"from": node.get("role"), "value": node.get("text")}, "prompt")]
    replies = fields.list_of(node.get("replies") or [], "replies", _tree_node)
    ranked = [
        reply for reply in replies if reply.get("role") == "assistant" and reply.get("rank") is not None
    ]
    if turns[-1]["role"] == "user" and len(ranked) >= 2:
        ranks = [fields.number(reply["rank"], "rank") for reply in ranked]
        answers = [
            Completion(content=[_turn("assistant", fields.text(reply.get("text"), "text"))])
            for reply in ranked
        ]
        groups = [[i for i, rank in enumerate(ranks) if rank == level] for level in sorted(set(ranks))]
        name = fields.text(fields.get(node, "message_id"), "message_id")
        yield row.record(turns, answers, ranking=groups, id=name)
    for reply in replies:
        yield from _ranked_turns(row, reply, turns, depth + 1)


def gather_tree(rows: Sequence[RawRow]) -> RawRow:
    """One tree from the hub's form: every message is a row, and the rows of a tree follow one another."""
    nodes = {row.text("message_id"): {**row.values, "replies": []} for row in rows}
    roots = []
    for node in nodes.values():
        parent = node["parent_id"]
        if parent is None:
            roots.append(node)
        elif parent in nodes:
            nodes[parent]["replies"].append(node)
        else:
            message = f"the parent {excerpt(parent)} is not among this tree's rows: keep them together"
            raise RowError("parent_id", "malformed", message)
    if len(roots) != 1:
        raise RowError(
            "parent_id", "malformed", f"the tree has {len(roots)} messages without a parent; it needs one"
        )
    first = rows[0]
    return RawRow({"prompt": roots[0]}, first.file, first.number, first.as_messages)


FORMATS: tuple[tuple[str, str, Callable[[RawRow], Iterable[Record]]], ...] = (
    ("oasst", "message_tree_id prompt", oasst_tree),
    ("sharegpt", "conversations", sharegpt),
    ("alpaca", "instruction chosen", alpaca),
    ("alpaca", "instruction rejected", alpaca),
    ("alpaca", "instruction output", alpaca),
)
