"""What an evaluation leaves: a table (CSV), the whole result (JSON), a picture (SVG and PNG), and words."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from likelier.data.output import JsonLines
from likelier.errors import UsageError
from likelier.manifest import as_json, write_manifest, write_whole
from likelier.models.folders import work_error
from likelier.report.charts import Form
from likelier.stages.evaluate_config import EvaluateConfig
from likelier.stats import Estimate

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an evaluation found."""

    found: Any
    """What the Python function returns."""
    result: Mapping[str, Any]
    """As JSON holds it."""
    words: Sequence[str]
    """Lines for people."""
    header: Sequence[str]
    """Of the table."""
    table: Sequence[Sequence[Any]]
    picture: Callable[[Form], bytes]
    answers: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    """What was sampled, as rows, each with what was measured on it."""
    failures: int = 0
    """Comparisons that a judge failed to make: the command then ends with exit code 1."""


def check_folder(config: EvaluateConfig) -> None:
    """Finds a place that cannot be written before the work begins.

    Raises:
        UsageError: it is a file, or below one.
    """
    if config.out.exists() and not config.out.is_dir():
        raise UsageError(f"--out {config.out} is a file; choose a folder")
    above = next(folder for folder in config.out.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"--out {config.out}: {above} is a file, not a folder; choose another place")


def write_outcome(config: EvaluateConfig, outcome: Outcome, *, inputs: Sequence[str]) -> None:
    """Every file whole, and the manifest last.

    Args:
        config: where to, and what stands in the manifest.
        outcome: what was found.
        inputs: names of what was read; those that are files are hashed.

    Raises:
        WorkError: the folder or the disk does not take them.
    """
    place = config.out / config.what
    try:
        config.out.mkdir(parents=True, exist_ok=True)
        beside = config.out / f".{config.what}.png.partial"
        beside.write_bytes(outcome.picture("png"))
        beside.replace(place.with_suffix(".png"))
    except OSError as error:
        raise work_error(error, config.out) or error from None
    write_whole(place.with_suffix(".svg"), outcome.picture("svg").decode())
    write_whole(place.with_suffix(".csv"), _csv(outcome))
    if outcome.answers:
        with JsonLines(config.out / f"{config.what}.answers.jsonl") as file:
            for row in outcome.answers:
                file.write(row)
    write_whole(place.with_suffix(".json"), as_json(outcome.result, indent=2) + "\n")
    write_manifest(
        place.with_suffix(".json"),
        stage="evaluate",
        config=config.model_dump(mode="json"),
        inputs={name: Path(name) for name in inputs if Path(name).is_file()},
    )


def _csv(outcome: Outcome) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(outcome.header)
    writer.writerows(outcome.table)
    return text.getvalue()


def cells(one: Estimate | None) -> list[Any]:
    """An estimate in a table: value, low, high, n, clusters.

    >>> cells(Estimate(value=0.5, n=1, clusters=1)), cells(None)
    ([0.5, None, None, 1, 1], ['', '', '', 0, 0])
    """
    return ["", "", "", 0, 0] if one is None else [one.value, one.low, one.high, one.n, one.clusters]
