"""From measured rows to figures, ratios against what must be reached, and agreement."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.memory import FixedState, fixed_state
from benchmarks.pairs import ANSWERS, GROUP_LENGTHS
from benchmarks.rates import Shapes, tree_sizes, work
from benchmarks.rows import Deviation, Measured, deviation, error_interval

GB = 1e9
SETS = {
    "hh": "HH pairs",
    "group-hh": "six pairs of four answers, prompt 125 tokens, answers 45",
    "group-short": "six pairs of four answers, prompt 6 tokens, answers 45",
    "reward-hh": "reward model, HH pairs",
}


@dataclass(frozen=True)
class Machine:
    """What the figures are held against."""

    shapes: Shapes
    parameters: int
    rates: dict[str, list[float]]
    """FLOP per second by precision, one per round."""
    threads: int
    pairs: dict[str, Any]
    """What `pairs.py` said of its pairs."""

    def rate(self, precision: str) -> float:
        return statistics.median(self.rates[precision])

    @property
    def fixed(self) -> FixedState:
        return fixed_state(self.parameters)


@dataclass(frozen=True)
class Figures:
    """One line of the table."""

    data: str
    label: str
    side: str
    pairs: int
    rounds: int
    pairs_per_second: float
    cached_pairs_per_second: float | None
    """With the reference known beforehand."""
    tokens_per_second: float
    """Of the trees: each prompt once, on both sides."""
    reference_seconds: float | None
    training_seconds: float
    peak_gb: float
    above_fixed_gb: float
    flop_share: float
    """The floor's FLOP over the time taken and the measured rate of that precision (MFU)."""
    error_nats: float | None
    error_share: float | None


@dataclass(frozen=True)
class Ratio:
    """One thing that must be reached."""

    name: str
    value: float
    target: float
    at_most: bool = False
    low: float | None = None
    high: float | None = None
    """A 95 % interval, for what is a statistic of the rows rather than of the clock."""

    @property
    def met(self) -> bool:
        """With an interval: not shown to be missed."""
        if self.at_most:
            return (self.value if self.low is None else self.low) <= self.target
        return (self.value if self.high is None else self.high) >= self.target


@dataclass
class Outcome:
    """Everything one run of the benchmark found."""

    measured: list[Measured]
    truth: dict[str, Any]
    machine: Machine

    def find(
        self, side: str, data: str, *, precision: str | None = None, reference: str | None = None
    ) -> list[Measured]:
        """Measured rows of one side on one set of pairs."""
        return [
            m
            for m in self.measured
            if (m.row.side, m.row.data) == (side, data)
            and not m.row.agreement
            and precision in (None, m.row.precision)
            and reference in (None, m.row.reference)
        ]


def trees_of(measured: Measured, truth: dict[str, Any]) -> list[tuple[int, int]]:
    """`(tokens, scored tokens)` of the trees behind a row's pairs."""
    row = measured.row
    if row.data == "hh":
        return tree_sizes(truth["token_counts"][: row.pairs])
    if row.data == "reward-hh":  # Its head is one number for each answer: nothing beside a vocabulary.
        return [(tokens, 0) for tokens, _ in tree_sizes(truth["token_counts"][: row.pairs])]
    prompt, answer = GROUP_LENGTHS[row.data]
    groups = row.pairs // (ANSWERS * (ANSWERS - 1) // 2)
    return [(prompt + ANSWERS * answer, ANSWERS * answer)] * groups


def figures(measured: Measured, outcome: Outcome) -> Figures:
    """The line of the table for one row."""
    row, machine = measured.row, outcome.machine
    trees = trees_of(measured, outcome.truth)
    needed = work(machine.shapes, trees)
    reference = 0.0 if row.data == "reward-hh" else needed.reference
    floor = (needed.training + reference) / machine.rate(row.precision)
    error = deviation_of(measured, outcome.truth)
    return Figures(
        data=row.data,
        label=row.label,
        side=row.side,
        pairs=row.pairs,
        rounds=len(measured.results),
        pairs_per_second=measured.pairs_per_second,
        cached_pairs_per_second=measured.cached_pairs_per_second,
        tokens_per_second=sum(tokens for tokens, _ in trees) / measured.total_seconds,
        reference_seconds=measured.reference_seconds,
        training_seconds=measured.training_seconds,
        peak_gb=measured.peak_bytes / GB,
        above_fixed_gb=(measured.peak_bytes - machine.fixed.total) / GB,
        flop_share=floor / measured.total_seconds,
        error_nats=error and error.rms,
        error_share=error and error.relative,
    )


