"""The errors a person may meet. Each names what is wrong, where, and what to do about it.

`LikelierError` and its kin print as one message without a traceback (`--debug` shows it); any other
exception is a bug of ours.
"""

from __future__ import annotations


class LikelierError(Exception):
    """Something the user can put right; the command exits with `exit_code`."""

    exit_code = 2


class UsageError(LikelierError):
    """A flag, a configuration key or a path that cannot be used as given."""


class DataError(LikelierError):
    """Data that cannot be used as given; the message names file, row and field."""


class ModelError(LikelierError):
    """A model, tokenizer or adapter that cannot be loaded or used as asked."""


class WorkError(LikelierError):
    """The work started and failed (a loss that is not finite, a full disk); exit code 1."""

    exit_code = 1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: torch says so on a CPU with a plain `RuntimeError`.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    True
    """
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
