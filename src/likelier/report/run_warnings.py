"""What to know before one believes a comparison, in words: of each run, and of runs held against each other."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from likelier.report.past_runs import PastRun, finite
from likelier.report.run_tables import compare_settings, is_count, notes_of
from likelier.training.config import UPDATE_FREE
from likelier.training.signs import Signs


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning, and the runs that it is about."""

    runs: tuple[str, ...]
    text: str


def warnings_of(runs: Sequence[PastRun]) -> list[Warned]:
    """All warnings: what the folders lack, what the runs said, what makes runs hard to compare."""
    return [*_gathered(runs, _own), *_gathered(runs, _said), *_between(runs)]


def _gathered(runs: Sequence[PastRun], texts: Callable[[PastRun], list[str]]) -> list[Warned]:
    """What several runs say alike is said once."""
    said: defaultdict[str, list[str]] = defaultdict(list)
    for run in runs:
        for text in texts(run):
            said[text].append(run.name)
    return [Warned(tuple(names), text) for text, names in said.items()]


def _own(run: PastRun) -> list[str]:
    """What the folder lacks."""
    found = []
    if run.manifest is None:
        where = f"its last line is step {run.last_step}" if run.metrics else "it has logged nothing"
        stage = run.stage if run.stage != "run" else "STAGE"
        found.append(
            f"the run has not finished ({where}): it goes on, or was ended; `likelier {stage} … --resume`"
            " goes on from its last checkpoint. Its hashes are unknown"
        )
    elif run.stopped is not None:
        found.append(f"the run stopped before its last step: {run.stopped}")
    if _gaps(run):
        found.append(f"steps are missing from metrics.jsonl ({_gaps(run)}); curves break there")
    if any(finite(line.get("loss")) is None for line in run.steps):
        found.append("some steps have no finite loss; curves break there")
    return [*found, *run.faults]


def _gaps(run: PastRun) -> str:
    """Steps without a line, between the first and the last.

    The first may be any: somebody may have cut the file.
    """
    steps = [line["step"] for line in run.steps]
    gaps = [(a + 1, b - 1) for a, b in pairwise(steps) if b > a + 1]
    shown = [str(first) if first == last else f"{first} to {last}" for first, last in gaps]
    return ", ".join(shown[:3]) + (" …" if len(shown) > 3 else "")


def _said(run: PastRun) -> list[str]:
    """What the run said; one that has not finished left no words, and its curves are read again."""
    if run.manifest is not None:
        return [note for note in notes_of(run) if not is_count(note)]
    signs = Signs(
        clip=finite(run.settings.get("clip")) or 0.0,
        likelihoods=run.stage == "dpo",
        descends=run.stage != "ppo",
    )
    return [text for line in run.metrics for text in signs.look(line)]


def _between(runs: Sequence[PastRun]) -> list[Warned]:
    """What makes two runs hard to compare."""
    return [
        *_same_steps(runs),
        *_unlike(_on_rows(runs), lambda run: run.inputs.get("train"), "were trained on different rows"),
        *_unlike(_on_prompts(runs), lambda run: run.inputs.get("train"), "answered different prompts"),
        *(
            warned
            for alike in (_on_rows(runs), _on_prompts(runs))
            for warned in _unlike(
                alike,
                lambda run: run.inputs.get("eval"),
                "were evaluated on different held-out rows: their held-out figures are of different questions",
            )
        ),
        *_unlike(
            runs,
            # A reward model's new head makes another model of the same start.
            lambda run: None if run.stage == "reward" else _known(run, "start"),
            "started from different weights",
        ),
        *_unlike(
            runs,
            lambda run: _known(run, "reference"),
            "have different references: their margins and KLs are distances from different models",
        ),
        *_unlike(
            runs,
            lambda run: _name(run, "loss") if run.stage == "dpo" else None,
            "have different losses, whose values are not comparable; accuracies are, and margins with a reference",
        ),
        *_unlike(
            runs,
            lambda run: None if run.stage != "ppo" else _name(run, "reward"),
            "learn from different rewards: their reward curves are in different units",
        ),
        *_unlike(
            runs,
            lambda run: _name(run, "batch_size"),
            "have different batch sizes: a step is not the same amount of data",
        ),
        *_unlike(runs, _versions, "were made with different versions of packages"),
    ]


def _on_rows(runs: Sequence[PastRun]) -> list[PastRun]:
    """Those that train on answers that were there before."""
    return [run for run in runs if run.stage != "ppo"]


def _on_prompts(runs: Sequence[PastRun]) -> list[PastRun]:
    """Those that answer prompts themselves: their rows are no others' rows."""
    return [run for run in runs if run.stage == "ppo"]


def _same_steps(runs: Sequence[PastRun]) -> list[Warned]:
    """Runs of other settings whose every step is the same, number for number: a comparison of a run with itself."""
    groups: defaultdict[str, list[PastRun]] = defaultdict(list)
    for run in runs:
        if run.steps:
            steps = [{k: v for k, v in line.items() if not _of_time(k)} for line in run.steps]
            groups[run.stage + json.dumps(steps, sort_keys=True)].append(run)
    found = []
    for same in groups.values():
        apart = _apart(same)
        if len(same) > 1 and apart:
            names = tuple(run.name for run in same)
            found.append(
                Warned(
                    names,
                    f"these runs made the same steps, number for number: {', '.join(apart)} made no difference,"
                    " and they are one run for any comparison",
                )
            )
    return found


def _of_time(name: str) -> bool:
    return name.endswith("_per_second") or name in ("mfu", "seconds_left")


def _apart(runs: Sequence[PastRun]) -> list[str]:
    """The settings that differ and should have changed the steps."""
    rows = compare_settings(runs)
    differ = [name for name, _ in rows.rows] if not rows.by_run else list(rows.header[1:])
    return [name for name in differ if name not in UPDATE_FREE]


def _unlike(runs: Sequence[PastRun], what: Callable[[PastRun], str | None], text: str) -> list[Warned]:
    """A warning where runs that say something say different things, with who says the same."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for run in runs:
        if told := what(run):
            groups[told].append(run.name)
    if len(groups) < 2:
        return []
    sides = " | ".join(_some(names) for names in groups.values())
    return [Warned(tuple(name for names in groups.values() for name in names), f"these runs {text}: {sides}")]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _known(run: PastRun, key: str) -> str | None:
    value = (run.manifest or {}).get(key)
    return value if isinstance(value, str) and value else None


def _name(run: PastRun, key: str) -> str | None:
    value: Any = run.settings.get(key)
    return None if value is None else str(value)


def _versions(run: PastRun) -> str | None:
    found = (run.manifest or {}).get("versions")
    if not isinstance(found, dict):
        return None
    return json.dumps({k: v for k, v in found.items() if k != "platform"}, sort_keys=True, default=str)
