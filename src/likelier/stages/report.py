"""Runs side by side on one page: settings, curves, evaluations, answers, data, warnings, commands.

    likelier report runs/first runs/ipo --out page.html

Reads folders and nothing else: no model is loaded, no stage is called, nothing in a run is touched. A folder that
`likelier evaluate` wrote may be named too; those inside a run, and those beside one that name it, are found.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from likelier.errors import UsageError
from likelier.manifest import as_json, write_whole
from likelier.report.page import plural
from likelier.report.past_evaluations import evaluations_in, evaluations_near, holds_evaluation
from likelier.report.past_runs import PastRun, is_run, read_run, short_names
from likelier.report.run_samples import side_by_side
from likelier.report.runs import RunsPage, render_runs
from likelier.stages.report_config import ReportConfig


def report(runs: str | Path | Sequence[str | Path], *, out: str | Path, **config: Any) -> RunsPage:
    """Writes one HTML page on `runs`, and returns what it says.

    Args:
        runs: run folders of any stages, and folders that `likelier evaluate` wrote.
        out: the page, a file that ends in `.html`.
        config: every other setting of `likelier report`, by name.

    Raises:
        UsageError: a name that is no folder of ours, or is given twice; a page that is no `.html`.
        WorkError: the page cannot be written.

    >>> report(["runs/first", "runs/ipo"], out="page.html").warnings  # doctest: +SKIP
    """
    names = [str(run) for run in ([runs] if isinstance(runs, (str, Path)) else runs)]
    return _report(ReportConfig.build({"runs": names, "out": Path(out), **config}))


def main(config: ReportConfig) -> int:
    """The command."""
    page = _report(config)
    for warning in page.warnings:
        print(
            f"warning: {', '.join(warning.runs)}{': ' if warning.runs else ''}{warning.text}", file=sys.stderr
        )
    if config.json_:
        print(as_json({"page": str(config.out), **page.as_dict()}))
        return 0
    counts = (plural(len(page.runs), "run"), plural(len(page.evaluations), "evaluation"))
    print(
        f"written to {config.out}: {', '.join(counts)}, answers to {plural(len(page.samples.prompts), 'prompt')}"
    )
    return 0


def _report(config: ReportConfig) -> RunsPage:
    if config.out.is_dir():
        raise UsageError(f"--out {config.out} is a folder; name a file in it, as {config.out / 'page.html'}")
    folders = _folders(config.runs)
    of_runs = [folder for folder in folders if is_run(folder)]
    runs = [read_run(folder, name=name) for folder, name in zip(of_runs, short_names(of_runs), strict=True)]
    page = _page(config, runs, [folder for folder in folders if folder not in of_runs])
    # A model may say half a pair of surrogates, which no file can hold, and NUL, which no page can.
    text = render_runs(page).encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
    write_whole(config.out, text)
    return page


def _page(config: ReportConfig, runs: Sequence[PastRun], others: Sequence[Path]) -> RunsPage:
    faults: list[str] = []
    found = {folder.resolve(): folder for folder in (*others, *evaluations_near(runs))}
    evaluations = [one for folder in found.values() for one in evaluations_in(folder, faults)]
    samples = side_by_side(runs, evaluations, faults)
    command = shlex.join(["likelier", "report", *config.runs, "--out", str(config.out)])
    return RunsPage(runs=runs, evaluations=evaluations, samples=samples, faults=faults, command=command)


def _folders(names: Sequence[str]) -> list[Path]:
    """The named folders, each once and of a kind that is known.

    Raises:
        UsageError: for the first that is not.
    """
    seen: dict[Path, str] = {}
    for name in names:
        folder = Path(name)
        _check(folder)
        place = folder.resolve()
        if place in seen:
            again = "" if seen[place] == name else f" (as {seen[place]} too)"
            raise UsageError(f"{name} is given twice{again}; name each run once")
        seen[place] = name
    return [Path(name) for name in names]


def _check(folder: Path) -> None:
    if not folder.exists():
        raise UsageError(f"{folder} does not exist; name the folder that a run has as its --out")
    if not folder.is_dir():
        above = folder.resolve().parent
        hint = f"; its run folder is {folder.parent}" if is_run(above) or holds_evaluation(above) else ""
        raise UsageError(f"{folder} is a file, not a run folder{hint}")
    if is_run(folder) or holds_evaluation(folder):
        return
    inside = sorted(entry for entry in folder.iterdir() if entry.is_dir() and is_run(entry))
    if inside:
        some = " ".join(map(str, inside[:3])) + (" …" if len(inside) > 3 else "")
        raise UsageError(f"{folder} is no run folder but holds some: likelier report {some}")
    raise UsageError(
        f"{folder} is no run folder (no config.yaml, metrics.jsonl or manifest.json) and holds no evaluation"
    )
