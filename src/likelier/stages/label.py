"""Preferences between answers, whoever prefers: a reward, a language model as judge, or people.

    likelier label samples.jsonl --with reward --reward vader --out preferences.jsonl

Each labeller stands in a file of its own (`label_reward.py`, …); all write the design's preference rows with
`labeller`, `time` and `reason`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from likelier.config import named, reward_name
from likelier.data.output import check_out
from likelier.errors import UsageError
from likelier.manifest import as_json
from likelier.stages.label_config import LabelConfig
from likelier.stages.label_outcome import Labelled

Say = Callable[[str], None]


def label(
    samples: Any,
    *,
    out: str | Path | None = None,
    reward: str | Callable[..., Any] | None = None,
    judge_model: Any = None,
    tokenizer: Any = None,
    **config: Any,
) -> Labelled:
    """Preferences between the answers of `samples`.

    Args:
        samples: a path, rows, or a `datasets.Dataset`; rows with two answers or more each.
        out: a JSON Lines file to write as well.
        reward: a name as on the command line, or `f(prompt, answer) -> number`, or `f(prompts, answers) -> numbers`.
        judge_model: a name, a folder, or a module with its `tokenizer`.
        config: every other setting of `likelier label`, by name; `with_` says who prefers.

    Raises:
        UsageError, DataError, ModelError: settings, rows or models that cannot be used as given.
        WorkError: a reward that fails or is no finite number; a judge that says nothing of use.

    >>> rows = [{"prompt": "Go on:", "completions": ["and so", "and so on"]}]
    >>> label(rows, with_="reward", reward=lambda prompt, answer: len(answer)).rows[0]["chosen"]
    'and so on'
    """
    values = {
        "samples": Path(samples if isinstance(samples, str | Path) else str(named(samples))),
        "out": None if out is None else Path(out),
        "reward": reward_name(reward) if callable(reward) else reward,
        "judge_model": named(judge_model),
    }
    settings = LabelConfig.build(
        {name: value for name, value in values.items() if value is not None} | config
    )
    if settings.with_ == "human":
        raise UsageError("--with human is a page to be opened: run `likelier label … --with human`")
    given = _Inputs(samples, reward or settings.reward, judge_model, tokenizer)
    return _by_machine(settings, given, say=lambda text: None)


def label_file(config: LabelConfig) -> Labelled:
    """The same for a file, as a step of a longer way."""
    return _by_machine(config, _named(config), say=lambda text: None)


def main(config: LabelConfig) -> int:
    """The command; its exit code is 1 where a judge failed to answer."""
    if config.with_ == "human":
        from likelier.stages.label_human import label_human

        return label_human(config)
    if config.dry_run:
        from likelier.stages.label_dry_run import dry_run

        return dry_run(config, say=lambda text: print(text, file=sys.stderr))
    labelled = _by_machine(config, _named(config), say=lambda text: print(text, file=sys.stderr))
    if config.json_:
        print(as_json(labelled.result))
    elif config.out is None:
        for row in labelled.rows:
            print(json.dumps(row))
    return 1 if labelled.figures.get("failures") else 0


class _Inputs(NamedTuple):
    """What the configuration can only name: rows, functions and models in memory."""

    samples: Any
    reward: str | Callable[..., Any]
    judge_model: Any
    tokenizer: Any


def _named(config: LabelConfig) -> _Inputs:
    return _Inputs(config.samples, config.reward, config.judge_model, None)


def _by_machine(config: LabelConfig, given: _Inputs, *, say: Say) -> Labelled:
    check_out(config.out, [str(config.samples)])
    # A labeller is imported where it works: a judge on a server needs no torch.
    if config.with_ == "judge":
        from likelier.stages.label_judge import label_by_judge

        return label_by_judge(config, given.samples, given.judge_model, given.tokenizer, say=say)
    from likelier.stages.label_reward import label_by_reward

    return label_by_reward(config, given.samples, given.reward, say=say)
