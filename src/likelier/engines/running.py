"""Samples that wait and samples under way: up to `ROWS` run at once; where one ends, another takes its place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from likelier.engines.cohorts import read_tokens, takes_cohorts
from likelier.engines.decoding import Prefix, filled, read_prompts, width_of
from likelier.engines.drawing import Draws
from likelier.engines.prompts import Prompt
from likelier.engines.stopping import Stopping
from likelier.errors import ModelError

ROWS = 64
"""Samples in one forward. Memory is `ROWS` times the keys and values of one prompt and answer."""
FEW = 8
"""Ended samples are left in their places until so many can be replaced at once: a cohort's buffer is then copied."""


@dataclass(slots=True)
class Row:
    """A sample under way."""

    number: int
    index: int
    drawn: list[int] = field(default_factory=list)
    logp: float = 0.0
    ties: int = 0
    ended: bool = False


@dataclass(slots=True)
class _Cohort:
    """Samples that began together; `prefix` has a row for each, in this order."""

    prefix: Prefix
    rows: list[Row]

    @property
    def position(self) -> int:
        """Tokens drawn so far of every sample that has not ended."""
        return max(len(row.drawn) for row in self.rows)

    @property
    def num_ended(self) -> int:
        """Samples whose places are free."""
        return sum(row.ended for row in self.rows)


class Running:
    """The samples that wait and those under way."""

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Prompt],
        encoded: list[list[int]],
        n: int,
        max_new_tokens: int,
        sampler: Draws,
    ) -> None:
        self._model = model
        self._prompts = prompts
        self._encoded = encoded
        self._max_new_tokens = max_new_tokens
        self._sampler = sampler
        self._running: list[_Cohort] = []
        self._waiting = _by_width([len(tokens) for tokens in encoded], n)
        self._on_cpu = next(model.parameters()).device.type == "cpu"
        # Elsewhere many small calls cost more than products over few rows.
        self.mixed = self._on_cpu and takes_cohorts(model)
        self._wide = torch.promote_types(next(model.parameters()).dtype, torch.float32)

    def admit(self) -> bool:
        """Lets samples in where there is room; False when all have ended."""
        while self._waiting and (room := self._room()):
            rows, self._waiting[0] = self._waiting[0][:room], self._waiting[0][room:]
            self._running.append(self._begin(rows))
            if not self._waiting[0]:
                del self._waiting[0]
        return bool(self._running)

    def step(self, stopping: Stopping) -> list[Row]:
        """Draws a token of every sample under way, and reads it; returns the samples that ended."""
        drawn = [self._draw(cohort, stopping) for cohort in self._running]
        ended = [row for _, rows in drawn for row in rows]
        going = [(cohort, tokens) for cohort, (tokens, _) in zip(self._running, drawn, strict=True)]
        going = [(cohort, tokens) for cohort, tokens in going if cohort.num_ended < len(cohort.rows)]
        self._running = [cohort for cohort, _ in going]
        if self.mixed and going:
            read_tokens(self._model, [c.prefix for c, _ in going], [t for _, t in going], rows=ROWS)
        else:
            for cohort, tokens in going:
                size = len(cohort.prefix.visible)
                fed = filled(tokens.tolist(), size, tokens.device)
                cohort.prefix.logits = cohort.prefix.append(fed[:, None])[:, 0]
        return ended

    def _room(self) -> int:
        """How many samples of the next width may begin now: none, until it is worth it."""
        taken = sum(len(cohort.rows) for cohort in self._running)
        if not self.mixed or not self._running:
            return 0 if self._running else ROWS
        wanted = min(len(self._waiting[0]), FEW)
        ended = sum(cohort.num_ended for cohort in self._running)
        if ROWS - taken >= wanted:
            return ROWS - taken
        if ROWS - taken + ended < wanted:
            return 0
        for cohort in self._running:
            self._close_up(cohort)
        return ROWS - taken + ended

    def _close_up(self, cohort: _Cohort) -> None:
        """Drops the samples that have ended."""
        if cohort.num_ended:
            places = [place for place, row in enumerate(cohort.rows) if not row.ended]
            room = self._max_new_tokens - cohort.position
            kept = torch.tensor(places, device=cohort.prefix.visible.device)
            cohort.prefix = cohort.prefix.select(kept, room=room)
            cohort.rows = [cohort.rows[place] for place in places]

    def _begin(self, places: list[tuple[int, int]]) -> _Cohort:
        numbers = list(dict.fromkeys(number for number, _ in places))
        prefix = read_prompts(self._model, [self._encoded[number] for number in numbers])
        size, kept_in = (0, self._wide) if self.mixed else (ROWS, None)
        rows = filled([numbers.index(number) for number, _ in places], size, prefix.logits.device)
        prefix = prefix.select(rows, room=self._max_new_tokens, kept_in=kept_in)
        return _Cohort(prefix, [Row(number, index) for number, index in places])

    def _draw(self, cohort: _Cohort, stopping: Stopping) -> tuple[Tensor, list[Row]]:
        """The next token of each row, and the rows that ended with it."""
        position, logits = cohort.position, cohort.prefix.logits
        places = [(self._prompts[row.number].id, row.index, position) for row in cohort.rows]
        self._require_numbers(cohort)
        draw = self._sampler.draw_at(logits, places)
        ended = []
        for row, token, logp, tie in zip(cohort.rows, draw.tokens, draw.logps, draw.ties, strict=True):
            if row.ended:
                continue
            row.drawn.append(token)
            row.logp += logp
            row.ties += tie
            row.ended = stopping.ended(row.drawn) or len(row.drawn) == self._max_new_tokens
            if row.ended:
                ended.append(row)
        return torch.tensor(draw.tokens, device=logits.device), ended

    def _require_numbers(self, cohort: _Cohort) -> None:
        """Raises `ModelError` for a row without scores: what is no number in a forward is so for all its tokens."""
        # The first score and the last: of two models' side by side, one of each.
        lost = cohort.prefix.logits[: len(cohort.rows), [0, -1]].isnan().any(dim=1)
        for row, is_lost in zip(cohort.rows, lost.tolist(), strict=True):
            if is_lost and not row.ended:
                raise ModelError(
                    f"prompt {self._prompts[row.number].id!r}: the model's scores of the next token are no numbers"
                    " (NaN): its weights may be damaged; a model in float64 may need float32"
                )


def _by_width(lengths: list[int], n: int) -> list[list[tuple[int, int]]]:
    """(prompt number, sample index) of all samples, those of prompts of one width together, the narrowest first."""
    by_width: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for number, length in enumerate(lengths):
        by_width[width_of(length)] += [(number, index) for index in range(n)]
    return [by_width[width] for width in sorted(by_width)]
