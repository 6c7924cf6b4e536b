"""The values of a row, each checked where it is used: text, turns, numbers. A `RowError` names the field."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from likelier.data.faults import RowError, did_you_mean, excerpt
from likelier.data.json_rows import json_value
from likelier.data.records import Completion, Content, Message

ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython", "environment", "context")
"""Roles that a turn may have; `documents` and the like belong in `chat_template_kwargs`."""

_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bard": "assistant"}
_SHAREGPT_ROLES |= {"bing": "assistant", "observation": "tool", "prompter": "user"}
_MEDIA = ("image", "images", "image_url", "input_image", "video", "videos", "audio", "audios", "input_audio")
_MAX_DEPTH = 60


def get(values: Mapping[str, Any], field: str, *, within: str = "") -> Any:
    """The value of a column, or of a key of the object that stands `within` a column; it must be there."""
    name = f"{within}.{field}" if within else field
    if field not in values:
        hint = did_you_mean(field, map(str, values)) or ": add it or delete the row"
        raise RowError(name, "missing", f"`{name}` is missing{hint}")
    if values[field] is None:
        raise RowError(name, "null", f"`{name}` is null: fill it in or delete the row")
    return values[field]


def wrong_type(field: str, value: Any, wanted: str) -> RowError:
    """The error for a value of another type than `wanted` says."""
    shown = (
        f"{_type_name(value)} {excerpt(value)}" if isinstance(value, (str, int, float)) else _type_name(value)
    )
    return RowError(field, "wrong type", f"`{field}` must be {wanted}, not {shown}")


def _type_name(value: Any) -> str:
    names = {
        str: "the text",
        bool: "the truth value",
        int: "the number",
        float: "the number",
        dict: "an object",
    }
    names |= {list: "a list", tuple: "a list", type(None): "null", bytes: "bytes"}
    return names.get(type(value), f"a {type(value).__name__}")


def text(value: Any, field: str) -> str:
    """`value` as text that can be encoded: no lone surrogates, no NUL."""
    if not isinstance(value, str):
        raise wrong_type(field, value, "text")
    if "\0" in value:
        place = f"`{field}` holds a NUL byte at character {value.index(chr(0)) + 1}"
        raise RowError(field, "NUL byte", f"{place}: take it out")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            message = (
                f"`{field}` holds half of a surrogate pair at character {error.start + 1}: write it as UTF-8"
            )
            raise RowError(field, "lone surrogate", message) from None
    return value


def number(value: Any, field: str, *, least: float = -math.inf) -> float:
    """`value` as a finite number; a truth value is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Real, Decimal)):
        raise wrong_type(field, value, "a number")
    try:
        result = float(value)
    except (OverflowError, ValueError):  # too large; a decimal's signalling NaN
        result = math.inf
    if not math.isfinite(result):
        raise RowError(field, "not finite", f"`{field}` must be a finite number, not {excerpt(value)}")
    if result < least:
        raise RowError(field, "out of range", f"`{field}` must be {least:g} or more, not {value}")
    return result


def integer(value: Any, field: str) -> int:
    """`value` as a whole number; a truth value is none."""
    if isinstance(value, bool) or not isinstance(value, (int, Integral)):
        raise wrong_type(field, value, "a whole number")
    return int(value)


def truth(value: Any, field: str) -> bool:
    """`value` as true or false; 0, 1, and words are refused rather than guessed at."""
    if not isinstance(value, bool):
        raise wrong_type(field, value, "true or false")
    return value


def list_of(value: Any, field: str, item: Callable[[Any, str], Any]) -> list[Any]:
    """`value` as a list, each member checked by `item`."""
    if not isinstance(value, (list, tuple)):
        raise wrong_type(field, value, "a list")
    return [item(member, f"{field}[{index}]") for index, member in enumerate(value)]


def plain(value: Any, field: str, depth: int = 0) -> Any:
    """`value` as JSON that may be handed to a chat template: finite, encodable, not too deep."""
    if depth > _MAX_DEPTH:
        raise RowError(
            field, "malformed", f"`{field}` is nested more than {_MAX_DEPTH} levels deep: flatten it"
        )
    if isinstance(value, str):
        return text(value, field)
    if isinstance(value, (list, tuple)):
        return [plain(member, field, depth + 1) for member in value]
    if isinstance(value, dict):
        return {text(key, field): plain(member, field, depth + 1) for key, member in value.items()}
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value
    return number(value, field)


