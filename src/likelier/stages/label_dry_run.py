"""`likelier label --dry-run`: what would be compared, by whom, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from likelier.data.labelled import answer_text
from likelier.data.output import check_out
from likelier.data.reading import load_records
from likelier.data.records import Record
from likelier.engines.blueprints import NOTHING_DONE, Blueprint, blueprint, reward_blueprint
from likelier.engines.rubric import Rubric
from likelier.errors import DataError
from likelier.stages.label_config import LabelConfig
from likelier.stages.label_outcome import say_faults
from likelier.stages.label_pairs import cases_of


def dry_run(config: LabelConfig, *, say: Callable[[str], None]) -> int:
    """Reads settings, samples and the labeller's configuration; returns the exit code.

    Raises:
        UsageError, DataError, ModelError: whatever the stage itself would refuse before it begins.
    """
    check_out(config.out, [str(config.samples)])
    records, faults = load_records(config.samples, skip_bad_rows=True)
    say_faults(faults, say)
    found, told = _by_reward(config, records) if config.with_ == "reward" else _by_judge(config, records)
    say(told)
    print(json.dumps(found) if config.json_ else NOTHING_DONE)
    return 0


def _by_reward(config: LabelConfig, records: Sequence[Record]) -> tuple[dict[str, Any], str]:
    model = reward_blueprint(config.reward)
    answers = sum(len(record.completions) for record in records)
    pairs = sum(len(record.completions) * (len(record.completions) - 1) // 2 for record in records)
    if not pairs:
        raise DataError(f"{config.samples}: no prompt has two answers; sample more")
    found = {"prompts": len(records), "answers": answers, "pairs_at_most": pairs}
    told = (
        f"{answers:,} answers to {len(records):,} prompts scored by {config.reward}, {pairs:,} pairs at most"
    )
    if model is not None:
        found["tokens"] = sum(_tokens(model, record) for record in records)
        told += f"; {found['tokens']:,} tokens read; {model.costs(found['tokens'])}"
    return found, told


def _tokens(model: Blueprint, record: Record) -> int:
    prompt = (
        record.prompt if isinstance(record.prompt, str) else "\n".join(t["content"] for t in record.prompt)
    )
    texts = [prompt + answer_text(answer) for answer in record.completions]
    return sum(map(len, model.tokenizer(texts)["input_ids"])) if texts else 0


def _by_judge(config: LabelConfig, records: Sequence[Record]) -> tuple[dict[str, Any], str]:
    rubric = Rubric.read(config.rubric)
    assert config.pairs in (None, "all", "ring", "adjacent")  # others are refused
    cases, _ = cases_of(records, config.pairs or "all")
    if not cases:
        raise DataError(f"{config.samples}: nothing to compare; give rows with two answers or more")
    asked = []
    for case in cases:
        first, second = (one.content for one in case.record.completions)
        asked.append(rubric.fill(case.record.prompt, first, second, config.verdict))
    found = {"prompts": len(records), "pairs": len(cases), "questions_at_most": 2 * len(cases)}
    told = (
        f"{2 * len(cases):,} questions to {config.judge_model} at most, both orders of {len(cases):,} pairs"
    )
    if config.judge == "local":
        model = blueprint(str(config.judge_model))
        found["tokens"] = 2 * sum(map(len, model.tokenizer(asked)["input_ids"]))
        told += f"; {found['tokens']:,} tokens read; {model.costs(found['tokens'])}"
    else:
        told += f", at {config.base_url}: {2 * sum(map(len, asked)):,} characters"
    return found, told
