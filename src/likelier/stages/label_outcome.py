"""What labelling by a machine leaves: rows, counts of everything that made none, and the files."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from likelier.data.faults import Fault
from likelier.data.output import JsonLines
from likelier.manifest import write_manifest
from likelier.stages.label_config import LabelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """What was labelled, and what was not, by reason."""

    rows: list[dict[str, Any]]
    """As they are written."""
    prompts: int
    """With at least one row."""
    all_answers: int
    """Those looked at, of all prompts."""
    pairs: int
    """Strictly ordered pairs of answers."""
    undecided: int
    """Prompts without a row: nothing to learn from."""
    skipped: int
    """Rows that cannot be used (an empty answer, NUL bytes …); the manifest lists them."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Pairs of answers that make no row, by reason."""
    figures: dict[str, Any] = field(default_factory=dict)
    """What else was counted or measured, by name."""

    @property
    def result(self) -> dict[str, Any]:
        """As one JSON object."""
        names = ("prompts", "pairs", "all_answers", "undecided", "skipped")
        counts = {name: getattr(self, name) for name in names}
        return {"rows": len(self.rows), **counts, "left_out": dict(self.left_out), **self.figures}


def write_labelled(
    config: LabelConfig, labelled: Labelled, faults: list[Fault], *, labels: str, **more: Any
) -> None:
    """The rows into `config.out`, and beside a plain file its manifest; `labels` says what kind they are."""
    if config.out is None:
        return
    # What hinders it is named by the file that cannot be written there.
    with contextlib.suppress(OSError):
        config.out.parent.mkdir(parents=True, exist_ok=True)
    with JsonLines(config.out) as file:
        for row in labelled.rows:
            file.write(row)
    if config.out.is_file():
        write_manifest(
            config.out,
            stage="label",
            config=config.model_dump(mode="json"),
            inputs={"samples": config.samples} if config.samples.is_file() else {},
            **(labelled.result | {"skipped": [str(fault) for fault in faults]}),
            labels=labels,
            **more,
        )


def told(labelled: Labelled) -> list[str]:
    """What a judge's labels are worth, a line each."""
    figures = labelled.figures
    lines = [
        f"preferences: {labelled.pairs:,}; ties: {figures['ties']:,}; prompts with a label: {labelled.prompts:,}",
        f"tokens read: {figures['tokens']['prompt']:,}; written: {figures['tokens']['completion']:,}; "
        f"questions asked: {figures['questions']['asked']:,}, answered before: "
        f"{figures['questions']['answered_before']:,}",
    ]
    if labelled.left_out or labelled.skipped:
        reasons = labelled.left_out + Counter({"unusable row": labelled.skipped})
        lines.append(f"without a label: {counted(reasons)}")
    if figures["failures"]:
        lines.append(f"the judge failed ({counted(figures['failures'])}); the next run asks these again")
    for name, meaning in (
        ("first_shown_wins", "the answer shown first wins (one half is no bias)"),
        ("orders_agree", "both orders say the same"),
        ("accuracy", "agrees with the labels that the rows carried, a tie being one half"),
    ):
        if figures[name] is not None:
            lines.append(f"{meaning}: {figures[name]['told']}")
    return lines


def say_faults(faults: list[Fault], say: Callable[[str], None]) -> None:
    """How many rows cannot be used, why, and the first of them."""
    if faults:
        kinds = counted(Counter(fault.kind for fault in faults))
        say(f"rows that cannot be used and are left out: {len(faults)} ({kinds}); the first: {faults[0]}")


def counted(reasons: Mapping[str, int]) -> str:
    """Counts by reason, for a line.

    >>> counted(Counter({"a tie": 2, "timeout": 1}))
    'a tie: 2, timeout: 1'
    """
    return ", ".join(f"{reason}: {count}" for reason, count in Counter(reasons).most_common())
