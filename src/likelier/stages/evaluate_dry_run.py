"""`likelier evaluate --dry-run`: whose answers would be measured, on what, and what it costs at most."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
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
from likelier.stages.evaluate_output import Say, check_folder
from likelier.stages.evaluate_players import Player, answers_at, is_samples, players_of
from likelier.stages.evaluate_policies import answers_of_reference, reference_of
from likelier.stages.evaluate_prompts import answers_each, asked, baseline_texts, read_prompts
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
    drawn = [_drawn(config, one, records) for one in players]
    answers, tokens = sum(one.answers for one in drawn), sum(one.tokens for one in drawn)
    policies, told = sum(one.policies for one in drawn), [one.told for one in drawn]
    if config.what == "frontier":
        own, read, words = _reference(config, drawn, records)
        answers, tokens, told = answers + own, tokens + read, [*told, words]
    told.append(_referee(config))
    if config.chooser is not None:
        told.append(f"best-of-N: {_scored_by(config.chooser)}")
    found = {
        "prompts": len(records),
        "policies": policies,
        "answers_at_most": answers,
        "tokens_at_most": tokens,
    }
    counted = f"{len(records):,} prompts, {answers:,} answers and {tokens:,} tokens read and written at most"
    return found, [counted, *told]


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What a player's answers cost at most."""

    run: StoredRun
    policies: int
    """Or temperatures: so often every prompt is read."""
    answers: int
    tokens: int
    by_reference: int
    """Tokens that the reference reads besides, of a frontier."""
    told: str


def _drawn(config: EvaluateConfig, player: Player, records: Sequence[Record]) -> _Drawn:
    run = stored_run(player.name)
    models = [_model(config, stored_run(name)) for name in player.read]
    each = [len(records) * n for n in _answers_each(config, player, run)]
    read = models[0].reads(asked(records), max_new_tokens=config.max_new_tokens)
    own = [read + answers * config.max_new_tokens for answers in each]
    if config.what == "frontier":
        # For the distances both models run over the answers; with --dial over the policy's own a second time, for
        # their log-ratios, and of the two ways that a strength is drawn one reads the reference too.
        passed = sum(own) + own[0] * config.dial
        by_reference = passed + own[0] * len(sampled_at(config.strengths)) * config.dial
    else:
        passed = by_reference = 0
    tokens = sum(own) + passed
    costs = ", mixed with ".join(model.costs(tokens) for model in models)
    told = f"{player.who}: answers of {len(each)} policies or temperatures; {costs}"
    return _Drawn(run, len(each), sum(each), tokens * len(models), by_reference, told)


def _answers_each(config: EvaluateConfig, player: Player, run: StoredRun) -> list[int]:
    """To a prompt, each time that a run answers them."""
    if config.what == "frontier":
        dialled = 2 * len(sampled_at(config.strengths)) if config.dial else 0
        return [answers_each(config)] * (_policies(run) + dialled)
    if config.what == "temperature":
        return [answers_at(config, player, temperature) for temperature in config.temperatures]
    return [answers_at(config, player, config.sampling_temperature)]


def _policies(run: StoredRun) -> int:
    """A run's; its last checkpoint and the model that was made of it are one, and measured once."""
    *before, last = run.policies
    chosen = run.settings.get("keep_best") or run.settings.get("merge")
    again = before and not chosen and last.model is not None and before[-1].step == last.step
    return len(run.policies) - bool(again)


def _reference(
    config: EvaluateConfig, drawn: Sequence[_Drawn], records: Sequence[Record]
) -> tuple[int, int, str]:
    """What distances are measured from: its own answers, and the tokens that it reads of these and of all others."""
    reference = reference_of(config, [one.run for one in drawn])
    model = blueprint(reference, trust_remote_code=config.trust_remote_code)
    answers = len(records) * answers_of_reference(config)
    tokens = model.reads(asked(records), max_new_tokens=config.max_new_tokens)
    tokens += answers * config.max_new_tokens + sum(one.by_reference for one in drawn)
    return answers, tokens, f"reference: {model.costs(tokens)}, a pass over every other answer included"


def _referee(config: EvaluateConfig) -> str:
    if config.judge_model is None:
        return _scored_by(str(config.reward))
    Rubric.read(config.rubric)
    if config.judge == "local":
        blueprint(config.judge_model)
    return f"every pair is two questions to {config.judge_model}"


def _scored_by(reward: str) -> str:
    model = reward_blueprint(reward)
    size = "" if model is None else f" ({model.parameters:,} parameters)"
    return f"every answer is scored by {reward}{size}"


def _model(config: EvaluateConfig, run: StoredRun) -> Blueprint:
    """A run's model as it lies there, or what it was started from."""
    last = run.policies[-1]
    name = last.model or run.settings.get("model")
    classifies = config.what == "preferences" and _classifies(str(name))
    return blueprint(str(name), classifies=classifies, trust_remote_code=config.trust_remote_code)


def _classifies(name: str) -> bool:
    path = Path(name) / "config.json"
    return path.is_file() and "ForSequenceClassification" in path.read_text(encoding="utf-8")