def deviation_of(measured: Measured, truth: dict[str, Any]) -> Deviation | None:
    """How far a row's log-probs at the start lie from the truth (HH pairs alone have one)."""
    if measured.row.data != "hh":
        return None
    return deviation(measured.results[0]["log_probs"], truth["log_probs"][: measured.row.pairs])


def fastest(rows: Iterable[Measured]) -> Measured:
    return max(rows, key=lambda measured: measured.pairs_per_second)


def ratios(outcome: Outcome) -> list[Ratio]:
    """What must be reached, of the rows that were run."""
    found: list[Ratio] = []
    for data, target in (("hh", 3.0), ("group-hh", 12.0), ("group-short", 6.0), ("reward-hh", 2.5)):
        ours = outcome.find("likelier", data, precision="bfloat16")
        theirs = outcome.find("TRL", data)
        if ours and theirs:
            ratio = ours[0].pairs_per_second / fastest(theirs).pairs_per_second
            found.append(Ratio(f"speed over TRL's best, {SETS[data]}", ratio, target))
    ours, theirs = outcome.find("likelier", "hh", precision="bfloat16"), outcome.find("TRL", "hh")
    if ours and theirs:
        found += against_batch_8(ours[0], outcome) + memory_ratios(ours[0], theirs, outcome.machine)
        found += error_ratio(ours[0], theirs, outcome.truth)
    return found


def against_batch_8(ours: Measured, outcome: Outcome) -> list[Ratio]:
    """Against TRL with eight pairs per forward and the reference scored in every step."""
    found = []
    for theirs in outcome.find("TRL", "hh", reference="fly"):
        name = f"TRL at batch 8, reference on the fly, {theirs.row.precision}"
        found.append(Ratio(f"speed over {name}", ours.pairs_per_second / theirs.pairs_per_second, 8.0))
        found.append(Ratio(f"memory of {name}", ours.peak_bytes / theirs.peak_bytes, 0.25, at_most=True))
    return found


def memory_ratios(ours: Measured, theirs: Sequence[Measured], machine: Machine) -> list[Ratio]:
    """Against TRL's least memory, whole and above the fixed state."""
    least, fixed = min(measured.peak_bytes for measured in theirs), machine.fixed.total
    return [
        Ratio("memory of TRL's least", ours.peak_bytes / least, 0.8, at_most=True),
        Ratio(
            "memory above the fixed state, of TRL's",
            (ours.peak_bytes - fixed) / (least - fixed),
            0.5,
            at_most=True,
        ),
    ]


def error_ratio(ours: Measured, theirs: Sequence[Measured], truth: dict[str, Any]) -> list[Ratio]:
    """The log-prob error against that of TRL's autocast in its best row, on the rows that both scored."""
    best = fastest(theirs)
    rows = min(ours.row.pairs, best.row.pairs)
    mine, other = ours.results[0]["log_probs"][:rows], best.results[0]["log_probs"][:rows]
    true = truth["log_probs"][:rows]
    ratio = deviation(mine, true).rms / deviation(other, true).rms
    low, high = error_interval(mine, other, true)
    return [Ratio("rms log-prob error of TRL's autocast", ratio, 1.0, at_most=True, low=low, high=high)]


def agreement(outcome: Outcome) -> dict[str, Any] | None:
    """First step of both sides on the same eight pairs in float32."""
    ours = [m for m in outcome.measured if m.row.agreement]
    theirs = outcome.find("TRL", "hh", precision="float32")
    if not ours or not theirs:
        return None
    mine, other = ours[0].results[0], theirs[0].results[0]
    apart = deviation(mine["log_probs"], other["log_probs"])
    names = ("first_loss", "first_grad_norm")
    return {name: [mine[name], other[name]] for name in names} | {"log_probs": asdict(apart)}
