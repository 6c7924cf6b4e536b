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
from dataclasses import dataclass, replace
from typing import Any

import torch

from likelier.data.records import Record
from likelier.engines.drawing import Sampler
from likelier.engines.kept_answers import Speaker, answers_of, distances_of, speaker_of
from likelier.engines.prompts import Prompt
from likelier.engines.reply_cache import ANSWERED, ReplyCache
from likelier.engines.rewards import Reward
from likelier.engines.sampling import SampledPrompt
from likelier.errors import UsageError
from likelier.models.loading import load_model
from likelier.models.sources import cache_folder
from likelier.report.frontier import (
    FrontierReport,
    Point,
    frontier_picture,
    frontier_table,
    name_of,
    report_frontier,
)
from likelier.scoring.precision import default_device
from likelier.scoring.whole import chosen_precision
from likelier.stages.evaluate_best_of import best_of_points
from likelier.stages.evaluate_config import EvaluateConfig
from likelier.stages.evaluate_dial import INTERPOLATED, MIXED, dialled, reweighted_points
from likelier.stages.evaluate_output import Outcome, Say, write_outcome
from likelier.stages.evaluate_prompts import answers_each, asked, read_prompts
from likelier.stages.evaluate_rewards import Given, check_reward, resolved, scores_of
from likelier.training.stored import StoredRun, loaded_policies, stored_run

REFERENCE = "reference"
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
        measured = _measured(config, runs, reference, records, cache, say)
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


@dataclass(frozen=True, slots=True)
class _Measured:
    """A policy's answers, and how far each lies from the reference."""

    run: str
    step: int | None
    sampled: list[SampledPrompt]
    kl: list[list[float]]
    setting: str = ""
    drawn: bool = True
    """False where it is another's answers under a second name."""
    log_ratios: list[list[float]] | None = None
    """log π_θ/π_ref of each answer, where `--dial` counts them anew."""

    @property
    def name(self) -> str:
        """For people."""
        return name_of(self.run, self.step, self.setting)


def answers_of_reference(config: EvaluateConfig) -> int:
    """To each prompt: best-of-N of every N is read off its answers."""
    return max([answers_each(config), *config.best_of])


def reference_of(config: EvaluateConfig, runs: Sequence[StoredRun]) -> str:
    """What every run was held to.

    Raises:
        UsageError: runs that were held to different models, or do not say to which.
    """
    if config.reference is not None:
        return config.reference
    named = {run.name: run.reference for run in runs}
    for name, reference in named.items():
        if reference is None:
            raise UsageError(f"{name} does not say what it started from; KL needs that: --reference MODEL")
    if len(set(named.values())) > 1:
        told = ", ".join(f"{name} to {reference}" for name, reference in named.items())
        raise UsageError(
            f"the runs were held to different references ({told}); measure all from one: --reference MODEL"
        )
    return str(next(iter(named.values())))


def _measured(
    config: EvaluateConfig,
    runs: Sequence[StoredRun],
    reference: str,
    records: Sequence[Record],
    cache: ReplyCache,
    say: Say,
) -> list[_Measured]:
    """The reference's own answers first, then every policy's; what is twice the same is measured once."""
    precision = chosen_precision(config.precision)
    options: dict[str, Any] = {"device": default_device(), "trust_remote_code": config.trust_remote_code}
    held_to = speaker_of(load_model(reference, **options), precision)
    found = [_measure(config, REFERENCE, 0, held_to, held_to, records, cache, say)]
    for run in runs:
        seen: set[str] = set()
        for policy, loaded in loaded_policies(run, run.policies, dtype=torch.float32, **options):
            speaker = speaker_of(loaded, precision)
            if speaker.identity not in seen:  # the last checkpoint and the model made of it are one policy
                seen.add(speaker.identity)
                found.append(_measure(config, run.name, policy.step, speaker, held_to, records, cache, say))
            if config.dial and policy is run.policies[-1]:
                found += _dialled(config, run.name, speaker, held_to, records, cache, say)
            del loaded, speaker  # else the next would be a third model in memory
    return found


def _measure(
    config: EvaluateConfig,
    run: str,
    step: int | None,
    speaker: Speaker,
    reference: Speaker,
    records: Sequence[Record],
    cache: ReplyCache,
    say: Say,
    *,
    setting: str = "",
) -> _Measured:
    sampled, known = answers_of(
        speaker,
        asked(records),
        n=answers_of_reference(config) if run == REFERENCE else answers_each(config),
        max_new_tokens=config.max_new_tokens,
        sampler=Sampler(seed=config.seed),
        cache=cache,
    )
    kl = distances_of(speaker, reference, sampled, estimator=config.estimator, cache=cache)
    found = _Measured(run, None if run == REFERENCE else step, sampled, kl, setting)
    say(f"{found.name}: {len(records)} prompts, {known} of them answered before")
    return found


def _dialled(
    config: EvaluateConfig,
    run: str,
    policy: Speaker,
    reference: Speaker,
    records: Sequence[Record],
    cache: ReplyCache,
    say: Say,
) -> list[_Measured]:
    """The policy at every strength by both ways that sample, from the weakest on; at 1 both are the policy itself."""
    found: dict[tuple[str, float], _Measured] = {}
    for way, strength, speaker in dialled(policy, reference, config.strengths):
        name, setting = f"{run}, {way}", f"λ = {strength:g}"
        found[way, strength] = _measure(
            config, name, None, speaker, reference, records, cache, say, setting=setting
        )
    own = _measure(config, run, None, policy, reference, records, cache, lambda text: None)
    ratios = distances_of(policy, reference, own.sampled, estimator="k1", cache=cache)
    again = replace(own, setting="λ = 1", drawn=False)
    found[MIXED, 1.0] = replace(again, run=f"{run}, {MIXED}", log_ratios=ratios)
    found[INTERPOLATED, 1.0] = replace(again, run=f"{run}, {INTERPOLATED}")
    ways = (MIXED, INTERPOLATED)
    return [found[key] for key in sorted(found, key=lambda key: (ways.index(key[0]), key[1]))]


def _reweighted(
    config: EvaluateConfig, measured: Sequence[_Measured], points: Sequence[Point]
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


def _scores(reward: Reward, one: _Measured) -> list[list[float]]:
    prompts = [Prompt(id=prompt.id, content=prompt.prompt) for prompt in one.sampled]
    texts = [[answer.text for answer in prompt.completions] for prompt in one.sampled]
    return scores_of(reward, prompts, texts, who=one.name)


def _point(one: _Measured, runs: Sequence[StoredRun], rewards: list[list[float]]) -> Point:
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
    measured: Sequence[_Measured], points: Sequence[Point], scores: Sequence[Sequence[float]]
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
    for run, own in report.by_run.items():
        lines.append(f"{run}: area up to the same KL {own.area}")
    for index, point in enumerate(report.points):
        other = report.overall.dominated_by[index]
        place = (
            "on the envelope"
            if index in report.overall.corners
            else (f"{report.overall.below[index]:.4g} below the envelope")
        )
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
    return f"KL {point.distance.value:.4g}" if short else f"KL {point.distance}"
