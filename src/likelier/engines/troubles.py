"""What a failed request to a server means: another attempt may mend it, none will, or the work cannot go on."""

from __future__ import annotations

import contextlib
import time
from email.utils import parsedate_to_datetime
from typing import Any

from likelier.errors import UsageError

RETRIED = frozenset({408, 409, 425, 429})
"""Statuses below 500 that may pass."""


class Trouble(Exception):  # noqa: N818
    """A failed attempt that another may mend; `reason` is a kind to count by."""

    def __init__(self, reason: str, detail: str, retry_after: float | None = None) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.retry_after = retry_after
        """Seconds that the server asks to wait."""


class Refused(Exception):  # noqa: N818
    """A request that will be refused however often it is sent."""

    def __init__(self, reason: str, detail: str, *, plainer_may_help: bool) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.plainer_may_help = plainer_may_help


def of_status(error: Any, message: str, where: str, key_variable: str | None) -> Exception:
    """What an `openai.APIStatusError` means; `message` is what the server says, in a line, without the key."""
    status = error.status_code
    if status in RETRIED or status >= 500:
        return Trouble(f"HTTP {status}", message, retry_after(error.response.headers))
    if status in (401, 403):
        remedy = (
            f"is the key in {key_variable} right?"
            if key_variable
            else "name the environment variable that holds the key with --api-key-variable"
        )
        return UsageError(f"{where}: access refused (HTTP {status}: {message}): {remedy}")
    if status in (404, 405):
        return UsageError(
            f"{where}: no such model or address (HTTP {status}: {message}): check the name that the server has for "
            "the model, and --base-url, which mostly ends in /v1"
        )
    return Refused(f"HTTP {status}", message, plainer_may_help=status in (400, 422))


def of_connection(error: Exception, message: str) -> Trouble:
    """What any other error of the client means."""
    kind = type(error.__cause__ or error).__name__
    if "Timeout" in kind:
        return Trouble("timeout", message)
    if kind in ("RemoteProtocolError", "ReadError", "WriteError", "DecodingError"):
        return Trouble("closed mid-answer", message)
    if kind.endswith(("ConnectError", "ConnectionError")):
        return Trouble("no connection", message)
    return Trouble("not JSON", message)


def said(error: Any) -> str:
    """What the server says in the body of an `openai.APIStatusError`."""
    body = error.body
    if isinstance(body, dict):
        return str(body.get("message") or body.get("detail") or body)
    return str(body or error.response.text or error)


def retry_after(headers: Any) -> float | None:
    """Seconds that a server asks to wait, given as seconds or as a date.

    >>> retry_after({"retry-after": "2.5"}), retry_after({"retry-after": "soon"}), retry_after({})
    (2.5, None, None)
    """
    value = headers.get("retry-after")
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value)) if float(value) < float("inf") else None
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None
