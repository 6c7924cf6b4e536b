"""`likelier evaluate temperature`: the win rate against a baseline text over sampling temperatures.

    likelier evaluate temperature runs/first --prompts held-out.jsonl --baseline text --reward vader --out runs/t

Each model answers every prompt at each temperature by the same random numbers, and is compared with the text in a
column of the prompts' file. How far each temperature falls short of the best one comes with an interval that knows that
the best was chosen by the same data (`stats/best.py`). `--best-of 1,4,16 --chooser REWARD` adds players that keep the
best of N answers of the first run named (`evaluate_best_of.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from likelier.data.records import Record
from likelier.engines.reply_cache import ANSWERED, ReplyCache
from likelier.errors import WorkError
from likelier.models.sources import cache_folder
from likelier.report.winrate import COLUMNS, Sweep, Win, row_of, sweep_of, temperature_picture
from likelier.stages.evaluate_best_of import best_of_answers
from likelier.stages.evaluate_config import EvaluateConfig
from likelier.stages.evaluate_contest import contest, win_words
from likelier.stages.evaluate_output import Outcome, Say, write_outcome
from likelier.stages.evaluate_players import (
    Answers,
    Player,
    answers_drawn,
    column_answers,
    players_of,
    sampled_answers,
    strength_words,
)
from likelier.stages.evaluate_prompts import answers_each, asked, baseline_texts, read_prompts
from likelier.stages.evaluate_referees import ByJudge, agreement_words, failures_in, judge_words, referee_of
from likelier.stages.evaluate_rewards import Given, check_reward, resolved, scores_of


def temperature(
    config: EvaluateConfig,
    prompts: Any,
    reward: Any,
    judge_model: Any,
    tokenizer: Any,
    *,
    chooser: Given | None = None,
    say: Say,
) -> Outcome:
    """Compares answers at each temperature with the baseline, and writes the files.

    Raises:
        UsageError: an unknown run, reward or judge.
        DataError: prompts that cannot be used, or without the baseline's text.
        WorkError: a reward that fails, or a judge that never gives a verdict.
    """
    players = list(dict.fromkeys(players_of(config)))
    referee = referee_of(config, reward, judge_model, tokenizer, say=say)
    check_reward(chooser)
    records = read_prompts(config, prompts, say=say)
    assert config.baseline is not None  # validated
    baseline = column_answers(config.baseline, baseline_texts(prompts, config.baseline, records))
    try:
        with ReplyCache(cache_folder(), report=say, file=ANSWERED) as cache:
            drawn = {player: _drawn(config, player, records, cache, say) for player in players}
        scores = _scores(config, chooser, records, drawn[players[0]])
        sweeps = [
            _sweep([contest(records, one, baseline, referee) for one in own])
            for own in _sides(config, list(drawn.values()), scores)
        ]
        agreement = None
        if isinstance(referee, ByJudge) and config.human_labels is not None:
            agreement = referee.agreement(config.human_labels)
    finally:
        referee.close()
    outcome = _outcome(config, players, sweeps, referee.how, agreement, _rows(records, drawn, scores))
    write_outcome(config, outcome, inputs=[config.prompts or ""])
    return outcome


def _sides(
    config: EvaluateConfig, drawn: Sequence[Sequence[Answers]], scores: Sequence[Sequence[Sequence[float]]]
) -> list[list[Answers]]:
    """`[players][temperatures]`: every run's answers, then best-of-N of the first run's draws."""
    sides = [[one.first(answers_each(config)) for one in own] for own in drawn]
    for n in config.best_of:
        sides.append([best_of_answers(n, *both) for both in zip(drawn[0], scores, strict=True)])
    return sides


def _outcome(
    config: EvaluateConfig,
    players: Sequence[Player],
    sweeps: list[Sweep],
    how: str,
    agreement: dict[str, Any] | None,
    answers: list[dict[str, Any]],
) -> Outcome:
    """All that is written; `how` says who is the referee."""
    told = how + strength_words(players)
    words = [line for sweep in sweeps for line in _words(config, sweep, told)]
    words += [_best_of_words(config, players[0])] if config.best_of else []
    words += [agreement_words(agreement)] if agreement else []
    return Outcome(
        found=sweeps,
        result={
            "sweeps": [sweep.as_dict() for sweep in sweeps],
            "referee": how,
            "agreement_with_people": agreement,
            "seed": config.seed,
            "strength": config.strength,
            "references": {one.name: one.reference for one in players if one.reference is not None},
            "chooser": config.chooser,
            "answers_of_the_first": answers_drawn(config, players[0]),
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
        answers=answers,
        failures=sum(failures_in(win.judge) for sweep in sweeps for win in sweep.wins),
    )


def _drawn(
    config: EvaluateConfig, player: Player, records: Sequence[Record], cache: ReplyCache, say: Say
) -> list[Answers]:
    """At each temperature."""
    return list(sampled_answers(config, player, records, config.temperatures, cache, say))


def _scores(
    config: EvaluateConfig, chooser: Given | None, records: Sequence[Record], drawn: Sequence[Answers]
) -> list[list[list[float]]]:
    """`[temperatures][prompts][draws]`, the chooser's, which is let go of; nothing without one."""
    if chooser is None:
        return []
    reward = resolved(chooser, name=config.chooser)
    return [scores_of(reward, asked(records), one.texts, who=_told(one)) for one in drawn]


def _told(one: Answers) -> str:
    return f"{one.who} at temperature {one.temperature:g}"


def _sweep(wins: Sequence[Win]) -> Sweep:
    try:
        return sweep_of(wins[0].first, wins)
    except ValueError:
        raise WorkError(
            f"{wins[0].first}: no prompt has a verdict at every temperature; give fewer --temperatures, or another"
            " judge"
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


def _best_of_words(config: EvaluateConfig, first: Player) -> str:
    sizes, draws = ", ".join(map(str, config.best_of)), answers_drawn(config, first)
    return (
        f"best-of-N for N = {sizes}: of the same {draws} answers of {first.who} to each prompt at each temperature,"
        f" chosen by {config.chooser}; the mean over all subsets of N of them; at temperature 0 all are"
        " one, and so its own"
    )


def _rows(
    records: Sequence[Record], drawn: dict[Player, list[Answers]], scores: Sequence[Sequence[Sequence[float]]]
) -> list[dict[str, Any]]:
    """Every answer, as `likelier sample` writes them; those that were chosen from with the chooser's score."""
    rows = []
    for place, (player, own) in enumerate(drawn.items()):
        for index, one in enumerate(own):
            sampling: dict[str, Any] = {"temperature": one.temperature}
            if player.strength is not None:
                sampling |= {"strength": player.strength, "reference": player.reference}
            for number, record in enumerate(records):
                completions: list[dict[str, Any]] = [{"text": text} for text in one.texts[number]]
                if scores and place == 0:
                    given = zip(completions, scores[index][number], strict=True)
                    completions = [answer | {"chooser": score} for answer, score in given]
                asked_for = {"id": record.id, "prompt": record.prompt, "completions": completions}
                rows.append(asked_for | {"model": player.name, "sampling": sampling})
    return rows
