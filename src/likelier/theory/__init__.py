"""The theory, executable: worlds so small that Z(x), π* and every expectation are sums, not samples.

What is asked for most is offered here, and imported when it is first used; the rest is in the files.

>>> import likelier
>>> all(statement.holds for statement in likelier.theory.statements(beta=0.1))
True
"""

from __future__ import annotations

import importlib
from typing import Any

_OFFERED = {
    "Statement": "statement",
    "World": "world",
    "frontier": "optimum",
    "kl": "optimum",
    "log_partition": "optimum",
    "objective": "optimum",
    "optimal_policy": "optimum",
    "optimum_value": "optimum",
    "statements": "all_statements",
    "world_from": "reading",
}
"""The file of each name; no name is that of a file, which an import would put in its place."""
__all__ = [*_OFFERED]


def __getattr__(name: str) -> Any:
    if name not in _OFFERED:
        raise AttributeError(f"module 'likelier.theory' has no attribute {name!r}")
    return getattr(importlib.import_module(f"likelier.theory.{_OFFERED[name]}"), name)
