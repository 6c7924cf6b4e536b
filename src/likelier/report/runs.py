"""The page of runs: everything that their folders say, side by side, in one HTML file that needs no network."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from likelier.report.page import environment, number, plural
from likelier.report.past_evaluations import PastEvaluation, in_short
from likelier.report.past_runs import STAGES, PastRun
from likelier.report.run_curves import Look, look, panels
from likelier.report.run_samples import Samples
from likelier.report.run_tables import compare_settings, data_table, results_table
from likelier.report.run_warnings import Warned, warnings_of
from likelier.stats import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsPage:
    """What the page is made of."""

    runs: Sequence[PastRun]
    evaluations: Sequence[PastEvaluation]
    samples: Samples
    faults: Sequence[str]
    """Of evaluations; a run's own are its own."""
    command: str
    """That makes this page anew."""

    @property
    def warnings(self) -> list[Warned]:
        """All that should be known first."""
        return [*warnings_of(self.runs), *(Warned((), text) for text in self.faults)]

    @property
    def title(self) -> str:
        """What the page is about, in a line."""
        if len(self.runs) == 1:
            return f"{self.runs[0].name}: one run of {self.runs[0].stage}"
        stages = [stage for stage in (*STAGES, "run") if any(run.stage == stage for run in self.runs)]
        if not self.runs:
            return plural(len(self.evaluations), "evaluation")
        return f"{len(self.runs)} runs of {', '.join(stages)} side by side"

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "runs": [_told(run) for run in self.runs],
            "evaluations": [
                {"kind": one.kind, "file": str(one.file), "words": [*one.words]} for one in self.evaluations
            ],
            "warnings": [asdict(one) for one in self.warnings],
            "samples": {"prompts": len(self.samples.prompts), "left_out": self.samples.left_out},
        }


def _told(run: PastRun) -> dict[str, Any]:
    return {
        "name": run.name,
        "folder": str(run.folder),
        "stage": run.stage,
        "state": run.state,
        "step": run.last_step,
        "inputs": run.inputs,
        "command": command_of(run),
    }


def render_runs(page: RunsPage) -> str:
    """The page as HTML; all text of prompts, models, settings and names is escaped."""
    found = environment()
    found.filters.update(cell=cell, svg=Markup)
    header, results = results_table(page.runs)
    return found.get_template("runs.html.j2").render(
        page=page,
        warnings=page.warnings,
        looks=[look(place) for place in range(len(page.runs))],
        swatches=[Markup(swatch(look(place))) for place in range(len(page.runs))],
        results_header=header,
        results=results,
        settings=compare_settings(page.runs),
        # The panels are ours: their only free text is a loss's name, escaped in SVG.
        panels=panels(page.runs),
        data=data_table(page.runs),
        commands=[(run, command_of(run), anew(run)) for run in page.runs],
        rows_of=lambda one: in_short(one, page.runs),
        evaluation_command=lambda one: spoken(one.manifest.get("command")),
        script=Markup(_script()),
    )


class Part(NamedTuple):
    """A figure in a cell: the value, and its interval."""

    value: str
    interval: str


def cell(value: Estimate | float | str | None) -> Part:
    """A figure as a table has it.

    >>> cell(0.25), cell(None), cell("a")
    (Part(value='0.250', interval=''), Part(value='', interval=''), Part(value='a', interval=''))
    >>> cell(Estimate(value=0.25, low=-0.5, high=1.0, n=9, clusters=9)).interval
    '[−0.500, 1.00]'
    >>> cell(Estimate(value=0.25, low=2.64e-8, high=0.5, n=9, clusters=9)).interval
    '[0.000, 0.500]'
    """
    if isinstance(value, Estimate):
        return Part(_figure(value.value), "" if value.interval is None else _interval(*value.interval))
    return Part(_figure(value) if isinstance(value, float) else (value or ""), "")


def _interval(low: float, high: float) -> str:
    """Both ends; one that is nothing beside the other, such as what rounding left of 0, is 0."""
    nothing = 1e-5 * max(abs(low), abs(high))
    low, high = (0.0 if abs(end) < nothing else end for end in (low, high))
    return f"[{_figure(low)}, {_figure(high)}]"


def _figure(value: float) -> str:
    """Three digits that count, with a true minus sign."""
    size = abs(value)
    if size == 0 or 0.1 <= size < 1e5:
        whole = len(str(int(size))) if size >= 1 else 0
        return number(value, max(0, 3 - whole))
    return f"{value:.3g}".replace("-", "−")


def command_of(run: PastRun) -> str | None:
    """As it was given, where it was a command."""
    return spoken((run.manifest or {}).get("command"))


def spoken(words: Any) -> str | None:
    """A process's words as one would type them; None where Python called the stage.

    >>> spoken(["-c", "dpo", "--beta", "1"]), spoken(["-c", "print()"])
    ('likelier dpo --beta 1', None)
    >>> spoken([".venv/bin/likelier", "dpo", "--out", "a b"]), spoken(["train.py"])
    ("likelier dpo --out 'a b'", None)
    """
    if not isinstance(words, list) or not words:
        return None
    if (
        words[0] == "-c" and words[1:] and words[1] in (*STAGES, "evaluate")
    ):  # a script's own `python -c` of our `main`
        return shlex.join(["likelier", *map(str, words[1:])])
    own = Path(str(words[0])).name
    inside = Path(str(words[0])).parent.name
    if own.removesuffix(".exe") != "likelier" and not (
        inside == "likelier" and own in ("cli.py", "__main__.py")
    ):
        return None
    return shlex.join(["likelier", *map(str, words[1:])])


def anew(run: PastRun) -> str | None:
    """The command that starts the same run again, beside it, from its settings as resolved."""
    if not run.settings or run.stage not in STAGES:
        return None
    folder = run.folder.as_posix()
    return shlex.join(
        ["likelier", run.stage, "--config", f"{folder}/config.yaml", "--out", f"{folder}-again"]
    )


_SHAPES = {
    "o": '<circle cx="20" cy="7" r="3.6"/>',
    "s": '<rect x="16.6" y="3.6" width="6.8" height="6.8"/>',
    "D": '<path d="M20 2.4 24.6 7 20 11.6 15.4 7z"/>',
    "^": '<path d="M20 2.8 24.2 10.6H15.8z"/>',
    "v": '<path d="M20 11.2 24.2 3.4H15.8z"/>',
    "P": '<path d="M18.6 2.8h2.8v2.8h2.8v2.8h-2.8v2.8h-2.8V8.4h-2.8V5.6h2.8z"/>',
    "X": '<path d="M17 3l3 2.4L23 3l1.6 1.6L22 7l2.6 2.4L23 11l-3-2.4L17 11l-1.6-1.6L18 7l-2.6-2.4z"/>',
}


def swatch(own: Look) -> str:
    """A run's line and mark, for a legend."""
    dashes = "" if own.dashes == "-" else " ".join(f"{1.8 * length:g}" for length in own.dashes[1])
    return (
        '<svg class="swatch" viewBox="0 0 40 14" aria-hidden="true">'
        f'<path d="M0 7h40" fill="none" stroke="var(--{own.variable})" stroke-width="2" stroke-dasharray="{dashes}"/>'
        f'<g fill="var(--{own.variable})">{_SHAPES[own.mark]}</g></svg>'
    )


def _script() -> str:
    """Ours, and without a word of anybody else."""
    source, *_ = environment().loader.get_source(environment(), "runs.js")  # type: ignore[union-attr]
    return source
