"""The flag `--columns prompt=instruction,chosen=response1`."""

from __future__ import annotations

from likelier.errors import UsageError


def parse_columns(text: str | None) -> dict[str, str]:
    """The renaming in `--columns`.

    >>> parse_columns("prompt=instruction, chosen=response1")
    {'prompt': 'instruction', 'chosen': 'response1'}
    """
    pairs = [part.partition("=") for part in (text or "").split(",") if part.strip()]
    for name, _, given in pairs:
        if not name.strip() or not given.strip():
            raise UsageError(f"--columns must be name=column,name=column …, not {text!r}")
    names = [name.strip() for name, _, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--columns names `{twice}` twice: which column is it?")
    return {name.strip(): given.strip() for name, _, given in pairs}
