"""The table as a page, CSV and JSON."""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.figures import GB, SETS, Figures, Machine, Outcome, Ratio, agreement, figures, ratios
from benchmarks.pictures import draw


def write_outcome(outcome: Outcome, folder: Path) -> Path:
    """Write `benchmark.csv`, `.json`, `.md` and the pictures; returns the Markdown file."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [figures(measured, outcome) for measured in outcome.measured if not measured.row.agreement]
    with (folder / "benchmark.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(Figures.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(asdict(line) for line in lines)
    everything = {
        "rows": [asdict(line) for line in lines],
        "ratios": [asdict(ratio) | {"met": ratio.met} for ratio in ratios(outcome)],
        "agreement": agreement(outcome),
        "machine": described(outcome.machine),
        "seconds": {m.row.key: [r["step_seconds"] for r in m.results] for m in outcome.measured},
    }
    (folder / "benchmark.json").write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    (folder / "benchmark.md").write_text(markdown(outcome, lines), encoding="utf-8")
    draw(lines, outcome.machine.fixed.total / GB, folder / "benchmark")
    return folder / "benchmark.md"


def described(machine: Machine) -> dict[str, Any]:
    """The machine and the work, for the record."""
    return {
        "processor": processor(),
        "threads": machine.threads,
        "flop_per_second": machine.rates,
        "parameters": machine.parameters,
        "fixed_state_bytes": asdict(machine.fixed),
        "pairs": machine.pairs,
    }


def processor() -> str:
    """The processor's name and the instructions that matter here."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    flags = [flag for flag in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if f" {flag}" in text]
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} ({', '.join(flags)})"


def markdown(outcome: Outcome, lines: Sequence[Figures]) -> str:
    """The whole page."""
    machine = outcome.machine
    rates = ", ".join(f"{name} {machine.rate(name) / GB:.0f} GFLOP/s" for name in machine.rates)
    fixed = machine.fixed
    parts = [
        "# likelier against TRL 1.16",
        f"{processor()}, {machine.threads} threads. {machine.pairs['source']}; mean tokens "
        + ", ".join(f"{name} {value:.0f}" for name, value in machine.pairs["mean_tokens"].items())
        + f". Matrix products here: {rates}. Fixed state: {fixed.total / GB:.2f} GB "
        f"(weights {fixed.weights / GB:.2f}, gradients {fixed.gradients / GB:.2f}, "
        f"optimiser {fixed.optimizer / GB:.2f}).",
    ]
    for data, title in SETS.items():
        if chosen := [line for line in lines if line.data == data]:
            parts += [f"## {title[0].upper()}{title[1:]}", table(chosen)]
    parts += ["## What must be reached", ratio_table(ratios(outcome)), agreement_text(agreement(outcome))]
    return "\n\n".join(parts) + "\n"


def table(lines: Sequence[Figures]) -> str:
    """Markdown of one set of pairs; `×` is against TRL's best there."""
    best = max((line.pairs_per_second for line in lines if line.side == "TRL"), default=None)
    head = [
        "",
        "pairs/s",
        "reference cached",
        "×",
        "tokens/s",
        "peak GB",
        "above fixed",
        "MFU",
        "rms error, nats",
    ]
    rows = [head, ["---"] + ["--:"] * (len(head) - 1)]
    for line in lines:
        rows.append(
            [
                line.label,
                f"{line.pairs_per_second:.2f}",
                number(line.cached_pairs_per_second, ".2f"),
                "" if best is None else f"{line.pairs_per_second / best:.2f}",
                f"{line.tokens_per_second:.0f}",
                f"{line.peak_gb:.2f}",
                f"{line.above_fixed_gb:.2f}",
                f"{100 * line.flop_share:.0f} %",
                number(line.error_nats, ".2g")
                + ("" if line.error_share is None else f" ({line.error_share:.2%})"),
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def ratio_table(found: Sequence[Ratio]) -> str:
    """Markdown of the ratios."""
    rows = [["", "measured", "must be", ""], ["---", "--:", "--:", "---"]]
    for ratio in found:
        sign = "≤" if ratio.at_most else "≥"
        interval = "" if ratio.low is None else f" [{ratio.low:.2f}, {ratio.high:.2f}]"
        verdict = "met" if ratio.met else "missed"
        rows.append([ratio.name, f"{ratio.value:.2f}{interval}", f"{sign} {ratio.target:g}", verdict])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def agreement_text(found: dict[str, Any] | None) -> str:
    if found is None:
        return "Agreement of the first step was not measured."
    loss, norm, apart = found["first_loss"], found["first_grad_norm"], found["log_probs"]
    return (
        f"First step in float32 on the same eight pairs, likelier and TRL: loss {loss[0]:.6f} and "
        f"{loss[1]:.6f}, gradient norm {norm[0]:.4f} and {norm[1]:.4f}; log-probs differ by "
        f"{apart['largest']:.1e} nats at most."
    )
