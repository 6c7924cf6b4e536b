"""What a page is told of an item: safe HTML in the order of its showing, and nothing of where it came from.

No row id, no source, no model, no sign that an item is shown for the second time.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from likelier.data.records import Content, Message
from likelier.data.transcripts import is_transcript, transcript_turns
from likelier.labelling.items import Item
from likelier.labelling.rendering import as_json, as_markdown, as_text
from likelier.labelling.state import Showing, State
from likelier.labelling.turns import Progress, Turn

SPEAKERS = {"user": "Person", "assistant": "Assistant", "system": "System", "tool": "Tool"}


def turn_view(turn: Turn, state: State) -> dict[str, Any]:
    """A turn as the page reads it."""
    showing = turn.showing
    return {
        "item": None if showing is None else _item(state, showing, turn.previous),
        "waiting": turn.waiting,
        "progress": _progress(turn.progress),
        "undo": turn.undo,
    }


def _progress(progress: Progress) -> dict[str, Any]:
    return {"done": progress.done, "left": progress.left, "seconds": progress.seconds}


def _item(state: State, showing: Showing, previous: dict[str, Any] | None) -> dict[str, Any]:
    item = state.items[showing.item]
    answers = item.record.completions
    return {
        "showing": showing.id,
        "version": showing.version,
        "prompt": _prompt(item),
        "tools": as_json(item.record.tools) if item.record.tools else None,
        "answers": [
            {"turns": _content(answers[index].content), "text": _source_text(answers[index].content)}
            for index in showing.order
        ],
        "previous": None if previous is None else _previous(previous, showing),
        "votes": _votes(state, showing) if showing.role == "adjudication" else None,
    }


def _previous(body: dict[str, Any], showing: Showing) -> dict[str, Any]:
    """An earlier answer in terms of places."""
    place = {index: at for at, index in enumerate(showing.order)}
    ranking = [[place[index] for index in group] for group in body["ranking"]]
    kept: dict[str, Any] = {
        name: body[name] for name in ("verdict", "strength", "reason", "edit") if name in body
    }
    return {**kept, "ranking": ranking}


def _votes(state: State, showing: Showing) -> list[dict[str, Any]]:
    """What annotators said, in terms of the adjudicator's places, without their names."""
    said = Counter(
        (label.body["verdict"], _written(label.body, showing))
        for label in state.labels[showing.item].values()
    )
    notes = [
        event.body["reason"]
        for event in (*state.labels[showing.item].values(), *_flags(state, showing.item))
        if event.body.get("reason")
    ]
    counted = sorted((-count, words) for (_, words), count in said.items())
    votes: list[dict[str, Any]] = [{"verdict": words, "count": -count} for count, words in counted]
    return [*votes, *({"note": note} for note in notes)]


def _flags(state: State, item: str) -> list[Any]:
    return [flag for showing in state.item_showings(item) for flag in showing.flags]


def _written(body: dict[str, Any], showing: Showing) -> str:
    if body["verdict"] == "both_bad":
        return "all bad" if len(showing.order) > 2 else "both bad"
    if body["verdict"] == "tie":
        return "tie"
    place = {index: at + 1 for at, index in enumerate(showing.order)}
    groups = [
        " = ".join(str(place[index]) for index in sorted(group, key=place.__getitem__))
        for group in body["ranking"]
    ]
    return " > ".join(groups)


def _prompt(item: Item) -> list[dict[str, Any]]:
    prompt = item.record.prompt
    if isinstance(prompt, str) and is_transcript(prompt):
        return _content(transcript_turns(prompt))
    return _content(prompt, speaker="Prompt")


def _content(content: Content, *, speaker: str = "") -> list[dict[str, Any]]:
    """Turns, each with who speaks, its Markdown as HTML, and its plain text as HTML."""
    if isinstance(content, str):
        return [{"speaker": speaker, "html": as_markdown(content), "plain": as_text(content)}]
    alone = len(content) == 1 and content[0]["role"] == "assistant"
    return [_message(message, named=not alone) for message in content]


def _message(message: Message, *, named: bool) -> dict[str, Any]:
    speaker = SPEAKERS.get(message["role"], str(message["role"])) if named else ""
    calls = message.get("tool_calls")
    after = as_json(calls) if calls else ""
    return {
        "speaker": speaker,
        "html": as_markdown(message["content"]) + after,
        "plain": as_text(message["content"]) + after,
    }


def _source_text(content: Content) -> str:
    """What an editor starts from."""
    return content if isinstance(content, str) else str(content[-1]["content"])
