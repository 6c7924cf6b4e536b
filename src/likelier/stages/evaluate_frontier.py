"""`likelier evaluate frontier`: mean reward against KL to the reference, for runs and their checkpoints.

    likelier evaluate frontier runs/first runs/ipo --prompts held-out.jsonl --reward vader --out runs/compared

Every policy answers every prompt once, by the same random numbers, at temperature 1; policy and reference then run over
each answer together, math.md "KL". Answers and distances are kept by content (`engines/kept_answers.py`): a killed
evaluation goes on where it was, a later checkpoint costs its own answers, and another reward none. Two models are in
memory at most (with `--dial` the trained weights besides), and none while the reward is. `--best-of 1,2,4 --chooser
REWARD` adds best-of-N (`evaluate_best_of.py`), `--dial` other strengths (`evaluate_dial.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from likelier.engines.prompts import Prompt
from likelier.engines.reply_cache import ANSWERED, ReplyCache
from likelier.engines.rewards import Reward
from likelier.models.sources import cache_folder
from likelier.report.frontier import (
    FrontierReport,
    Point,
    frontier_table,
    report_frontier,
)
from likelier.report.frontier_pictures import frontier_picture
from likelier.stages.evaluate_best_of import best_of_points
from likelier.stages.evaluate_config import EvaluateConfig
from likelier.stages.evaluate_dial import MIXED, reweighted_points
from likelier.stages.evaluate_output import Outcome, Say, write_outcome
from likelier.stages.evaluate_policies import (
    REFERENCE,
    Measured,
    answers_of_reference,
    measured_policies,
    reference_of,
)
from likelier.stages.evaluate_prompts import answers_each, read_prompts
from likelier.stages.evaluate_rewards import Given, check_reward, resolved, scores_of
from likelier.training.stored import StoredRun, stored_run

ESTIMATORS = {
    "rao_blackwell": "summed KL of the next-token distributions (Rao-Blackwellised)",
    "k1": "mean log-ratio (k1)",
}


def frontier(
    config: EvaluateConfig,
    prompts: Any,
    reward: Given,
    chooser: Given | None = None,
    *,
    say: Say,
) -> Outcome:
    """Measures every checkpoint of `config.runs`, and writes the files.

    Raises:
        UsageError: runs without checkpoints or with different references, an unknown reward.
        DataError: prompts that cannot be used.
        WorkError: a reward that fails or is no finite number.
    """
    runs = [stored_run(name) for name in dict.fromkeys(config.runs)]
    reference = reference_of(config, runs)
    for one in (reward, chooser):
        check_reward(one)
    records = read_prompts(config, prompts, say=say)
    with ReplyCache(cache_folder(), report=say, file=ANSWERED) as cache:
        measured = measured_policies(config, runs, reference, records, cache, say)
    scores = [] if chooser is None else _scores(resolved(chooser, name=config.chooser), measured[0])
    scored = resolved(reward, name=config.reward)
    points = [_point(one, runs, _scores(scored, one)) for one in measured]
    best_of = best_of_points(config.best_of, measured[0].sampled, scores=scores, rewards=points[0].rewards)
    from_one_set, left_out = _reweighted(config, measured, points)
    report = report_frontier([*points, *from_one_set, *best_of])
    drawn = [point for one, point in zip(measured, points, strict=True) if one.drawn]
    words = [*_words(config, report, scored, len(records), drawn), *left_out]
    header, table = frontier_table(report)
    settings = {
        "reward": {"name": scored.name, "meaning": scored.meaning},
        "reference": reference,
        "estimator": config.estimator,
        "prompts": len(records),
        "answers_per_prompt": answers_each(config),
        "seed": config.seed,
        "max_new_tokens": config.max_new_tokens,
        "temperature": 1.0,
        "chooser": config.chooser,
        "answers_of_the_reference": answers_of_reference(config),
    }
    outcome = Outcome(
        found=report,
        result={**settings, **report.as_dict(), "words": words},
        words=words,
        header=header,
        table=table,
        picture=lambda form: frontier_picture(report, reward=scored.name, form=form),
        answers=list(_rows(measured, points, scores)),
    )
    write_outcome(config, outcome, inputs=[config.prompts or ""])
    return outcome


def _reweighted(
    config: EvaluateConfig, measured: Sequence[Measured], points: Sequence[Point]
) -> tuple[list[Point], list[str]]:
    found: list[Point] = []
    left_out: list[str] = []
    for one, point in zip(measured, points, strict=True):
        if one.log_ratios is not None:
            more, without = reweighted_points(
                one.run.removesuffix(f", {MIXED}"),
                one.sampled,
                log_ratios=one.log_ratios,
                kl=one.kl,
                rewards=point.rewards,
                strengths=config.strengths,
            )
            found += more
            left_out += without
    return found, left_out


def _scores(reward: Reward, one: Measured) -> list[list[float]]:
    prompts = [Prompt(id=prompt.id, content=prompt.prompt) for prompt in one.sampled]
    texts = [[answer.text for answer in prompt.completions] for prompt in one.sampled]
    return scores_of(reward, prompts, texts, who=one.name)


def _point(one: Measured, runs: Sequence[StoredRun], rewards: list[list[float]]) -> Point:
    compute = {run.name: run.compute for run in runs}.get(one.run, {})
    known = {} if one.step is None else {"steps": float(one.step), **compute.get(one.step, {})}
    return Point(
        run=one.run,
        step=one.step,
        setting=one.setting,
        rewards=rewards,
        kl=one.kl,
        lengths=[[len(answer.tokens) for answer in prompt.completions] for prompt in one.sampled],
        cut=sum(answer.finish == "length" for prompt in one.sampled for answer in prompt.completions),
        compute=known,
    )


def _rows(
    measured: Sequence[Measured], points: Sequence[Point], scores: Sequence[Sequence[float]]
) -> Iterator[dict[str, Any]]:
    """Every answer, as `likelier sample` writes them, with what was measured on it; `scores` are the chooser's."""
    for one, point in zip(measured, points, strict=True):
        for number, (prompt, rewards, kl) in enumerate(
            zip(one.sampled, point.rewards, point.kl, strict=True)
        ):
            answers = [
                {"text": answer.text, "tokens": answer.tokens, "logp": answer.logp, "finish": answer.finish}
                | {"reward": reward, "kl": distance}
                for answer, reward, distance in zip(prompt.completions, rewards, kl, strict=True)
            ]
            if scores and one.run == REFERENCE:
                answers = [
                    row | {"chooser": score} for row, score in zip(answers, scores[number], strict=True)
                ]
            yield {
                "id": prompt.id,
                "prompt": prompt.prompt,
                "completions": answers,
                "run": one.run,
                "step": one.step,
            } | ({"setting": one.setting} if one.setting else {})


