"""What `experiment.py` found, over all seeds that are done: a page of sentences and tables, a picture, the numbers.

    python examples/sentiment-cpu/results.py --runs runs/sentiment-cpu --out docs/experiments/sentiment-cpu

`seeds.py` reads the folders, `findings.py` has the statistics, `words.py` and `phrases.py` the sentences.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from findings import Both, found_in
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from phrases import NAMES, told
from seeds import METHODS, read_seed, seeds_done
from words import HELD, verdict

from likelier.report.charts import FAINT, crosses, drawn, errors_of, look
from likelier.report.page import number
from likelier.stats import Estimate

_NOTHING = Estimate(value=0.0, n=1, clusters=1)
ZERO = Both(over_prompts=_NOTHING, over_seeds=_NOTHING)
"""The reference's KL to itself."""


def picture(found: Mapping[str, Any]) -> Figure:
    """Reward against KL of the methods, of the dial beside the sweep, and win rates over temperature."""
    figure = Figure(figsize=(15, 5), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for axes in (left, middle):
        axes.axhline(found["start"].value, color=FAINT, linewidth=1, zorder=0)
        axes.set(xlabel="KL to the reference, nats per answer", ylabel="mean true reward (VADER)")
    for place, (method, points) in enumerate(found["points"].items()):
        _points(left, points, place, NAMES[method], linestyle="none")
    left.set_title("methods: every setting, half-way and at its end", fontsize=10)
    _points(middle, [p for p in found["points"]["dpo"] if _ends(p, found)], 0, "sweep of β", linestyle="none")
    for place, (way, own) in enumerate((found["dial"] or {"ways": {}})["ways"].items(), 1):
        points = sorted(own["points"], key=lambda point: float(point["setting"].removeprefix("λ = ")))
        from_start = [{"kl": ZERO, "reward": found["start"]}, *points]
        _points(middle, from_start, place, f"dial, {way}", linewidth=1)
    middle.set_title("the dial of one run beside three runs", fontsize=10)
    for name, own in found["temperatures"].items():
        _rates(right, name, own)
    right.axhline(50, color=FAINT, linewidth=1, zorder=0)
    right.set(xlabel="sampling temperature", ylabel="win rate, %, against the likeliest answer before")
    for axes in (left, middle, right):
        axes.legend(fontsize=8)
    return figure


def _ends(point: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    same = [one["step"] for one in found["points"]["dpo"] if one["setting"] == point["setting"]]
    return bool(point["step"] == max(same))


def _points(axes: Axes, points: Sequence[Mapping[str, Any]], place: int, name: str, **style: Any) -> None:
    kl, rewards = ([point[key].over_prompts for point in points] for key in ("kl", "reward"))
    crosses(axes, kl, rewards, markersize=4, **style, **look(place, name))


def _rates(axes: Axes, name: str, own: Mapping[str, Any]) -> None:
    place = METHODS.index(name) if name in METHODS else len(METHODS)
    style = (
        look(place, NAMES[name]) if name in METHODS else {"color": FAINT, "marker": ".", "label": NAMES[name]}
    )
    rates = [one.over_prompts.scaled(100) for one in own["win_rates"].values()]
    # Side by side, so that intervals can be told apart.
    at = [float(one) + 0.006 * (place - 3) for one in own["win_rates"]]
    axes.errorbar(at, [one.value for one in rates], yerr=errors_of(rates), capsize=2, linewidth=1, **style)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(found: Mapping[str, Any]) -> str:
    """The answers, and the tables that they rest on."""
    return (
        "\n\n".join(
            [
                "# Controlled sentiment on two cores",
                verdict(found),
                "![Reward against KL, the dial beside the sweep, win rates over temperature](results.svg)",
                "## Tables",
                _areas(found),
                _costs(found),
                _temperatures(found),
                _policies(found),
            ]
        )
        + "\n"
    )


def _areas(found: Mapping[str, Any]) -> str:
    rows = []
    for method, own in found["areas"].items():
        gap = own.get("dpo_less_this")
        less = ["", ""]
        if gap is not None:
            both = gap["mean_height"]
            less = [told(one, digits=3, signed=True) for one in (both.over_prompts, both.over_seeds)]
        by_seed = ", ".join(number(one) for one in own["by_seed"])
        rows.append([NAMES[method], told(own["area"].over_prompts), by_seed, *less])
    header = (
        "method",
        f"area up to {found['to']:g} nats",
        "by seed",
        "DPO less this, mean reward, over prompts",
        "over seeds",
    )
    return _table(header, rows)


def _costs(found: Mapping[str, Any]) -> str:
    rows = []
    for method, own in found["costs"].items():
        drawn_by_it = (
            f"{own['drawn_per_answer']:.0f} for each that it gives"
            if own["drawn_per_answer"] > 1
            else f"{own['drawn']:.0f}"
        )
        rows.append(
            [
                *(NAMES[method], HELD[method], f"{own['drawn_before']:.0f}", drawn_by_it),
                *(f"{own[name]:.3g}" for name in ("seconds", "seconds_of_reward_model")),
                *(f"{own[name]:.2g}" for name in ("flop", "flop_of_reward_model")),
            ]
        )
    header = (
        *("method", "models held", "answers drawn for preferences", "answers drawn by the run"),
        *(
            "seconds with its reward model",
            "of which the reward model",
            "FLOP with its reward model",
            "of which the reward model",
        ),
    )
    note = (
        "Medians over settings and seeds, of updates alone. Seconds are of one thread beside other work: take them as"
        " an order of size. FLOP are those of passes over policy and reference, PPO's drawing among them; not in them"
        " are drawing the answers for preferences, and the reward model's reading of PPO's answers."
    )
    return f"{_table(header, rows)}\n\n{note}"


def _temperatures(found: Mapping[str, Any]) -> str:
    rows = [
        [
            *(NAMES[method], at, told(rate.over_prompts, scale=100, digits=1)),
            told(rate.over_seeds, scale=100, digits=1),
            told(own["below_the_best"][at], scale=100, digits=1),
        ]
        for method, own in found["temperatures"].items()
        for at, rate in own["win_rates"].items()
    ]
    return _table(
        ("method", "temperature", "win rate, %, over prompts", "over seeds", "points below its best"), rows
    )


def _policies(found: Mapping[str, Any]) -> str:
    every = {NAMES[method]: own for method, own in found["points"].items()}
    for way, own in (found["dial"] or {"ways": {}})["ways"].items():
        every[f"dial, {way}"] = own["points"]
    rows = [
        [
            *(name, one["setting"], str(one["step"] or "")),
            *(
                told(one["reward"].over_prompts, digits=3),
                ", ".join(number(r, 3) for r in one["reward_by_seed"]),
            ),
            *(told(one["kl"].over_prompts), ", ".join(f"{k:.2f}" for k in one["kl_by_seed"])),
        ]
        for name, own in every.items()
        for one in own
    ]
    return _table(("method", "setting", "step", "reward", "by seed", "KL, nats", "by seed"), rows)


def main() -> None:
    """Reads the seeds that are done, and writes the page."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--runs", type=Path, default=Path("runs/sentiment-cpu"))
    made.add_argument("--out", type=Path, default=Path("runs/sentiment-cpu/results"))
    options = made.parse_args()
    done = seeds_done(options.runs)
    if not done:
        raise SystemExit(f"{options.runs}: no seed is done yet")
    found = found_in([read_seed(folder) for folder in done])
    options.out.mkdir(parents=True, exist_ok=True)
    numbers = json.dumps(found, indent=1, default=asdict)
    (options.out / "results.json").write_text(numbers + "\n", encoding="utf-8")
    (options.out / "results.md").write_text(page(found), encoding="utf-8")
    for form in ("svg", "png"):
        (options.out / f"results.{form}").write_bytes(drawn(lambda: picture(found), form=form))
    print(page(found))


if __name__ == "__main__":
    main()
