"""Evaluations as `likelier evaluate` left them in a folder: figures, words, picture and command."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likelier.manifest import manifest_path
from likelier.report.past_runs import PastRun, finite
from likelier.stats import Estimate

KINDS = ("frontier", "winrate", "temperature", "preferences")
_LARGEST = 4_000_000
"""Bytes of a picture that still goes into a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastEvaluation:
    """One `NAME.json` with what lies beside it."""

    kind: str
    folder: Path
    words: Sequence[str]
    header: Sequence[str]
    rows: Sequence[Sequence[Estimate | float | str | None]]
    manifest: Mapping[str, Any]
    picture: str | None
    """A `data:` address, in which no script runs."""

    @property
    def file(self) -> Path:
        """Where its figures lie."""
        return self.folder / f"{self.kind}.json"


def holds_evaluation(folder: Path) -> bool:
    """Whether `likelier evaluate` wrote there."""
    return any((folder / f"{kind}.json").is_file() for kind in KINDS)


def evaluations_in(folder: Path, faults: list[str]) -> list[PastEvaluation]:
    """All evaluations of a folder; those that cannot be read are named in `faults`."""
    found = []
    for kind in KINDS:
        path = folder / f"{kind}.json"
        if not path.is_file():
            continue
        try:
            found.append(_evaluation(kind, path))
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            IndexError,
            RecursionError,
        ) as error:
            why = " ".join(str(error).split())[:120]
            faults.append(f"{path} is not as `likelier evaluate` writes it, and is left out: {why}")
    return found


def evaluations_near(runs: Sequence[PastRun]) -> Iterator[Path]:
    """Folders in runs, and beside them those whose manifest names one of the runs."""
    seen: set[Path] = set()
    for run in runs:
        for folder in (run.folder, *_folders(run.folder)):
            if folder not in seen and holds_evaluation(folder):
                seen.add(folder)
                yield folder
    names = {run.folder.resolve().name for run in runs}
    for parent in dict.fromkeys(run.folder.resolve().parent for run in runs):
        for folder in _folders(parent):
            if folder not in seen and holds_evaluation(folder) and names & _named(folder):
                seen.add(folder)
                yield folder


def in_short(one: PastEvaluation, runs: Sequence[PastRun]) -> list[list[Estimate | float | str | None]]:
    """Its rows, in which runs bear the names that they have on the page rather than those they were evaluated under."""
    config = one.manifest.get("config")
    given = config.get("runs") if isinstance(config, Mapping) else None
    names = {run.folder.resolve().name: run.name for run in runs}
    known = {str(name): names[last] for name in given or () if (last := Path(str(name)).name) in names}
    if not known:
        return [list(row) for row in one.rows]
    longest_first = sorted(known, key=len, reverse=True)
    # A whole name, not the beginning of another.
    found = re.compile(rf"(?:{'|'.join(map(re.escape, longest_first))})(?=$|, | against )")
    return [
        [found.sub(lambda hit: known[hit.group()], cell) if isinstance(cell, str) else cell for cell in row]
        for row in one.rows
    ]


def _folders(parent: Path) -> list[Path]:
    try:
        return sorted(entry for entry in parent.iterdir() if entry.is_dir())
    except OSError:
        return []


def _named(folder: Path) -> set[str]:
    """The last parts of the runs' names that were evaluated there."""
    found: set[str] = set()
    for kind in KINDS:
        config = _manifest(folder / f"{kind}.json").get("config")
        runs = config.get("runs") if isinstance(config, Mapping) else None
        found |= {Path(str(run)).name for run in runs} if isinstance(runs, list) else set()
    return found


