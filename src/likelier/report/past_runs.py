"""Runs as their folders tell them: read only, without a model, and whatever is damaged or missing is named."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from likelier.config import read_yaml
from likelier.errors import UsageError

Stage = Literal["dpo", "sft", "reward", "ppo"]
STAGES: tuple[Stage, ...] = ("dpo", "sft", "reward", "ppo")
Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """What a run folder holds."""

    name: str
    """As short as tells it from the others."""
    folder: Path
    stage: str
    """`run` where neither manifest nor settings say which."""
    settings: Mapping[str, Any]
    manifest: Mapping[str, Any] | None
    """None for a run that has not finished."""
    metrics: Sequence[Line]
    """Steps and evaluations, in the order of their steps."""
    samples: Sequence[Line]
    faults: Sequence[str] = field(default_factory=tuple)
    """What is damaged or missing, in words."""

    @property
    def steps(self) -> list[Line]:
        """The lines of training."""
        return [line for line in self.metrics if "loss" in line]

    @property
    def evaluations(self) -> list[Line]:
        """The lines of held-out rows."""
        return [line for line in self.metrics if any(name.startswith("eval/") for name in line)]

    @property
    def last_step(self) -> int:
        """Of all lines; 0 before the first."""
        return max((line["step"] for line in self.metrics), default=0)

    @property
    def stopped(self) -> str | None:
        """Why it ended before its last step, where it says so."""
        result = (self.manifest or {}).get("result")
        why = result.get("stopped") if isinstance(result, Mapping) else None
        return None if why is None else str(why)

    @property
    def state(self) -> str:
        """For people."""
        if self.manifest is None:
            return "not finished"
        return "finished" if self.stopped is None else "stopped early"

    @property
    def inputs(self) -> dict[str, str]:
        """Hashes of the rows, by what they were for."""
        found = (self.manifest or {}).get("inputs")
        return {str(k): str(v) for k, v in found.items()} if isinstance(found, Mapping) else {}


def is_run(folder: Path) -> bool:
    """Whether a run has written there."""
    return any(
        (folder / name).is_file() and _marks(folder / name)
        for name in ("config.yaml", "metrics.jsonl", "manifest.json")
    )


def _marks(path: Path) -> bool:
    """A `manifest.json` may be another program's."""
    return path.name != "manifest.json" or '"stage"' in path.read_text(encoding="utf-8", errors="replace")


def read_run(folder: Path, *, name: str) -> PastRun:
    """The run in `folder`; what cannot be read of it is among its faults."""
    faults: list[str] = []
    settings = _read(lambda: read_yaml(folder / "config.yaml"), folder / "config.yaml", faults)
    manifest = None
    if (folder / "manifest.json").exists():
        # YAML takes what JSON does not; a manifest is the machine's.
        manifest = _read(lambda: _object(folder / "manifest.json"), folder / "manifest.json", faults)
    metrics = _lines(folder / "metrics.jsonl", faults)
    if not any("loss" in line for line in metrics):
        faults.append(
            "no step was logged" if (folder / "metrics.jsonl").exists() else "metrics.jsonl is missing"
        )
    samples = _lines(folder / "samples.jsonl", faults) if (folder / "samples.jsonl").exists() else []
    return PastRun(
        name=name,
        folder=folder,
        stage=_stage(manifest, settings or {}, metrics),
        settings=settings or {},
        manifest=manifest or None,
        metrics=_in_order(metrics, faults),
        samples=samples,
        faults=tuple(faults),
    )


def _read(read: Callable[[], dict[str, Any]], path: Path, faults: list[str]) -> dict[str, Any] | None:
    if not path.exists():
        faults.append(f"{path.name} is missing")
        return None
    try:
        return read()
    except (UsageError, OSError, ValueError, RecursionError) as error:
        faults.append(f"{path.name} cannot be read and is left out: {' '.join(str(error).split())}")
        return None


def _object(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, not an object")
    return value


def _lines(path: Path, faults: list[str]) -> list[dict[str, Any]]:
    """The lines that are whole, and in words which are not: a killed run may have left half a one."""
    try:
        texts = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        faults.append(f"{path.name} cannot be read: {error.strerror}")
        return []
    parsed = [(number, _line(text)) for number, text in enumerate(texts, 1) if text.strip()]
    damaged = [number for number, line in parsed if line is None]
    if parsed and damaged == [parsed[-1][0]]:
        faults.append(
            f"the last line of {path.name} ({damaged[0]}) is half written: the run was killed, or goes on"
        )
    elif damaged:
        shown = ", ".join(map(str, damaged[:5])) + (" …" if len(damaged) > 5 else "")
        faults.append(f"{path.name}: {len(damaged)} of {len(parsed)} lines are damaged and left out: {shown}")
    return [line for _, line in parsed if line is not None]


def _line(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    step = value.get("step") if isinstance(value, dict) else None
    known = isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 2**53
    return value if known else None


def _in_order(lines: Sequence[dict[str, Any]], faults: list[str]) -> list[dict[str, Any]]:
    """By step; of a step that was logged twice the later line counts, as after a resume."""
    kept: dict[tuple[int, str], dict[str, Any]] = {}
    for line in lines:
        key = (line["step"], _kind(line))
        kept[key] = kept.get(key, {}) | line
    twice = len(lines) - len(kept)
    if twice > 0:
        faults.append(f"{twice} steps were logged twice, as a resumed run may: the later line counts")
    return [kept[key] for key in sorted(kept)]


def _kind(line: Line) -> str:
    """Whether a line is of a step (nothing), of an evaluation, of samples: these have a word before the slash."""
    if "loss" in line:
        return ""
    return min((name.partition("/")[0] for name in line if name != "step"), default="")


def _stage(manifest: Line | None, settings: Line, metrics: Sequence[Line]) -> str:
    """As the manifest says; of a run that has not finished, by what only its stage has."""
    said = (manifest or {}).get("stage")
    if isinstance(said, str) and said:
        return said
    if "rollout_epochs" in settings or any("answers_seen" in line for line in metrics):
        return "ppo"
    if "reference" in settings:
        return "dpo"
    if "centre" in settings:
        return "reward"
    return "sft" if "on" in settings or any("examples_seen" in line for line in metrics) else "run"


def finite(value: Any) -> float | None:
    """A number that can be drawn, or None.

    >>> finite(2), finite(None), finite(float("nan")), finite(True), finite("2")
    (2.0, None, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # An integer may be too large for a float.
    return float(value) if abs(value) < 1e300 and math.isfinite(value) else None


def short_names(folders: Sequence[Path]) -> list[str]:
    """As much of each path's end as tells them apart.

    >>> short_names([Path("/x/a/run"), Path("/x/b/run"), Path("/x/c")])
    ['a/run', 'b/run', 'c']
    """
    parts = [folder.resolve().parts for folder in folders]

    def end(one: tuple[str, ...], size: int) -> str:
        return "/".join(one[-size:]).replace("//", "/")

    names = []
    for own in parts:
        size = 1
        while size < len(own) and sum(end(other, size) == end(own, size) for other in parts) > 1:
            size += 1
        names.append(end(own, size))
    return names
