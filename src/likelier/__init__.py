"""likelier makes the answers people prefer likelier.

>>> import likelier
>>> run = likelier.dpo("smollm2", "preferences.jsonl", out="runs/first")  # doctest: +SKIP
>>> run.report()  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import os
from typing import Any

# torch reads this at its first allocation: large tensors on Linux in large pages, a tenth faster (docs/log.md).
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"
_STAGES = {
    name: f"likelier.stages.{name}"
    for name in ("dpo", "evaluate", "label", "ppo", "reward", "sample", "score", "sft")
}
_ROOMS = ("report", "theory")
"""Rooms that are offered as they are: `likelier.theory.statements()`; `report` is called like the stages."""
__all__ = ["__version__", *_ROOMS, *_STAGES]


def __getattr__(name: str) -> Any:
    """Stages and rooms are imported when they are first used: `import likelier` costs nothing."""
    if name in _ROOMS:
        return importlib.import_module(f"likelier.{name}")
    if name not in _STAGES:
        raise AttributeError(f"module 'likelier' has no attribute {name!r}")
    return getattr(importlib.import_module(_STAGES[name]), name)
