"""The function of a caller in Python that sees each line of metrics as it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from likelier.errors import UsageError

OnStep = Callable[[dict[str, Any]], Mapping[str, float] | bool | None]
"""Called with each line of metrics; may return metrics to add, or True to ask to stop."""


def asks_to_stop(on_step: OnStep, line: dict[str, Any]) -> bool:
    """Show it the line, and add to that what it returns.

    Raises:
        UsageError: it returned what is no number.

    >>> line = {"step": 1}
    >>> asks_to_stop(lambda line: {"twice": 2 * line["step"]}, line), line
    (False, {'step': 1, 'twice': 2.0})
    """
    answer = on_step(line)
    if not isinstance(answer, Mapping):
        return answer is True
    try:
        line.update({str(name): float(value) for name, value in answer.items()})
    except (TypeError, ValueError) as error:
        raise UsageError(f"on_step must return numbers by name ({error}); or True to stop, or None") from None
    return False