def content(value: Any, field: str) -> Content:
    """Raw text, or turns: a list of them, or one alone."""
    if isinstance(value, str):
        return text(value, field)
    if isinstance(value, dict) and {"role", "from"} & value.keys():
        return [message(value, field)]
    if isinstance(value, (list, tuple)):
        return messages(value, field)
    raise wrong_type(field, value, "text or a list of turns")


def messages(value: Any, field: str) -> list[Message]:
    """Turns as `{"role", "content"}`, from those or from ShareGPT's `{"from", "value"}`."""
    return list_of(value, field, message)


def message(value: Any, field: str) -> Message:
    """One turn. Keys whose value is null (columns that other rows fill) are left out."""
    if not isinstance(value, dict):
        raise wrong_type(field, value, 'a turn {"role", "content"}')
    if "from" in value and "role" not in value:
        return _sharegpt_turn(value, field)
    turn = {key: item for key, item in value.items() if item is not None}
    role = _role(get(value, "role", within=field), field)
    body = _body(turn.pop("content", None), field, optional=bool(turn.get("tool_calls")))
    extra = {
        key: plain(item, f"{field}.{key}") for key, item in turn.items() if key not in ("role", "content")
    }
    return {"role": role, "content": body, **extra}


def _role(value: Any, field: str) -> str:
    role = text(value, f"{field}.role")
    if role not in ROLES:
        message = (
            f"`{field}` has the role {excerpt(role)}{did_you_mean(role, ROLES)} ; known: {', '.join(ROLES)}"
        )
        raise RowError(field, "wrong role", message)
    return role


def _body(value: Any, field: str, *, optional: bool) -> str:
    """What a turn says; parts of text are joined, pictures refused; with tool calls it may say nothing."""
    name = f"{field}.content"
    if value is None and optional:
        return ""
    if value is None:
        raise RowError(name, "null", f"`{name}` is missing or null: give the turn's text")
    if isinstance(value, list):
        return "".join(list_of(value, name, _part))
    return text(value, name)


def _part(value: Any, field: str) -> str:
    if isinstance(value, str):
        return text(value, field)
    if not isinstance(value, dict):
        raise wrong_type(field, value, 'a part {"type": "text", "text"}')
    if value.get("type") in _MEDIA:
        raise RowError(field, "images", f"`{field}` is of type {value['type']}; only text can be trained on")
    return text(get(value, "text", within=field), f"{field}.text")


def _sharegpt_turn(value: dict[str, Any], field: str) -> Message:
    speaker = text(get(value, "from", within=field), f"{field}.from")
    words = text(get(value, "value", within=field), f"{field}.value")
    if speaker != "function_call":
        return {"role": _role(_SHAREGPT_ROLES.get(speaker, speaker), field), "content": words}
    try:
        given = plain(json_value(words), field)
    except RowError as error:
        raise RowError(field, error.kind, f"`{field}` calls a function, but is {error.message}") from None
    calls = [
        {"type": "function", "function": call} for call in (given if isinstance(given, list) else [given])
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def answer(value: Any, field: str) -> Completion:
    """An answer: text, turns, or `{"text", "tokens", "finish"}` (`messages` in place of `text` for turns)."""
    if isinstance(value, dict) and {"text", "messages"} & value.keys():
        key = "messages" if "messages" in value else "text"
        body = content(get(value, key, within=field), f"{field}.{key}")
        return Completion(
            content=body,
            tokens=tokens(value.get("tokens"), f"{field}.tokens"),
            finish=finish(value.get("finish"), f"{field}.finish"),
        )
    return Completion(content=content(value, field))


def tokens(value: Any, field: str) -> list[int] | None:
    """Token ids that a model sampled, or None."""
    ids = None if value is None else list_of(value, field, integer)
    if ids is not None and (not ids or min(ids) < 0):
        raise RowError(field, "out of range", f"`{field}` must be token ids, at least one and none below 0")
    return ids


def finish(value: Any, field: str) -> str | None:
    """Why a sampled answer ended: `stop` or `length`; None where it is not known."""
    if value not in (None, "stop", "length"):
        message = f'`{field}` must be "stop" or "length", not {excerpt(value)}'
        raise RowError(field, "wrong value", message)
    return None if value is None else str(value)
