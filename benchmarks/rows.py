"""The rows of the table: what is run, on which pairs, with which settings, and what came out of it."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Row:
    """One setting of one side on one set of pairs."""

    key: str
    label: str
    side: Literal["TRL", "likelier"]
    data: Literal["hh", "group-hh", "group-short", "reward-hh"]
    """`reward-hh`: a reward model on the pairs of `hh`; DPO elsewhere."""
    pairs: int
    """The first so many pairs of the set."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    batch: int = 1
    """TRL: pairs per forward."""
    accumulate: int = 8
    """TRL: forwards per step."""
    reference: Literal["precomputed", "fly"] | None = "precomputed"
    """None for a reward model, which has none."""
    rounds: int = 1
    """In how many of the rounds it is run."""
    agreement: bool = False
    """Run for its first step alone, beside TRL's on the same pairs; no line of the table."""

    @property
    def step_pairs(self) -> int:
        """Pairs per optimiser step."""
        return self.batch * self.accumulate


def rows(rounds: int) -> list[Row]:
    """All rows; those of the headline ratio come in every round, the others in the first.

    Rows of groups take four steps and more: a step of likelier's is short there, and the first one costs half a second
    over the others, which a run pays once.
    """
    return [
        trl("hh", 48, 1, 8, rounds=rounds),
        likelier("hh", 48, 8, rounds=rounds),
        trl("hh", 16, 2, 4),
        trl("hh", 16, 4, 2),
        trl("hh", 16, 8, 1, reference="fly"),
        trl("hh", 8, 8, 1, reference="fly", precision="float32"),
        likelier("hh", 24, 8, precision="float32"),
        likelier("hh", 8, 8, precision="float32", key="likelier-first-step", agreement=True),
        trl("group-hh", 48, 1, 12),
        trl("group-hh", 48, 2, 6),
        likelier("group-hh", 48, 12),
        trl("group-short", 96, 1, 12),
        trl("group-short", 96, 4, 3),
        likelier("group-short", 96, 12),
        trl("reward-hh", 48, 1, 8, reference=None),
        trl("reward-hh", 8, 8, 1, reference=None),
        likelier("reward-hh", 48, 8),
    ]


def trl(data: Any, pairs: int, batch: int, accumulate: int, **more: Any) -> Row:
    """A row of TRL."""
    precision = more.get("precision", "bfloat16")
    reference = more.get("reference", "precomputed")
    how = {"fly": ", reference on the fly", "precomputed": ", precomputed reference", None: ""}[reference]
    cast = " autocast" if precision == "bfloat16" else ""
    return Row(
        key=f"trl-{data}-{batch}x{accumulate}-{precision}" + ("" if reference is None else f"-{reference}"),
        label=f"TRL, batch {batch} × {accumulate}, {precision}{cast}{how}",
        side="TRL",
        data=data,
        pairs=pairs,
        batch=batch,
        accumulate=accumulate,
        **more,
    )


def likelier(data: Any, pairs: int, step_pairs: int, **more: Any) -> Row:
    """A row of likelier; `batch` is the pairs of a step, its forwards are its own choice."""
    precision = more.get("precision", "bfloat16")
    return Row(
        **{
            "key": f"likelier-{data}-{precision}",
            "label": f"likelier, {step_pairs} pairs a step, {precision}",
            "side": "likelier",
            "data": data,
            "pairs": pairs,
            "batch": step_pairs,
            "accumulate": 1,
            **more,
        }
    )


@dataclass
class Measured:
    """What the rounds of one row gave."""

    row: Row
    results: list[dict[str, Any]] = field(default_factory=list)

    @property
    def training_seconds(self) -> float:
        """Steps and optimiser, without the reference pass where that is apart."""
        return statistics.median(result["training_seconds"] for result in self.results)

    @property
    def reference_seconds(self) -> float | None:
        """None where the reference is scored inside the steps."""
        known = [result["reference_seconds"] for result in self.results]
        return None if None in known else statistics.median(known)

    @property
    def total_seconds(self) -> float:
        """Reference pass and training."""
        return statistics.median(
            (result["reference_seconds"] or 0.0) + result["training_seconds"] for result in self.results
        )

    @property
    def pairs_per_second(self) -> float:
        """Reference pass included."""
        return self.row.pairs / self.total_seconds

    @property
    def cached_pairs_per_second(self) -> float | None:
        """With the reference known beforehand."""
        return None if self.reference_seconds is None else self.row.pairs / self.training_seconds

    @property
    def peak_bytes(self) -> int:
        """The highest of the rounds."""
        return max(result["peak_bytes"] for result in self.results)


@dataclass(frozen=True)
class Deviation:
    """How far a row's log-probs lie from the true ones."""

    rms: float
    """Nats, over all answers."""
    relative: float
    """The same as a share of the rms log-prob."""
    largest: float


def deviation(found: Sequence[Sequence[float]], true: Sequence[Sequence[float]]) -> Deviation:
    """Of per-pair log-probs `[chosen, rejected]` from the true ones of the same rows.

    >>> deviation([[-1.0, -2.5]], [[-1.0, -2.0]]).largest
    0.5
    """
    pairs = [(f, t) for fs, ts in zip(found, true, strict=True) for f, t in zip(fs, ts, strict=True)]
    rms = math.sqrt(statistics.fmean((f - t) ** 2 for f, t in pairs))
    size = math.sqrt(statistics.fmean(t**2 for _, t in pairs))
    return Deviation(rms, rms / size, max(abs(f - t) for f, t in pairs))


def error_interval(
    ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], true: Sequence[Sequence[float]]
) -> tuple[float, float]:
    """95 % interval of the ratio of the two rms errors, by a bootstrap over pairs (2,000 draws, seed 0)."""
    ours_squares, their_squares = _squares(ours, true), _squares(theirs, true)
    draw = random.Random(0)
    found = []
    for _ in range(2000):
        picked = draw.choices(range(len(true)), k=len(true))
        found.append(math.sqrt(sum(ours_squares[i] for i in picked) / sum(their_squares[i] for i in picked)))
    found.sort()
    return found[50], found[-51]


def _squares(found: Sequence[Sequence[float]], true: Sequence[Sequence[float]]) -> list[float]:
    """Per pair, the sum of its answers' squared errors."""
    return [
        sum((f - t) ** 2 for f, t in zip(fs, ts, strict=True)) for fs, ts in zip(found, true, strict=True)
    ]