def _words(
    config: EvaluateConfig, report: FrontierReport, reward: Reward, prompts: int, drawn: Sequence[Point]
) -> list[str]:
    n = answers_each(config)
    how = (
        f"{prompts} prompts, {n} answers each at temperature 1, seed {config.seed}; reward {reward.name};"
        f" KL to the reference by {ESTIMATORS[config.estimator]}; 95 % intervals clustered by prompt; lengths are not"
        " corrected for"
    )
    best = max(report.points, key=lambda point: point.reward.value)
    if config.best_of:
        how += (
            f"; best-of-N from {answers_of_reference(config)} answers of the reference to each prompt, chosen by"
            f" {config.chooser}, every N from the same ones; its KL is the bound log N - (N-1)/N, not an estimate"
        )
    lines = [
        f"reward {best.reward} at {_distance(best)} is the highest: {best.name}; {how}",
        f"area under the envelope of all, above the reference's reward, up to KL {report.overall.to:.4g}:"
        f" {report.overall.area}",
    ]
    firm = {point.run for point in report.points if point.kl_is != "rough estimate"}
    for run, own in report.by_run.items():
        # Of a run whose every KL is rough the envelope is the reference alone.
        if run in firm:
            lines.append(f"{run}: area up to the same KL {own.area}")
    for index, point in enumerate(report.points):
        other = report.overall.dominated_by[index]
        if index in report.overall.corners:
            place = "on the envelope"
        elif point.kl_is == "rough estimate":
            place = "which no envelope rests on"
        else:
            place = f"{report.overall.below[index]:.4g} below the envelope"
        if other is not None:
            sure = "surely " if report.overall.surely[index] else ""
            place += f", {sure}dominated by {report.points[other].name}"
        lines.append(
            f"  {point.name}: reward {point.reward.value:.4g}, {_distance(point, short=True)}, {place}"
        )
    answers = sum(len(own) for point in drawn for own in point.rewards)
    if cut := sum(point.cut for point in drawn):
        lines.append(
            f"{cut:g} of {answers} answers were cut at {config.max_new_tokens} tokens: KL is that of the cut process"
        )
    return lines


def _distance(point: Point, *, short: bool = False) -> str:
    if point.kl_is == "upper bound":
        return f"KL at most {point.distance.value:.4g}"
    if point.kl_is == "rough estimate":
        return f"KL roughly {point.distance.value:.4g}"
    return f"KL {point.distance.value:.4g}" if short else f"KL {point.distance}"
