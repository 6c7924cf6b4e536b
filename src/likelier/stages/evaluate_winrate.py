"""`likelier evaluate winrate`: how often one's answers are preferred to another's, raw and at equal lengths.

    likelier evaluate winrate runs/first runs/ipo --prompts held-out.jsonl --judge-model smollm2 --out runs/won
    likelier evaluate winrate samples.jsonl --against other.jsonl --reward vader --out runs/won

Answers are a model's, a run's, those of a file of samples, or a column of the prompts' own file; `--strength` mixes
those of the runs, not of `--against`, with what they were trained from. A judge sees every
pair in both orders; what it cannot say is counted and left out, and where it never says anything there is no win rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from likelier.data.records import Record
from likelier.engines.reply_cache import ANSWERED, ReplyCache
from likelier.errors import UsageError
from likelier.models.sources import cache_folder
from likelier.report.winrate import COLUMNS, Win, row_of, winrate_picture
from likelier.stages.evaluate_config import EvaluateConfig
from likelier.stages.evaluate_contest import contest, win_words
from likelier.stages.evaluate_output import Outcome, Say, write_outcome
from likelier.stages.evaluate_players import (
    Answers,
    Player,
    column_answers,
    is_samples,
    players_of,
    sampled_answers,
    sampled_file,
    strength_words,
)
from likelier.stages.evaluate_prompts import baseline_texts, read_prompts
from likelier.stages.evaluate_referees import ByJudge, agreement_words, failures_in, judge_words, referee_of


def winrate(
    config: EvaluateConfig, prompts: Any, reward: Any, judge_model: Any, tokenizer: Any, *, say: Say
) -> Outcome:
    """Compares answers, and writes the files.

    Raises:
        UsageError: no prompts, or an unknown run, reward or judge.
        DataError: prompts or samples that cannot be used.
        WorkError: a reward that fails, or a judge that never gives a verdict.
    """
    players = players_of(config)
    referee = referee_of(config, reward, judge_model, tokenizer, say=say)
    data = _source(config, prompts)
    records = read_prompts(config, data, say=say)
    try:
        firsts, second = _answers(config, players, data, records, say)
        wins = [contest(records, first, second, referee) for first in firsts]
        agreement = None
        if isinstance(referee, ByJudge) and config.human_labels is not None:
            agreement = referee.agreement(config.human_labels)
    finally:
        referee.close()
    words = [
        *(f"{win_words(win)}; {_how(config, win, referee.how)}{strength_words(players)}" for win in wins)
    ]
    words += [line for win in wins for line in judge_words(win.judge)]
    words += [agreement_words(agreement)] if agreement else []
    result = {
        "comparisons": [win.as_dict() for win in wins],
        "referee": referee.how,
        "agreement_with_people": agreement,
        "seed": config.seed,
        "strength": config.strength,
        "references": {one.name: one.reference for one in players if one.reference is not None},
        "words": words,
    }
    outcome = Outcome(
        found=wins,
        result=result,
        words=words,
        header=COLUMNS,
        table=[row_of(win) for win in wins],
        picture=lambda form: winrate_picture(wins, form=form),
        answers=_rows(records, [*firsts, second]),
        failures=sum(failures_in(win.judge) for win in wins),
    )
    write_outcome(config, outcome, inputs=[config.prompts or "", *config.runs, config.against or ""])
    return outcome


def _source(config: EvaluateConfig, prompts: Any) -> Any:
    """The prompts, which a file of samples holds too."""
    if prompts is not None:
        return prompts
    files = [name for name in (*config.runs, config.against or "") if is_samples(name)]
    if not files:
        raise UsageError("evaluate winrate needs --prompts, unless one side is a file of samples")
    return files[0]


def _answers(
    config: EvaluateConfig, players: Sequence[Player], data: Any, records: Sequence[Record], say: Say
) -> tuple[list[Answers], Answers]:
    """Those that are judged, and those that they are judged against; one model in memory at a time."""
    if config.baseline is not None:
        texts = baseline_texts(data, config.baseline, records)
        second = column_answers(config.baseline, texts)
    with ReplyCache(cache_folder(), report=say, file=ANSWERED) as cache:
        found = []
        for player in players:
            if is_samples(player.name):
                found.append(sampled_file(player.name, records))
            else:
                temperatures = [config.sampling_temperature]
                found += sampled_answers(config, player, records, temperatures, cache, say)
    return (found, second) if config.baseline is not None else (found[:-1], found[-1])


def _how(config: EvaluateConfig, win: Win, how: str) -> str:
    sampled = (
        "" if win.temperature is None else f"; sampled at temperature {win.temperature:g}, seed {config.seed}"
    )
    return f"{how}{sampled}"


def _rows(records: Sequence[Record], sides: Sequence[Answers]) -> list[dict[str, Any]]:
    """Every answer compared, by prompt and by whose it is."""
    return [
        {
            "id": record.id,
            "prompt": record.prompt,
            "completions": [{"text": text} for text in side.texts[number]],
            "model": side.who,
        }
        for side in sides
        for number, record in enumerate(records)
    ]
