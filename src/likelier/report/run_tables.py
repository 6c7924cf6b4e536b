"""Runs side by side in tables: settings with their differences, what the rows were, what came out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from likelier.report.past_runs import PastRun, finite
from likelier.stats import Estimate

_STARTED = ("resume", "overwrite", "dry_run", "json", "out")
"""How a process was started is no setting of the run."""
_ABREAST = 4
"""Runs that stand in columns; more stand in rows."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A setting of a run."""

    text: str
    odd: bool
    """Whether most of the runs have another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings that differ, as a table, and those that all runs share."""

    header: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    by_run: bool
    """Whether a row is a run rather than a setting."""
    shared: Sequence[tuple[str, str]]
    only_some: Sequence[tuple[str, str, str]]
    """Settings that not every stage has, alike wherever they are: name, value, stages."""


def compare_settings(runs: Sequence[PastRun]) -> Settings:
    """The settings of `runs`, the odd ones marked; one run's are all shared.

    What a stage does not have is no difference: `—`, and never odd.
    """
    told = [run for run in runs if run.settings]
    names = list(dict.fromkeys(name for run in told for name in run.settings if name not in _STARTED))
    values = {name: [_shown(run.settings.get(name, _NONE)) for run in told] for name in names}
    stages = [run.stage for run in told]
    values = {"stage": stages, **values} if told else {}
    differ = {name: _marked(own) for name, own in values.items() if len({*own} - {_ABSENT}) > 1}
    alike = {name: own for name, own in values.items() if name not in differ}
    shared = [(name, own[0]) for name, own in alike.items() if _ABSENT not in own]
    only_some = [(name, *_where(own, stages)) for name, own in alike.items() if _ABSENT in own]
    header, rows = ["setting", *(run.name for run in told)], list(differ.items())
    by_run = len(told) > _ABREAST
    if by_run:
        header = ["run", *differ]
        rows = [(run.name, [cells[place] for cells in differ.values()]) for place, run in enumerate(told)]
    return Settings(header=header, rows=rows, by_run=by_run, shared=shared, only_some=only_some)


_NONE = object()
_ABSENT = "—"


def _where(texts: Sequence[str], stages: Sequence[str]) -> tuple[str, str]:
    """The value of a setting that some do not have, and the stages of those that have it."""
    having = [(text, stage) for text, stage in zip(texts, stages, strict=True) if text != _ABSENT]
    return having[0][0], ", ".join(dict.fromkeys(stage for _, stage in having))


def _shown(value: Any) -> str:
    """
    >>> _shown(1e-06), _shown(["a", "b"]), _shown(None), _shown(True)
    ('1e-06', 'a, b', 'none', 'true')
    """
    if value is _NONE:
        return _ABSENT
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _marked(texts: Sequence[str]) -> list[Cell]:
    """Those that are not what more than half have; of two, the second. Where nothing is usual, nothing is odd."""
    known = [text for text in texts if text != _ABSENT]
    usual, count = Counter(known).most_common(1)[0]
    is_usual = 2 * count > len(known) or len(known) == 2
    return [Cell(text, is_usual and text not in (usual, _ABSENT)) for text in texts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What a run was trained or evaluated on."""

    run: str
    use: str
    """`train` or `eval`."""
    files: str
    digest: str
    letter: str
    """The same for the same rows, in any run."""
    count: str
    left_out: Sequence[str]


def data_table(runs: Sequence[PastRun]) -> list[Rows]:
    """Inputs by content hash; runs that have not finished say only the files."""
    letters: dict[str, str] = {}
    rows = []
    for run in runs:
        left_out = [note for note in notes_of(run) if is_count(note)]
        for use, digest in run.inputs.items() or [("train", "")]:
            letter = "" if not digest else letters.setdefault(digest, _letter(len(letters)))
            rows.append(
                Rows(
                    run=run.name,
                    use=use,
                    files=_files(run, use),
                    digest=digest,
                    letter=letter,
                    count=_count(run, use),
                    left_out=left_out if use == "train" else [],
                )
            )
    return rows


def _letter(number: int) -> str:
    """A, B, …, Z, A1, B1, …"""
    return chr(ord("A") + number % 26) + (str(number // 26) if number >= 26 else "")


def _files(run: PastRun, use: str) -> str:
    prefix = "eval_" if use == "eval" else ""
    found = [run.settings.get(prefix + name) for name in ("data", "prompts")]
    named = ", ".join(_shown(value) for value in found if value)
    share = run.settings.get("eval_share")
    if not named and use == "eval" and share:
        return f"a share of {_shown(share)} of the rows, held out by prompt"
    return named or "—"


def _count(run: PastRun, use: str) -> str:
    """Rows seen in an epoch, as far as the run went; of held-out rows those of an evaluation."""
    if use == "eval":
        last: Mapping[str, Any] = run.evaluations[-1] if run.evaluations else {}
        units = ("pairs", "examples", "answers", "prompts")
        return (
            ", ".join(
                f"{count:,.0f} {unit}"
                for unit in units
                if (count := finite(last.get(f"eval/{unit}"))) is not None
            )
            or "—"
        )
    last = run.steps[-1] if run.steps else {}
    for unit in ("pairs", "examples", "answers"):
        seen = finite(last.get(f"{unit}_seen"))
        if seen is not None:
            epochs = finite(last.get("epoch"))
            return f"{seen:,.0f} {unit} seen" + (
                "" if epochs is None else f" in {epochs:.3g} epoch{'' if epochs == 1 else 's'}"
            )
    return "—"


def notes_of(run: PastRun) -> list[str]:
    """What the run said in words."""
    notes = (run.manifest or {}).get("notes")
    return [str(note) for note in notes] if isinstance(notes, list) else []


def is_count(note: str) -> bool:
    """Whether a note tells of the rows rather than warns."""
    return note.startswith(("left out as unusable: ", "noticed: ", "centred: "))


FIGURES = {
    "loss": "loss",
    "eval/loss": "held-out loss",
    "eval/rewards/accuracies": "held-out accuracy",
    "eval/rewards/margins": "held-out margin",
    "eval/reward/mean": "held-out reward",
    "eval/kl": "held-out KL",
    "reward/mean": "reward",
    "kl": "KL",
}
"""What a run came to, in the table of runs."""


def results_table(runs: Sequence[PastRun]) -> tuple[list[str], list[list[Estimate | float | None]]]:
    """The last figure of each kind, with its interval where the run has one: `(header, a row for each run)`."""
    known = [name for name in FIGURES if any(_last(run, name) is not None for run in runs)]
    return [FIGURES[name] for name in known], [[_last(run, name) for name in known] for run in runs]


def _last(run: PastRun, name: str) -> Estimate | float | None:
    lines = [line for line in run.metrics if finite(line.get(name)) is not None]
    return figure_of(lines[-1], name) if lines else None


def figure_of(line: Mapping[str, Any], name: str) -> Estimate | float | None:
    """A figure of a line, as an estimate where the line has `NAME/low` and `NAME/high`."""
    value, low, high = (finite(line.get(key)) for key in (name, f"{name}/low", f"{name}/high"))
    if value is None or low is None or high is None:
        return value
    return Estimate(value=value, low=low, high=high, n=0, clusters=0)
