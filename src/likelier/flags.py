"""How a setting reads on a command line: the name of its flag, and how much it takes."""

from __future__ import annotations

import typing
from typing import Any, Literal


def flag(name: str) -> str:
    """The flag of a field.

    >>> flag("as_"), flag("max_tokens")
    ('--as', '--max-tokens')
    """
    return "--" + name.rstrip("_").replace("_", "-")


def kind_of(annotation: Any) -> Literal["switch", "list", "value"]:
    """What a flag takes: nothing, one of several values, or one.

    >>> kind_of(bool), kind_of(list[str]), kind_of(int | None)
    ('switch', 'list', 'value')
    """
    if annotation is bool:
        return "switch"
    return "list" if typing.get_origin(annotation) is list else "value"