def _manifest(output: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(manifest_path(output).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _evaluation(kind: str, path: Path) -> PastEvaluation:
    result = json.loads(path.read_text(encoding="utf-8"))
    header, rows = _TABLES[kind](result)
    words = result.get("words")
    return PastEvaluation(
        kind=kind,
        folder=path.parent,
        words=[str(line) for line in words] if isinstance(words, list) else [],
        header=header,
        rows=rows,
        manifest=_manifest(path),
        picture=_picture(path),
    )


def _picture(path: Path) -> str | None:
    """As the evaluation drew it; an SVG in an `img` runs nothing and loads nothing."""
    for suffix, kind in ((".svg", "svg+xml"), (".png", "png")):
        picture = path.with_suffix(suffix)
        if picture.is_file() and picture.stat().st_size <= _LARGEST:
            return f"data:image/{kind};base64,{base64.b64encode(picture.read_bytes()).decode()}"
    return None


Table = tuple[Sequence[str], list[list[Estimate | float | str | None]]]


def _frontier(result: Mapping[str, Any]) -> Table:
    told = result["frontier"]["all"]
    rows: list[list[Estimate | float | str | None]] = []
    for number, point in enumerate(result["points"]):
        worse = told["dominated"].get(str(number))
        place = "on the envelope" if number in told["corners"] else "below it"
        if worse is not None:
            place = f"dominated by {result['points'][worse['by']]['name']}"
        figures: dict[str, Estimate | float | str | None] = {
            key: _estimate(point[key]) for key in ("reward", "kl", "length")
        }
        if point.get("kl_is") == "upper bound":
            figures["kl"] = f"at most {point['kl']['value']:.4g}"
        if point.get("kl_is") == "rough estimate":
            figures["kl"], place = f"roughly {point['kl']['value']:.4g}", "no envelope rests on it"
        rows.append([str(point["name"]), *figures.values(), place])
    reward = result["reward"]["name"]
    return ("policy", f"mean reward ({reward})", "KL to the reference, nats", "length, tokens", "place"), rows


def _wins(result: Mapping[str, Any]) -> Table:
    header = ("comparison", "win rate", "at equal lengths", "wins, ties, losses", "no verdict")
    return header, [_win(win) for win in result["comparisons"]]


def _win(win: Mapping[str, Any]) -> list[Estimate | float | str | None]:
    alone = win["controlled"]["win_rate"]
    return [
        f"{win['first']} against {win['second']}",
        _estimate(win["win_rate"]),
        None if alone is None else _estimate(alone),
        f"{win['wins']}, {win['ties']}, {win['losses']}",
        str(sum(win["unjudged"].values())),
    ]


def _temperatures(result: Mapping[str, Any]) -> Table:
    header = ("model", "temperature", "win rate", "at equal lengths", "below the best")
    rows: list[list[Estimate | float | str | None]] = []
    for sweep in result["sweeps"]:
        for win in sweep["temperatures"]:
            _, rate, alone, *_ = _win(win)
            rows.append([str(sweep["run"]), f"{win['temperature']:g}", rate, alone, _estimate(win["drop"])])
    return header, rows


def _preferences(result: Mapping[str, Any]) -> Table:
    header = ("reward of", "pairs", "accuracy", "log loss", "calibration error", "the longer is chosen")
    rows: list[list[Estimate | float | str | None]] = [
        [
            str(name),
            f"{one['pairs']:,}",
            _estimate(one["accuracy"]),
            None if one["log_loss"] is None else _estimate(one["log_loss"]),
            None if one["calibration_error"] is None else float(one["calibration_error"]),
            _estimate(one["longer_chosen"]),
        ]
        for name, one in result.items()
        if name != "words"
    ]
    return header, rows


def _estimate(one: Mapping[str, Any]) -> Estimate:
    value = finite(one["value"])
    if value is None:
        raise ValueError(f"a value that is no number: {one['value']!r}")
    return Estimate(
        value=value,
        low=finite(one["low"]),
        high=finite(one["high"]),
        n=int(one["n"]),
        clusters=int(one["clusters"]),
    )


_TABLES = {
    "frontier": _frontier,
    "winrate": _wins,
    "temperature": _temperatures,
    "preferences": _preferences,
}
