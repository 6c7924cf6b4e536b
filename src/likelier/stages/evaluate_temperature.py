"""`likelier evaluate temperature`: the win rate against a baseline text over sampling temperatures.

    likelier evaluate temperature runs/first --prompts held-out.jsonl --baseline text --reward vader --out runs/t

Each model answers every prompt at each temperature by the same random numbers, and is compared with the text in a
column of the prompts' file. How far each temperature falls short of the best one comes with an interval that knows that
the best was chosen by the same data (`stats/best.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from likelier.data.records import Record
from likelier.engines.reply_cache import ANSWERED, ReplyCache
from likelier.errors import WorkError
from likelier.models.sources import cache_folder
from likelier.report.winrate import COLUMNS, Sweep, row_of, sweep_of, temperature_picture
from likelier.stages.evaluate_config import EvaluateConfig
from likelier.stages.evaluate_contest import (
    ByJudge,
    agreement_words,
    contest,
    failures_in,
    judge_words,
    referee_of,
    win_words,
)
from likelier.stages.evaluate_output import Outcome, Say, write_outcome
from likelier.stages.evaluate_players import Answers, Player, players_of, sampled_answers, strength_words
from likelier.stages.evaluate_prompts import baseline_texts, read_prompts


def temperature(
    config: EvaluateConfig, prompts: Any, reward: Any, judge_model: Any, tokenizer: Any, *, say: Say
) -> Outcome:
    """Compares answers at each temperature with the baseline, and writes the files.

    Raises:
        UsageError: an unknown run, reward or judge.
        DataError: prompts that cannot be used, or without the baseline's text.
        WorkError: a reward that fails, or a judge that never gives a verdict.
    """
    players = list(dict.fromkeys(players_of(config)))
    referee = referee_of(config, reward, judge_model, tokenizer, say=say)
    records = read_prompts(config, prompts, say=say)
    assert config.baseline is not None  # validated
    texts = baseline_texts(prompts, config.baseline, records)
    baseline = Answers(who=f"column {config.baseline}", texts=[[text] for text in texts])
    try:
        with ReplyCache(cache_folder(), report=say, file=ANSWERED) as cache:
            answers = {
                player: list(sampled_answers(config, player, records, config.temperatures, cache, say))
                for player in players
            }
        sweeps = [
            _sweep(player.who, [contest(records, one, baseline, referee) for one in own])
            for player, own in answers.items()
        ]
        agreement = None
        if isinstance(referee, ByJudge) and config.human_labels is not None:
            agreement = referee.agreement(config.human_labels)
    finally:
        referee.close()
    words = [
        line for sweep in sweeps for line in _words(config, sweep, referee.how + strength_words(players))
    ]
    words += [agreement_words(agreement)] if agreement else []
    outcome = Outcome(
        found=sweeps,
        result={
            "sweeps": [sweep.as_dict() for sweep in sweeps],
            "referee": referee.how,
            "agreement_with_people": agreement,
            "seed": config.seed,
            "strength": config.strength,
            "references": {one.name: one.reference for one in players if one.reference is not None},
            "words": words,
        },
        words=words,
        header=[*COLUMNS, "drop", "drop_low", "drop_high"],
        table=[
            [*row_of(win), drop.value, drop.low, drop.high]
            for sweep in sweeps
            for win, drop in zip(sweep.wins, sweep.drops, strict=True)
        ],
        picture=lambda form: temperature_picture(sweeps, form=form),
        answers=_rows(records, answers),
        failures=sum(failures_in(win.judge) for sweep in sweeps for win in sweep.wins),
    )
    write_outcome(config, outcome, inputs=[config.prompts or ""])
    return outcome


def _sweep(name: str, wins: Sequence[Any]) -> Sweep:
    try:
        return sweep_of(name, wins)
    except ValueError:
        raise WorkError(
            f"{name}: no prompt has a verdict at every temperature; give fewer --temperatures, or another judge"
        ) from None


def _words(config: EvaluateConfig, sweep: Sweep, how: str) -> list[str]:
    best = sweep.best
    lines = [
        f"{sweep.run} wins most at temperature {best.temperature:g}: {win_words(best)}; {how}; seed {config.seed}"
    ]
    for win, drop in zip(sweep.wins, sweep.drops, strict=True):
        shown = f"{100 * drop.value:.1f} points"
        if drop.low is not None and drop.high is not None:
            shown += f" [{100 * drop.low:.1f}, {100 * drop.high:.1f}]"
        rate = win.win_rate
        lines.append(
            f"  temperature {win.temperature:g}: {100 * rate.value:.1f} %, {shown} below the best of all"
            f" (95 %, paired over {drop.clusters} prompts)"
        )
    return lines + [f"  {line}" for line in judge_words(best.judge)]


def _rows(records: Sequence[Record], answers: dict[Player, list[Answers]]) -> list[dict[str, Any]]:
    """Every answer, as `likelier sample` writes them."""
    return [
        {
            "id": record.id,
            "prompt": record.prompt,
            "completions": [{"text": text} for text in one.texts[number]],
            "model": player.name,
            "sampling": {"temperature": one.temperature}
            | (
                {}
                if player.strength is None
                else {"strength": player.strength, "reference": player.reference}
            ),
        }
        for player, own in answers.items()
        for one in own
        for number, record in enumerate(records)
    ]
