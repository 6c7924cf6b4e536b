"""How far a run is: a bar on a terminal, a plain line now and then elsewhere; both on stderr."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bars

from likelier.training.announcement import duration

_LINES = 20
"""Plain lines of a whole run."""
_MEMORY = 0.9
"""Weight of the steps before in the seconds that a step is taken to need."""


class Progress:
    """The bar of a run, and the place where its sentences go.

    Args:
        total: steps of the whole run.
        start: steps done before, of a resumed run.
        quiet: neither bar nor lines; what is said is said all the same.
        console: where to; stderr unless given.

    >>> with Progress(2, 0, quiet=True) as progress:
    ...     progress.step({"step": 1, "loss": 0.69})
    """

    def __init__(
        self, total: int, start: int = 0, quiet: bool = False, *, console: Console | None = None
    ) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self.total, self.done = total, start
        self.shown = not quiet
        self._lines = not quiet and not self.console.is_terminal
        self._every = max(1, total // _LINES)
        self._pace: float | None = None
        self._last = time.perf_counter()
        columns = (
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
        )
        self._bars = Bars(
            *columns, console=self.console, transient=True, disable=quiet or not self.console.is_terminal
        )
        self._task = self._bars.add_task("", total=total, completed=start)

    def __enter__(self) -> Self:
        self._bars.start()
        self._last = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def step(self, metrics: Mapping[str, Any]) -> None:
        """One more step is done; `metrics` is its line."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        self._pace = seconds if self._pace is None else _MEMORY * self._pace + (1 - _MEMORY) * seconds
        self.done += 1
        words = figures(metrics, left=self._pace * (self.total - self.done))
        self._bars.update(self._task, completed=self.done, description=words)
        if self._lines and (self.done % self._every == 0 or self.done == self.total):
            self.say(f"step {self.done}/{self.total}  {words}")

    def say(self, text: str) -> None:
        """A sentence, above the bar where there is one."""
        self.console.print(text, markup=False)


def figures(metrics: Mapping[str, Any], *, left: float) -> str:
    """Loss, margin, accuracy, speed and the time left, of those that a line has.

    >>> figures({"loss": 0.6931, "rewards/margins": 0.01, "tokens_per_second": 1234.5, "mfu": 0.412}, left=200)
    'loss 0.693  margin +0.010  1,234 tokens/s  MFU 41%  3 min left'
    >>> figures({"mfu": 1.8}, left=200)  # other work slowed the products that were timed before the run
    'MFU not known: the machine was busy when its rate was measured  3 min left'
    """
    forms = {
        "loss": "loss {:.3f}",
        "perplexity": "perplexity {:.2f}",
        "rewards/margins": "margin {:+.3f}",
        "rewards/accuracies": "accuracy {:.2f}",
        "tokens_per_second": "{:,.0f} tokens/s",
        "mfu": "MFU {:.0%}",
    }
    if (metrics.get("mfu") or 0.0) > 1.0:
        forms["mfu"] = "MFU not known: the machine was busy when its rate was measured"
    shown = [form.format(metrics[name]) for name, form in forms.items() if metrics.get(name) is not None]
    return "  ".join([*shown, f"{duration(left)} left"])
