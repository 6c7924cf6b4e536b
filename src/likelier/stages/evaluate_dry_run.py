"""`likelier evaluate --dry-run`: whose answers would be measured, on what, and what it costs at most."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from likelier.data.records import Record
from likelier.data.splitting import split_by_prompt
from likelier.data.usable import usable_records
from likelier.engines.blueprints import NOTHING_DONE, Blueprint, blueprint, reward_blueprint
from likelier.engines.rubric import Rubric
from likelier.engines.verdicts import labelled_cases
from likelier.errors import UsageError
from likelier.stages.evaluate_config import EvaluateConfig
from likelier.stages.evaluate_dial import sampled_at
from likelier.stages.evaluate_frontier import answers_each, answers_of_reference, reference_of
from likelier.stages.evaluate_output import Say, check_folder
from likelier.stages.evaluate_players import is_samples, players_of
from likelier.stages.evaluate_prompts import asked, baseline_texts, read_prompts
from likelier.training.stored import StoredRun, stored_run


def dry_run(config: EvaluateConfig, *, say: Say) -> int:
    """Reads settings, prompts or rows, run folders and configurations; returns the exit code.

    Raises:
        UsageError, DataError, ModelError: whatever the evaluation itself would refuse before it begins.
    """
    check_folder(config)
    if config.what == "preferences":
        found, told = _of_rows(config, say)
    else:
        found, told = _of_prompts(config, say)
    for line in told:
        say(line)
    print(json.dumps(found) if config.json_ else NOTHING_DONE)
    return 0


def _of_rows(config: EvaluateConfig, say: Say) -> tuple[dict[str, Any], list[str]]:
    records = usable_records(config, config.data, say)
    if config.eval_share is not None:
        records = split_by_prompt(records, config.eval_share, seed=0)[1]
    models = [_model(config, stored_run(name)) for name in config.runs]
    characters = sum(len(str(one.content)) for record in records for one in record.completions)
    told = f"{len(records):,} rows ({characters:,} characters of answers) scored by {len(models)} models: "
    lines = [told + ", ".join(model.name for model in models)] if models else []
    if config.judge_model is not None:
        lines.append(f"{len(labelled_cases(records)):,} pairs that somebody decided; {_referee(config)}")
    return {"rows": len(records), "models": len(models)}, lines


def _of_prompts(config: EvaluateConfig, say: Say) -> tuple[dict[str, Any], list[str]]:
    players = [one for one in dict.fromkeys(players_of(config)) if not is_samples(one.name)]
    files = [name for name in (*config.runs, config.against or "") if is_samples(name)]
    data = config.prompts or (files[0] if files else None)
    if data is None:
        raise UsageError("evaluate winrate needs --prompts, unless one side is a file of samples")
    records = read_prompts(config, data, say=say)
    if config.baseline is not None:
        baseline_texts(data, config.baseline, records)
    runs = [stored_run(one.name) for one in players]
    told, policies, tokens = [], 0, 0
    for player, run in zip(players, runs, strict=True):
        models, times = [_model(config, stored_run(name)) for name in player.read], _times(config, run)
        own = times * _tokens(config, models[0], records)
        policies, tokens = policies + times, tokens + own * len(models)
        costs = ", mixed with ".join(model.costs(own) for model in models)
        told.append(f"{player.who}: answers of {times} policies or temperatures; {costs}")
    found = {"prompts": len(records), "policies": policies, "tokens_at_most": tokens}
    if config.what == "frontier":
        told += _reference(config, runs, records)
    told.append(_referee(config))
    return found, [f"{len(records):,} prompts, {tokens:,} tokens read and written at most", *told]


def _times(config: EvaluateConfig, run: StoredRun) -> int:
    """How often a run answers the prompts."""
    if config.what == "frontier":
        # Of the dial, two ways draw anew at each strength; mixing also reads the reference, which is not counted.
        return len(run.policies) + (2 * len(sampled_at(config.strengths)) if config.dial else 0)
    return len(config.temperatures) if config.what == "temperature" else 1


def _tokens(config: EvaluateConfig, model: Blueprint, records: Sequence[Record]) -> int:
    answers = answers_each(config) if config.what == "frontier" else config.n or 1
    read = model.reads(asked(records), max_new_tokens=config.max_new_tokens)
    return read + len(records) * answers * config.max_new_tokens


def _reference(config: EvaluateConfig, runs: Sequence[StoredRun], records: Sequence[Record]) -> list[str]:
    """What distances are measured from; every answer costs a pass of it besides."""
    model = blueprint(reference_of(config, runs), trust_remote_code=config.trust_remote_code)
    if config.chooser is not None:
        reward_blueprint(config.chooser)
    tokens = model.reads(asked(records), max_new_tokens=config.max_new_tokens)
    tokens += len(records) * answers_of_reference(config) * config.max_new_tokens
    return [f"reference: {model.costs(tokens)}, and a pass over every other answer"]


def _referee(config: EvaluateConfig) -> str:
    if config.judge_model is None:
        model = reward_blueprint(config.reward)
        size = "" if model is None else f" ({model.parameters:,} parameters)"
        return f"every answer is scored by {config.reward}{size}"
    Rubric.read(config.rubric)
    if config.judge == "local":
        blueprint(config.judge_model)
    return f"every pair is two questions to {config.judge_model}"


def _model(config: EvaluateConfig, run: StoredRun) -> Blueprint:
    """A run's model as it lies there, or what it was started from."""
    last = run.policies[-1]
    name = last.model or run.settings.get("model")
    classifies = config.what == "preferences" and _classifies(str(name))
    return blueprint(str(name), classifies=classifies, trust_remote_code=config.trust_remote_code)


def _classifies(name: str) -> bool:
    path = Path(name) / "config.json"
    return path.is_file() and "ForSequenceClassification" in path.read_text(encoding="utf-8")
