"""The files of `src`, parsed, for tests that read source text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "likelier"


@dataclass(frozen=True)
class Module:
    """One file of `src`, parsed."""

    name: str
    tree: ast.Module

    @property
    def room(self) -> str:
        return self.name.split(".")[1] if "." in self.name else "likelier"


@cache
def modules() -> tuple[Module, ...]:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        found.append(Module(".".join(parts).removesuffix(".__init__"), ast.parse(path.read_text("utf-8"))))
    return tuple(found)


def imported(tree: ast.AST) -> Iterator[str]:
    """The dotted names that a source imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def called(call: ast.Call) -> str:
    """What is called, as written: `os.fork`, `path.open`."""
    return ast.unparse(call.func)
