"""What a stage says of a server that it may ask: its address and its key, looked at before anything is asked."""

from __future__ import annotations

import os
from typing import Protocol
from urllib.parse import urlsplit

from likelier.errors import UsageError


class ServerSettings(Protocol):
    """What the settings of a stage that may ask a server say of it."""

    base_url: str | None
    api_key_variable: str | None
    concurrency: int
    retries: int
    timeout: float


def checked_address(base_url: str) -> str:
    """The address without a slash at its end.

    Raises:
        UsageError: it is none, or has more in it than an address.

    >>> checked_address("http://127.0.0.1:8000/v1/")
    'http://127.0.0.1:8000/v1'
    """
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--base-url {base_url} is no address: it begins with http:// or https://")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(
            f"--base-url: {parts.scheme}://{parts.hostname}… has more in it than an address; a key belongs into an "
            "environment variable (--api-key-variable)"
        )
    return base_url.rstrip("/")


def key_in(variable: str | None) -> str | None:
    """The key that an environment variable holds; None for no variable.

    Raises:
        UsageError: it is not set, or empty.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UsageError(
            f"--api-key-variable {variable}: there is no such environment variable, or it is empty"
        )
    return key
