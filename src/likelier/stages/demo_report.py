"""The demo's last step: the results as JSON and the page."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from likelier.engines.rewards import Reward
from likelier.engines.sampling import SampledPrompt
from likelier.manifest import versions, write_whole
from likelier.report.comparison import Comparison
from likelier.report.dial import Dial
from likelier.report.page import DemoPage, Example, SideBySide, render_page
from likelier.stages.demo_config import DemoConfig
from likelier.stages.demo_prompts import DemoPrompt, last_turn
from likelier.stages.demo_size import HELD_OUT_SEED
from likelier.stages.label_outcome import Labelled

SHOWN = 3
"""How many prompts are shown of those that gained most, and of those that lost most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """All that a demo has found."""

    config: DemoConfig
    model: str
    reward: Reward
    train: Sequence[DemoPrompt]
    held_out: Sequence[DemoPrompt]
    labelled: Labelled
    metrics: list[dict[str, Any]]
    notes: Sequence[str]
    example: Example
    comparison: Comparison
    dial: Dial
    before: Sequence[SampledPrompt]
    after: Sequence[SampledPrompt]
    seconds: dict[str, float]
    commands: list[tuple[str, str]]


def write_report(found: Found) -> tuple[Path, Path]:
    """Writes `page.html` and `results.json` into `config.out`; returns their paths."""
    paths = found.config.out / "page.html", found.config.out / "results.json"
    write_whole(paths[1], json.dumps(_results(found), indent=2, default=str) + "\n")
    write_whole(paths[0], render_page(_page(found)))
    return paths


def _results(found: Found) -> dict[str, Any]:
    return {
        "comparison": found.comparison.as_dict(),
        "dial": found.dial.as_dict(),
        "example": asdict(found.example),
        "labelled": found.labelled.result,
        "notes": list(found.notes),
        "seconds": found.seconds,
        "config": found.config.model_dump(),
        "versions": versions(),
    }


def _page(found: Found) -> DemoPage:
    shown, order = _all_side_by_side(found), _by_change(found.comparison)
    return DemoPage(
        model=found.model,
        reward=found.reward.name,
        reward_meaning=found.reward.meaning,
        beta=found.config.beta,
        num_train_prompts=len(found.train),
        num_train_answers=found.labelled.all_answers,
        num_pairs=found.labelled.pairs,
        num_undecided=found.labelled.undecided,
        num_skipped=found.labelled.skipped,
        train_subjects=_subjects(found.train),
        held_out_subjects=_subjects(found.held_out),
        metrics=found.metrics,
        notes=found.notes,
        comparison=found.comparison,
        dial=found.dial,
        example=found.example,
        side_by_side=[shown[index] for index in _firsts(found.held_out)],
        gained=[shown[index] for index in order[-SHOWN:][::-1]],
        lost=[shown[index] for index in order[:SHOWN]],
        max_new_tokens=found.config.max_new_tokens,
        settings=_settings(found.config, found.seconds),
        commands=found.commands,
        seconds=sum(found.seconds.values()),
        quick=found.config.quick,
    )


def next_commands(config: DemoConfig, *, model: str) -> list[tuple[str, str]]:
    """Commands that go on from here: (what it does, the command)."""
    preferences, trained = config.out / "preferences.jsonl", config.out / "run" / "model"
    scores, other = config.out / "scores.jsonl", config.out.with_name(f"{config.out.name}-beta")
    rate, beta = f"{config.learning_rate:g}", f"{5 * config.beta:g}"
    check = ["check", "--data", preferences, "--model", trained]
    same = ["--learning-rate", rate, "--batch-size", config.batch_size]
    train = ["dpo", "--model", model, "--data", preferences, "--beta", beta, *same]
    score = ["score", "--model", trained, "--reference", model, "--data", preferences, "--out", scores]
    size = ["--max-new-tokens", config.max_new_tokens, "--seed", config.seed + HELD_OUT_SEED]
    asked, stronger = config.out / "prompts-held-out.jsonl", config.out / "stronger.jsonl"
    sample = [
        "sample",
        "--model",
        trained,
        "--strength",
        1.5,
        "--prompts",
        asked,
        "--n",
        1,
        *size,
        "--out",
        stronger,
    ]
    return [
        ("Look at the preferences as training saw them", _command(check)),
        (
            f"Train again, held closer to the reference: β = {beta} (or on --data of your own)",
            _command([*train, "--out", other]),
        ),
        ("Score every answer under the trained model: log-probs, and rewards β log π/π_ref", _command(score)),
        (
            "Answer at a strength of your own, as the slider does: here half as far again as training",
            _command(sample),
        ),
    ]


def _command(words: Sequence[object]) -> str:
    return shlex.join(["likelier", *map(str, words)])


def _all_side_by_side(found: Found) -> list[SideBySide]:
    """In the order of the held-out prompts."""
    rewards = (found.comparison.rewards_before, found.comparison.rewards_after)
    rows = zip(found.held_out, found.before, found.after, *rewards, strict=True)
    return [_side_by_side(*row) for row in rows]


def _side_by_side(
    prompt: DemoPrompt,
    before: SampledPrompt,
    after: SampledPrompt,
    rewards_before: list[float],
    rewards_after: list[float],
) -> SideBySide:
    """A prompt's first answers."""
    return SideBySide(
        subject=prompt.subject,
        prompt=last_turn(prompt.prompt),
        before=before.completions[0].text,
        after=after.completions[0].text,
        reward_before=rewards_before[0],
        reward_after=rewards_after[0],
    )


def _by_change(comparison: Comparison) -> list[int]:
    """Prompt numbers, that of the largest loss first."""
    pairs = zip(comparison.rewards_before, comparison.rewards_after, strict=True)
    changes = [fmean(after) - fmean(before) for before, after in pairs]
    return sorted(range(len(changes)), key=changes.__getitem__)


def _subjects(prompts: Sequence[DemoPrompt]) -> list[str]:
    return list(dict.fromkeys(prompt.subject for prompt in prompts if prompt.subject))


def _firsts(prompts: Sequence[DemoPrompt]) -> list[int]:
    """The number of the first prompt of each subject; eight at most."""
    first: dict[str, int] = {}
    for number, prompt in enumerate(prompts):
        first.setdefault(prompt.subject, number)
    return list(first.values())[:8]


def _settings(config: DemoConfig, seconds: dict[str, float]) -> list[tuple[str, str]]:
    chosen = {name: str(value) for name, value in config.model_dump().items() if value is not None}
    times = {f"seconds: {name}": f"{value:.1f}" for name, value in seconds.items()}
    return [*chosen.items(), *times.items(), ("processors", str(os.cpu_count())), *versions().items()]
