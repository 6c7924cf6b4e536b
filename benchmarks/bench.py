"""likelier against TRL on this machine: all rows in interleaved rounds, each in a process of its own.

Writes `benchmark.md`, `.csv`, `.json`, `.svg` and `.png` into `benchmarks/results/`.

    python -m benchmarks.bench --trl-python .venv-trl/bin/python
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import parser
from benchmarks.figures import Machine, Outcome
from benchmarks.memory import run_watched
from benchmarks.rates import model_size
from benchmarks.rows import Measured, Row, rows
from benchmarks.tables import write_outcome

ROOT = Path(__file__).resolve().parents[1]
PRECISIONS = ("bfloat16", "float32")


@dataclass(frozen=True)
class Place:
    """Where the benchmark works and what it runs."""

    work: Path
    trl_python: Path
    threads: int
    rate_rows: int

    @property
    def model(self) -> Path:
        return self.work / "model"

    def run(self, module: str, name: str, *arguments: object, python: str = sys.executable) -> dict[str, Any]:
        """Run one process to its end; its result, with the peak that was seen from outside."""
        out = self.work / f"{name}.json"
        command = [python, "-m", f"benchmarks.{module}", "--out", str(out), "--threads", str(self.threads)]
        peak = run_watched(
            [*command, *map(str, arguments)],
            env=self.environment(name),
            log=self.work / f"{name}.log",
            cwd=ROOT,
        )
        result: dict[str, Any] = json.loads(out.read_text())
        return {**result, "peak_bytes": max(peak, result.get("peak_bytes", 0))}

    def environment(self, name: str) -> dict[str, str]:
        """Nothing is fetched, nothing is reported, and no cache of an earlier process is met."""
        return os.environ | {
            "OMP_NUM_THREADS": str(self.threads),
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HOME": str(self.work / "cache" / name / "hf"),
            "LIKELIER_CACHE": str(self.work / "cache" / name / "likelier"),
            "PYTHONWARNINGS": "ignore",
        }


def main() -> None:
    arguments = parser(__doc__, model=False)
    arguments.set_defaults(out=ROOT / "benchmarks" / "results")
    next(action for action in arguments._actions if action.dest == "out").required = False
    arguments.add_argument("--model", default="smollm2", help="whatever likelier loads")
    arguments.add_argument("--trl-python", type=Path, default=ROOT / ".venv-trl" / "bin" / "python")
    arguments.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmark")
    arguments.add_argument(
        "--hh", type=Path, default=ROOT.parent / "shared/data/hh-rlhf/helpful-base/test.jsonl.gz"
    )
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--rate-rows", type=int, default=2048, help="tokens per micro-batch for the rate")
    arguments.add_argument(
        "--only", default="", help="rows whose key contains this, or one of these, comma-separated"
    )
    options = arguments.parse_args()
    if not options.trl_python.exists():
        raise SystemExit(
            f"no {options.trl_python}: `make bench` makes TRL's environment, or give --trl-python"
        )
    place = Place(options.work.resolve(), options.trl_python.absolute(), options.threads, options.rate_rows)
    start = time.perf_counter()
    prepare(place, options.model, options.hh)
    chosen = [row for row in rows(options.rounds) if any(part in row.key for part in options.only.split(","))]
    outcome = measure(place, chosen, options.rounds)
    written = write_outcome(outcome, options.out)
    print(written.read_text())
    say(f"{(time.perf_counter() - start) / 60:.1f} minutes; written to {options.out}")


def prepare(place: Place, model: str, hh: Path) -> None:
    """The model as a folder that both sides read, and the pairs."""
    place.work.mkdir(parents=True, exist_ok=True)
    say("model, pairs and their true log-probs")
    place.run("model_folder", "model_folder", "--model", model, "--folder", place.model)
    place.run("pairs", "pairs", "--model", place.model, "--hh", hh, "--folder", place.work)


def measure(place: Place, chosen: list[Row], rounds: int) -> Outcome:
    """All rows, round by round, with the machine's rate measured in each round."""
    truth = place.run("truth", "truth", "--model", place.model, "--pairs", place.work / "hh.jsonl")
    measured = {row.key: Measured(row) for row in chosen}
    rates: dict[str, list[float]] = defaultdict(list)
    for turn in range(rounds):
        for precision in PRECISIONS:
            rates[precision].append(rate(place, precision))
        for row in chosen:
            if turn < row.rounds:
                result = run_row(place, row, turn)
                measured[row.key].results.append(result)
                say(f"round {turn + 1}: {row.label} ({row.data}): {summary(row, result)}")
    return Outcome(list(measured.values()), truth, machine(place, rates))


def run_row(place: Place, row: Row, turn: int) -> dict[str, Any]:
    """One row in a process of its own, on the first `row.pairs` pairs of its set."""
    name = f"{row.key}-{turn}"
    # A folder that is used again holds what an earlier run has cached.
    shutil.rmtree(place.work / "cache" / name, ignore_errors=True)
    pairs = place.work / f"{name}.jsonl"
    grouped = row.data.startswith("group")
    kind = "-pairs" if grouped and row.side == "TRL" else ""
    rewards = row.data.startswith("reward")
    lines = (
        (place.work / f"{row.data.removeprefix('reward-')}{kind}.jsonl")
        .read_text(encoding="utf-8")
        .splitlines(keepends=True)
    )
    count = row.pairs // 6 if grouped and row.side == "likelier" else row.pairs
    pairs.write_text("".join(lines[:count]), encoding="utf-8")
    shared = ("--model", place.model, "--pairs", pairs, "--batch", row.batch, "--precision", row.precision)
    if row.side == "likelier":
        return place.run("likelier_side", name, *shared, "--stage", "reward" if rewards else "dpo")
    own: tuple[object, ...] = ("--accumulate", row.accumulate)
    if not rewards:
        own += ("--reference", row.reference)
    module = "trl_reward_side" if rewards else "trl_side"
    return place.run(module, name, *shared, *own, python=str(place.trl_python))


def rate(place: Place, precision: str) -> float:
    """FLOP per second of this machine at the model's shapes, now."""
    result = place.run(
        "rates",
        f"rate-{precision}",
        "--model",
        place.model,
        "--precision",
        precision,
        "--rows",
        place.rate_rows,
    )
    return float(result["flop_per_second"])


def machine(place: Place, rates: dict[str, list[float]]) -> Machine:
    """What the figures are held against."""
    said = json.loads((place.work / "pairs.json").read_text())
    shapes, parameters = model_size(str(place.model))
    return Machine(shapes, parameters, dict(rates), place.threads, said)


def summary(row: Row, result: dict[str, Any]) -> str:
    seconds = (result["reference_seconds"] or 0.0) + result["training_seconds"]
    return f"{row.pairs / seconds:.3f} pairs/s, peak {result['peak_bytes'] / 1e9:.2f} GB"


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
