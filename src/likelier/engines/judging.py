"""Asking a judge: every pair in both orders, each answer kept by content at once (`reply_cache.py`).

What has been asked is never asked again: a run that was killed goes on where it was, and a second one costs nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from likelier.engines.judge_config import JudgeConfig
from likelier.engines.judges import Judge, Said, ServerJudge
from likelier.engines.protocol import Failure
from likelier.engines.reply_cache import ReplyCache, reply_key
from likelier.engines.rubric import Rubric
from likelier.engines.server import Server
from likelier.engines.verdicts import Case, Judged, decided
from likelier.models.sources import cache_folder

if TYPE_CHECKING:
    from likelier.scoring.precision import Precision

Say = Callable[[str], None]


def judge_of(config: JudgeConfig, model: Any, tokenizer: Any, *, precision: Precision | None) -> Judge:
    """The judge that the settings name.

    Args:
        config: its settings.
        model: a name, a folder, or a module with its `tokenizer`; of a server nothing but its name is needed.
        precision: of a local judge.

    Raises:
        UsageError, ModelError: an address, a key or a model that cannot be used.
    """
    if config.judge == "openai":
        assert config.judge_model is not None  # validated
        return ServerJudge(Server.of(config, config.judge_model), max_tokens=config.judge_max_tokens)
    # Only here: a server needs no torch.
    from likelier.engines.local_judges import LogOddsJudge, WritingJudge

    if config.verdict == "log-odds":
        return LogOddsJudge(model, tokenizer=tokenizer, precision=precision)
    return WritingJudge(model, max_tokens=config.judge_max_tokens, tokenizer=tokenizer, precision=precision)


def judge_cases(
    judge: Judge, cases: Sequence[Case], config: JudgeConfig, *, min_gap: float = 0.0, say: Say
) -> tuple[list[Judged], int]:
    """What the judge says of each case, and how many of the two questions a case were answered before.

    Args:
        judge: who is asked.
        cases: pairs of answers.
        config: the rubric, and the form of the verdict.
        min_gap: by log-odds, what the mean of P(A) − P(B) must reach to be no tie.
        say: told how far it is.

    Raises:
        UsageError: a rubric that cannot be read, or a server that knows neither key nor model.
    """
    rubric = Rubric.read(config.rubric)
    questions = [question for case in cases for question in questions_of(rubric, case, config)]
    replies, known = _replies(judge, questions, say=say)
    return [
        decided(case, (replies[2 * index], replies[2 * index + 1]), min_gap=min_gap)
        for index, case in enumerate(cases)
    ], known


def judge_notes(judge: Judge) -> list[str]:
    """What a person should know of how the answers were had."""
    return judge.server.notes if isinstance(judge, ServerJudge) else []


def questions_of(rubric: Rubric, case: Case, config: JudgeConfig) -> tuple[str, str]:
    """A case's two questions: its first answer shown first, and its second."""
    record = case.record
    first, second = (answer.content for answer in record.completions)
    return (
        rubric.fill(record.prompt, first, second, config.verdict),
        rubric.fill(record.prompt, second, first, config.verdict),
    )


def _replies(judge: Judge, questions: list[str], *, say: Say) -> tuple[list[Said | Failure], int]:
    """An answer to each question, and how many of them were known already."""
    keys = [reply_key(judge.identity, question) for question in questions]
    replies: dict[bytes, Said | Failure] = {}
    with ReplyCache(cache_folder(), report=say) as cache:
        for key in keys:
            if (kept := cache.get(key)) is not None:
                replies[key] = Said.of(kept)
        # Rows that are the same are one question.
        asked = {key: question for key, question in zip(keys, questions, strict=True) if key not in replies}
        known = len(questions) - sum(key in asked for key in keys)
        say(f"questions to {judge.name}: {len(asked):,}; answered before: {known:,} of {len(questions):,}")
        names, total = list(asked), len(asked)
        with contextlib.closing(judge.ask(list(asked.values()))) as answers:
            for done, (number, reply) in enumerate(answers, start=1):
                replies[names[number]] = reply
                if isinstance(reply, Said):
                    cache.put(names[number], reply.row())
                if done * 10 // total > (done - 1) * 10 // total:
                    say(f"{done:,} of {total:,} answered")
    return [replies[key] for key in keys], known
