"""Where the lines and the sentences of a run go: memory, the run folder, a tracker, and the reader's terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from likelier.training.folder import RunFolder
from likelier.training.progress import Progress
from likelier.training.run import Run
from likelier.training.signs import Signs
from likelier.training.trackers import Tracker, open_tracker


class Journal:
    """Takes what happens in a run, and says what a practised eye would.

    Args:
        run: gets every line, sample and warning.
        folder: None keeps everything in memory.
        say: where sentences for the user go.
        clip: the norm that gradients are clipped at.
        likelihoods, descends: whether a reward that falls means an answer that grows less likely, and whether the
            loss of a step can be held against that of the first.
    """

    def __init__(
        self,
        run: Run,
        folder: RunFolder | None,
        *,
        say: Callable[[str], None],
        clip: float,
        likelihoods: bool = True,
        descends: bool = True,
    ) -> None:
        self.run, self.folder, self.say = run, folder, say
        self._signs = Signs(clip=clip, likelihoods=likelihoods, descends=descends)
        self._tracker: Tracker | None = None

    def record(self, line: dict[str, Any]) -> None:
        """A line of metrics, wherever it is read; early signs of trouble follow in words."""
        self.run.metrics.append(line)
        if self.folder is not None:
            self.folder.log(line)
        if self._tracker is not None:
            self._tracker.log(line, line["step"])
        for text in self._signs.look(line):
            self.warn(text)

    def sample(self, line: Mapping[str, Any]) -> None:
        """An answer to one of the fixed prompts."""
        self.run.samples.append(dict(line))
        if self.folder is not None:
            self.folder.log(line, file="samples.jsonl")

    def note(self, text: str) -> None:
        """A result in words: said now, and kept."""
        self.say(text)
        self.run.notes.append(text)

    def warn(self, text: str) -> None:
        """A warning: said now, and kept."""
        self.say(f"warning: {text}")
        self.run.notes.append(text)

    def cut_after(self, step: int) -> None:
        """Begin where a checkpoint does: lines after `step` are dropped (all for -1), the rest are looked at."""
        if self.folder is None:
            return
        self.run.metrics = self.folder.cut_after(step)
        self.run.samples = self.folder.lines("samples.jsonl")
        for line in self.run.metrics:
            # Said when they were new; kept all the same.
            self.run.notes += self._signs.look(line)

    @contextmanager
    def watched(
        self, progress: Progress, *, track: str | None, settings: Mapping[str, Any], start: int
    ) -> Iterator[None]:
        """The bar and the tracker, for as long as the context lasts; sentences go above the bar."""
        if track is not None and self.folder is not None:
            self._tracker = open_tracker(track, self.folder.path, settings, start=start)
        say = self.say
        try:
            with progress:
                if progress.shown:
                    self.say = progress.say
                yield
        finally:
            self.say = say
            if self._tracker is not None:
                self._tracker.close()
                self._tracker = None
