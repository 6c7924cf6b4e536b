"""Sampling by likelier against `model.generate` of transformers: the same prompts, interleaved rounds, a process each.

K = 4 answers of up to 64 tokens at temperature 1 to prompts of HH helpful-base at equal quantiles of length. Every
setting of `generate` is tried once; then likelier and the best of them meet in further rounds. Writes `sampling.md`
and `.json` into `benchmarks/results/sampling/`.

    python -m benchmarks.sampling
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench import ROOT, Place, prepare, say
from benchmarks.common import parser, read_rows
from benchmarks.tables import processor


@dataclass(frozen=True)
class Setting:
    """One side with its settings."""

    side: str
    precision: str = "bfloat16"
    batch: int = 8
    """generate: prompts per call, each with K answers."""
    cache: str = "dynamic"

    @property
    def key(self) -> str:
        return f"{self.side}-{self.precision}-{self.batch}-{self.cache}"

    @property
    def label(self) -> str:
        if self.side == "likelier":
            return f"likelier, {self.precision}"
        kind = "" if self.cache == "dynamic" else f", {self.cache} cache"
        return f"`model.generate`, {self.batch} prompts a call, {self.precision}{kind}"


LIKELIER = Setting("likelier")
OTHERS = (
    *(Setting("generate", batch=batch) for batch in (1, 4, 8, 16, 32)),
    Setting("generate", cache="static"),
    Setting("generate", precision="float32"),
    Setting("likelier", precision="float32"),
)
Results = Mapping[Setting, Sequence[dict[str, Any]]]


def main() -> None:
    arguments = parser(__doc__, model=False)
    arguments.set_defaults(out=ROOT / "benchmarks" / "results" / "sampling")
    next(action for action in arguments._actions if action.dest == "out").required = False
    arguments.add_argument("--model", default="smollm2", help="whatever likelier loads")
    arguments.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmark")
    arguments.add_argument(
        "--hh", type=Path, default=ROOT.parent / "shared/data/hh-rlhf/helpful-base/test.jsonl.gz"
    )
    arguments.add_argument("--prompts", type=int, default=32)
    arguments.add_argument("--rounds", type=int, default=3, help="of likelier and the best of generate")
    options = arguments.parse_args()
    # TRL has no part in this.
    place = Place(options.work.resolve(), Path(sys.executable), options.threads, rate_rows=0)
    prepare(place, options.model, options.hh)
    prompts = place.work / "sampling-prompts.jsonl"
    rows = read_rows(place.work / "hh.jsonl")[: options.prompts]
    prompts.write_text(
        "".join(json.dumps({"prompt": row["prompt"]}) + "\n" for row in rows), encoding="utf-8"
    )
    results = measure(place, prompts, options.rounds)
    options.out.mkdir(parents=True, exist_ok=True)
    described = [asdict(setting) | {"results": found} for setting, found in results.items()]
    (options.out / "sampling.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    (options.out / "sampling.md").write_text(page(results, len(rows)), encoding="utf-8")
    print(page(results, len(rows)))


def measure(place: Place, prompts: Path, rounds: int) -> Results:
    """All settings once, then likelier and the best of `generate`, in turn."""
    results: dict[Setting, list[dict[str, Any]]] = defaultdict(list)
    for setting in (LIKELIER, *OTHERS):
        results[setting].append(run(place, prompts, setting))
    for _ in range(rounds - 1):
        for setting in (LIKELIER, best_of_generate(results)):
            results[setting].append(run(place, prompts, setting))
    return dict(results)


def run(place: Place, prompts: Path, setting: Setting) -> dict[str, Any]:
    """One setting in a process of its own."""
    result = place.run(
        "sampling_side",
        f"sampling-{setting.key}",
        *("--model", place.model, "--prompts", prompts, "--side", setting.side),
        *("--precision", setting.precision, "--batch", setting.batch, "--cache", setting.cache),
    )
    say(f"{setting.label}: {rate(result):.0f} tokens/s, peak {result['peak_bytes'] / 1e9:.2f} GB")
    return result


def rate(result: Mapping[str, Any]) -> float:
    """Sampled tokens a second, to and with each answer's end: what a call computes past an end counts nothing."""
    return float(result["tokens"] / result["seconds"])


def speed(found: Sequence[Mapping[str, Any]]) -> float:
    """The median of a setting's rounds."""
    return statistics.median(map(rate, found))


def best_of_generate(results: Results) -> Setting:
    """The fastest setting of `model.generate`, in whatever precision."""
    return max(
        (setting for setting in results if setting.side == "generate"), key=lambda one: speed(results[one])
    )


def page(results: Results, prompts: int) -> str:
    """The whole page, in Markdown."""
    best = best_of_generate(results)
    paired = [
        rate(ours) / rate(theirs) for ours, theirs in zip(results[LIKELIER], results[best], strict=False)
    ]
    lines = [
        "# Sampling: likelier against `model.generate`",
        f"{processor()}. {prompts} prompts of HH helpful-base, 4 answers of up to 64 tokens each, temperature 1.",
        "| | rounds | tokens/s | × | peak GB |\n|---|--:|--:|--:|--:|",
    ]
    for setting, found in results.items():
        peak = max(result["peak_bytes"] for result in found) / 1e9
        ratio = speed(found) / speed(results[best])
        lines[-1] += f"\n| {setting.label} | {len(found)} | {speed(found):.0f} | {ratio:.2f} | {peak:.2f} |"
    lines.append(
        f"likelier over the best of `generate` ({best.batch} prompts a call), round by round: "
        + ", ".join(f"{ratio:.2f}" for ratio in paired)
        + f"; median {statistics.median(paired):.2f} (1.5 must be reached)."
    )
    return "\n\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
