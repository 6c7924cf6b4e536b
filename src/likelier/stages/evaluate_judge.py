"""`likelier evaluate preferences --judge-model M`: how well a judge's verdicts predict what people preferred."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from likelier.data.canonical import prompt_digest
from likelier.data.labelled import answer_text
from likelier.data.records import Record
from likelier.engines.judge_figures import figures_of
from likelier.engines.judging import judge_cases, judge_notes, judge_of
from likelier.engines.verdicts import Judged, counted_reasons, labelled_cases, mean_gap
from likelier.errors import DataError, WorkError
from likelier.stages.evaluate_config import EvaluateConfig
from likelier.stages.evaluate_output import Say
from likelier.stats.preferences import PreferenceEvaluation, evaluate_preferences

NO_CATEGORY = "no source"


def category_of(record: Record) -> str:
    """What a row says it is about; `--columns source=COLUMN` takes it from another column."""
    return record.source or NO_CATEGORY


def evaluated_judge(
    config: EvaluateConfig, model: Any, tokenizer: Any, records: Sequence[Record], *, say: Say
) -> tuple[PreferenceEvaluation, dict[str, Any]]:
    """The judge on every pair that people decided, each in both orders; and what its answers say of itself.

    By log-odds it has a probability, `(1 + P(A) - P(B)) / 2` over both orders, and so a margin; a verdict in words is a
    sign alone. Lengths are in characters: a judge behind a server has no tokenizer here.

    Raises:
        DataError: no row in which one answer is better than another.
        WorkError: not one verdict could be had.
    """
    cases = labelled_cases(records)
    if not cases:
        raise DataError("the data holds no pair of answers of which one is preferred")
    judge = judge_of(config, model, tokenizer, precision=config.precision)
    try:
        judged, known = judge_cases(judge, cases, config, say=say)
    finally:
        judge.close()
    for note in judge_notes(judge):
        say(note)
    decided = [one for one in judged if one.labelled]
    if not decided:
        raise WorkError(
            f"{judge.name} gave no verdict on any of {len(judged)} pairs ({counted_reasons(judged)})"
        )
    by_odds = config.verdict == "log-odds"
    evaluation = evaluate_preferences(
        [_margin(one, by_odds=by_odds) for one in decided],
        length_differences=[_longer(one) for one in decided],
        prompts=[prompt_digest(one.case.record.prompt) for one in decided],
        categories=[category_of(records[one.case.prompt]) for one in decided],
        signs_alone=not by_odds,
        unit="characters",
    )
    return evaluation, figures_of(judged, asked=2 * len(cases) - known, known=known)


def _margin(one: Judged, *, by_odds: bool) -> float:
    """`log p/(1 − p)` of the answer that people chose, or 1, 0 or −1 for a verdict in words."""
    toward = 1.0 if one.case.label == 0 else -1.0
    if by_odds:
        return toward * 2.0 * math.atanh(mean_gap(one))
    return 0.0 if one.winner is None else toward * (1.0 if one.winner == 0 else -1.0)


def _longer(one: Judged) -> int:
    """Characters of the chosen answer less those of the other."""
    first, second = (len(answer_text(answer)) for answer in one.case.record.completions)
    return first - second if one.case.label == 0 else second - first
