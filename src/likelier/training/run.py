"""What a training stage returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn


def nothing_found(result: Mapping[str, Any]) -> Sequence[str]:
    """What a stage without figures of its own says."""
    return ()


@dataclass(slots=True)
class Run:
    """A finished (or stopped) run: its model in memory, its figures, its folder."""

    model: nn.Module
    tokenizer: Any
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """The lines of `metrics.jsonl`."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """The lines of `samples.jsonl`."""
    folder: Path | None = None
    stopped: str | None = None
    """Why it stopped before its last step, or None."""
    notes: list[str] = field(default_factory=list)
    """What was said in words: counts of rows left out, early signs of trouble."""
    unit: str = "pairs"
    """What was trained on."""
    found: Callable[[Mapping[str, Any]], Sequence[str]] = nothing_found
    """What the stage reads in `result`, a sentence each."""

    @property
    def result(self) -> dict[str, Any]:
        """The last figures of training and of evaluation, as one object."""
        trained = [line for line in self.metrics if "loss" in line]
        evaluated = [line for line in self.metrics if "eval/loss" in line]
        last = {**(trained[-1] if trained else {}), **(evaluated[-1] if evaluated else {})}
        if len(evaluated) > 1:
            last["eval/before"] = {k: v for k, v in evaluated[0].items() if k.startswith("eval/")}
        return {**last, "folder": None if self.folder is None else str(self.folder), "stopped": self.stopped}

    def report(self) -> str:
        """The run in a few lines of words."""
        result = self.result
        seen = result.get(f"{self.unit}_seen", 0)
        lines = [f"{_count(result.get('step', 0), 'steps')}, {_count(seen, self.unit)}"]
        if "loss" in result:
            lines[0] += f", loss {result['loss']:.4f}"
        lines += self.found(result)
        if self.stopped:
            lines.append(f"stopped: {self.stopped}")
        if self.folder is not None:
            lines.append(f"run folder {self.folder}")
        return "\n".join([*lines, *self.notes])


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun.removesuffix('s') if number == 1 else noun}"
