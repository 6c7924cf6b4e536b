"""`likelier label --dry-run`: what would be compared, by whom, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from likelier.data.labelled import answer_text
from likelier.data.output import check_out
from likelier.data.reading import load_records
from likelier.data.records import Record
from likelier.data.tokens import Tokenization
from likelier.data.trees import tree_of
from likelier.engines.blueprints import NOTHING_DONE, Blueprint, blueprint, reward_blueprint
from likelier.engines.classifiers import read_by_classifier
from likelier.engines.judging import questions_of
from likelier.engines.local_judges import VERDICTS, read_before_verdict, writing_prompts
from likelier.engines.prompts import encode_prompts
from likelier.engines.reward_models import read_by_reward_model
from likelier.engines.rubric import Rubric
from likelier.errors import DataError
from likelier.models.reward_model import END_OF_TURN, READ_AT
from likelier.stages.label_config import LabelConfig
from likelier.stages.label_outcome import say_faults
from likelier.stages.label_pairs import cases_of, pairs_by_score
from likelier.stages.label_reward import blocks_of, pair_choice


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


def _by_reward(config: LabelConfig, records: list[Record]) -> tuple[dict[str, Any], str]:
    model = reward_blueprint(config.reward)
    answers = sum(len(record.completions) for record in records)
    pairs = sum(_pairs(config, len(record.completions)) for record in records)
    if not pairs:
        raise DataError(f"{config.samples}: no prompt has two answers; sample more")
    found = {"prompts": len(records), "answers": answers, "pairs_at_most": pairs}
    told = (
        f"{answers:,} answers to {len(records):,} prompts scored by {config.reward}, {pairs:,} pairs at most"
    )
    if model is not None:
        found["tokens"] = sum(_tokens(config, model, block) for block in blocks_of(records))
        told += f"; {found['tokens']:,} tokens read; {model.costs(found['tokens'])}"
    return found, told


def _pairs(config: LabelConfig, answers: int) -> int:
    """Of a prompt, before scores have said which of them are equal; any scores that differ will do."""
    choice = pair_choice(config)
    return len(pairs_by_score(list(range(answers)), "all" if choice == "ranking" else choice))


def _tokens(config: LabelConfig, model: Blueprint, records: Sequence[Record]) -> int:
    asked = [(record.prompt, answer_text(answer)) for record in records for answer in record.completions]
    if getattr(model.model.config, READ_AT, None) != END_OF_TURN:
        return sum(len(read_by_classifier(model.tokenizer, prompt, answer)) for prompt, answer in asked)
    prompts, answers = [prompt for prompt, _ in asked], [answer for _, answer in asked]
    trees = read_by_reward_model(config.reward, model.tokenizer, prompts, answers)
    return sum(tree.num_tokens for tree in trees)


def _by_judge(config: LabelConfig, records: Sequence[Record]) -> tuple[dict[str, Any], str]:
    rubric = Rubric.read(config.rubric)
    assert config.pairs in (None, "all", "ring", "adjacent")  # others are refused
    cases, _ = cases_of(records, config.pairs or "all")
    if not cases:
        raise DataError(f"{config.samples}: nothing to compare; give rows with two answers or more")
    # Rows that are the same are one question.
    asked = list(dict.fromkeys(text for case in cases for text in questions_of(rubric, case, config)))
    found = {"prompts": len(records), "pairs": len(cases), "questions_at_most": len(asked)}
    told = f"{len(asked):,} questions to {config.judge_model} at most, both orders of {len(cases):,} pairs"
    if config.judge == "local":
        model = blueprint(str(config.judge_model))
        found["tokens"], written = _judged(config, model, asked)
        told += f"; {found['tokens']:,} tokens read"
        if written:
            found["new_tokens_at_most"] = written
            told += f", {written:,} written at most"
        told += f"; {model.costs(found['tokens'] + written)}"
    else:
        told += f", at {config.base_url}: {sum(map(len, asked)):,} characters"
    return found, told


def _judged(config: LabelConfig, model: Blueprint, asked: Sequence[str]) -> tuple[int, int]:
    """The tokens that a local judge reads, and those that it writes at most."""
    if config.verdict == "log-odds":
        verdicts = Tokenization.of(model.tokenizer).continue_texts(VERDICTS)
        read = read_before_verdict(model.tokenizer, asked)
        return sum(tree_of(trunk, verdicts).num_tokens for trunk in read), 0
    read = encode_prompts(model.tokenizer, writing_prompts(model.tokenizer, asked))
    return sum(map(len, read)), len(asked) * config.judge_max_tokens
