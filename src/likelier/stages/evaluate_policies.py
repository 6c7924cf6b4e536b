"""The policies of a frontier: what every checkpoint answers, and how far each answer lies from the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from likelier.data.records import Record
from likelier.engines.drawing import Sampler
from likelier.engines.kept_answers import Speaker, answers_of, distances_of, speaker_of
from likelier.engines.reply_cache import ReplyCache
from likelier.engines.sampling import SampledPrompt
from likelier.errors import UsageError
from likelier.models.loading import load_model
from likelier.report.frontier import name_of
from likelier.scoring.precision import default_device
from likelier.scoring.whole import chosen_precision
from likelier.stages.evaluate_config import EvaluateConfig
from likelier.stages.evaluate_dial import INTERPOLATED, MIXED, dialled
from likelier.stages.evaluate_output import Say
from likelier.stages.evaluate_prompts import answers_each, asked
from likelier.training.stored import StoredRun, loaded_policies

REFERENCE = "reference"


@dataclass(frozen=True, slots=True)
class Measured:
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


def measured_policies(
    config: EvaluateConfig,
    runs: Sequence[StoredRun],
    reference: str,
    records: Sequence[Record],
    cache: ReplyCache,
    say: Say,
) -> list[Measured]:
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
) -> Measured:
    sampled, known = answers_of(
        speaker,
        asked(records),
        n=answers_of_reference(config) if run == REFERENCE else answers_each(config),
        max_new_tokens=config.max_new_tokens,
        sampler=Sampler(seed=config.seed),
        cache=cache,
    )
    kl = distances_of(speaker, reference, sampled, estimator=config.estimator, cache=cache)
    found = Measured(run, None if run == REFERENCE else step, sampled, kl, setting)
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
) -> list[Measured]:
    """The policy at every strength by both ways that sample, from the weakest on; at 1 both are the policy itself."""
    found: dict[tuple[str, float], Measured] = {}
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
