"""The demo's last step: the results as JSON and the page."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from likelier.engines.rewards import Reward
from likelier.engines.sampling import SampledPrompt
from likelier.manifest import versions, write_whole
from likelier.report.comparison import Comparison
from likelier.report.page import DemoPage, Example, SideBySide, render_page
from likelier.stages.demo import DemoConfig
from likelier.stages.demo_prompts import DemoPrompt, last_turn
from likelier.stages.label_outcome import Labelled

SHOWN = 3
"""How many prompts are shown of those that gained most, and of those that lost most."""


def write_report(
    config: DemoConfig,
    *,
    model: str,
    reward: Reward,
    train: Sequence[DemoPrompt],
    held_out: Sequence[DemoPrompt],
    labelled: Labelled,
    metrics: list[dict[str, Any]],
    notes: Sequence[str],
    example: Example,
    comparison: Comparison,
    before: Sequence[SampledPrompt],
    after: Sequence[SampledPrompt],
    seconds: dict[str, float],
    commands: list[tuple[str, str]],
) -> tuple[Path, Path]:
    """Writes `page.html` and `results.json` into `config.out`; returns their paths."""
    shown = [
        _side_by_side(prompt, first, second, rewards_before, rewards_after)
        for prompt, first, second, rewards_before, rewards_after in zip(
            held_out, before, after, comparison.rewards_before, comparison.rewards_after, strict=True
        )
    ]
    order = _by_change(comparison)
    page = DemoPage(
        model=model,
        reward=reward.name,
        reward_meaning=reward.meaning,
        beta=config.beta,
        num_train_prompts=len(train),
        num_train_answers=labelled.all_answers,
        num_pairs=labelled.pairs,
        num_undecided=labelled.undecided,
        num_skipped=labelled.skipped,
        train_subjects=_subjects(train),
        held_out_subjects=_subjects(held_out),
        metrics=metrics,
        notes=notes,
        comparison=comparison,
        example=example,
        side_by_side=[shown[index] for index in _firsts(held_out)],
        gained=[shown[index] for index in order[-SHOWN:][::-1]],
        lost=[shown[index] for index in order[:SHOWN]],
        max_new_tokens=config.max_new_tokens,
        settings=_settings(config, seconds),
        commands=commands,
        seconds=sum(seconds.values()),
        quick=config.quick,
    )
    results = {
        "comparison": comparison.as_dict(),
        "example": asdict(example),
        "labelled": labelled.result,
        "notes": list(notes),
        "seconds": seconds,
        "config": config.model_dump(),
        "versions": versions(),
    }
    paths = config.out / "page.html", config.out / "results.json"
    write_whole(paths[1], json.dumps(results, indent=2, default=str) + "\n")
    write_whole(paths[0], render_page(page))
    return paths


def next_commands(config: DemoConfig, *, model: str) -> list[tuple[str, str]]:
    """Three commands that go on from here: (what it does, the command)."""
    preferences, trained = config.out / "preferences.jsonl", config.out / "run" / "model"
    scores, other = config.out / "scores.jsonl", config.out.with_name(f"{config.out.name}-beta")
    rate, beta = f"{config.learning_rate:g}", f"{5 * config.beta:g}"
    check = ["check", "--data", preferences, "--model", trained]
    same = ["--learning-rate", rate, "--batch-size", config.batch_size]
    train = ["dpo", "--model", model, "--data", preferences, "--beta", beta, *same]
    score = ["score", "--model", trained, "--reference", model, "--data", preferences, "--out", scores]
    return [
        ("Look at the preferences as training saw them", _command(check)),
        (
            f"Train again, held closer to the reference: β = {beta} (or on --data of your own)",
            _command([*train, "--out", other]),
        ),
        ("Score every answer under the trained model: log-probs, and rewards β log π/π_ref", _command(score)),
    ]


def _command(words: Sequence[object]) -> str:
    return shlex.join(["likelier", *map(str, words)])


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
