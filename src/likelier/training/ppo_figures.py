"""What is logged of rollouts and of the updates on them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from likelier.stats import Estimate, mean_interval
from likelier.training.method import Metrics
from likelier.training.rollouts import Rollout
from likelier.training.surrogate import TokenLosses


@dataclass(slots=True)
class PpoFigures:
    """Of a step: its rollout, and sums over the gradients that were made on it."""

    rollout: Metrics
    largest_ratio: float
    """The largest |log π − log π_ref| of a token, of the policy that drew the rollout."""
    explained_variance: float | None = None
    updates: int = 0
    gradients: int = 0
    loss: float = 0.0
    policy: float = 0.0
    value: float = 0.0
    approximate_kl: float = 0.0
    clipped: float = 0.0
    tokens: int = 0

    @classmethod
    def of(cls, rollout: Rollout, beta: float, *, normalized: bool, target: float | None) -> PpoFigures:
        """Before the first update; `beta/deviations` is what a nat costs in standard deviations of the rewards."""
        figures = {**rollout_figures(rollout, beta), "beta": beta}
        spread = 1.0 if normalized else figures["reward/std"]
        figures["beta/deviations"] = beta / spread if spread else None
        if target is not None:
            figures["kl/target"] = target
        return cls(figures, float(rollout.log_ratios.abs().max()))

    def note(self, losses: TokenLosses, denominator: float) -> None:
        """The gradient of an update."""
        self.updates += 1
        self.gradients += 1
        self.loss += float(losses.total) / denominator
        self.policy += losses.policy / denominator
        self.value += losses.value / denominator
        self.approximate_kl += losses.approximate_kl
        self.clipped += losses.clipped
        self.tokens += losses.tokens

    def metrics(self) -> Mapping[str, float | None]:
        """Losses are means over the step's gradients; `approx_kl`, `clip_fraction` over all their tokens."""
        explained = self.explained_variance
        return {
            "loss": self.loss / self.gradients,
            "loss/policy": self.policy / self.gradients,
            "loss/value": self.value / self.gradients,
            **self.rollout,
            "approx_kl": self.approximate_kl / self.tokens,
            "clip_fraction": self.clipped / self.tokens,
            "explained_variance": None if explained is None or math.isnan(explained) else explained,
            "updates": self.updates,
        }


def rollout_figures(rollout: Rollout, beta: float) -> Metrics:
    """Reward and KL with intervals clustered by prompt, entropy, lengths, and the estimate of math.md (4).

    `kl` is KL(π ‖ π_ref) of whole answers by the estimator k1: the mean of their summed log-ratios (math.md, "KL");
    where answers are cut, that of the cut process. `entropy` is a token's, in nats, of the policy that drew them.
    """
    rewards, kl = rollout.rewards, rollout.per_answer(rollout.log_ratios)
    return {
        **_with_bounds("reward/mean", mean_interval(rewards.numpy(), clusters=rollout.prompts)),
        "reward/std": float(rewards.std(correction=0)),
        **_with_bounds("kl", mean_interval(kl.numpy(), clusters=rollout.prompts)),
        "objective": float((rewards - beta * kl).mean()),
        "entropy": float(rollout.entropies.double().mean()),
        "length/mean": fmean(rollout.lengths),
        "stop_rate": fmean(answer.finish == "stop" for answer in rollout.answers),
    }


def evaluation_figures(rollout: Rollout, beta: float) -> Metrics:
    """The same of held-out prompts; `eval/loss` is `−(reward − β KL)`, in the reward's own units: math.md (4)."""
    figures = rollout_figures(rollout, beta)
    counts = {"answers": len(rollout.answers), "prompts": len(set(rollout.prompts))}
    objective = figures["objective"]
    assert objective is not None
    return {"eval/loss": -objective, **{f"eval/{name}": value for name, value in (figures | counts).items()}}


def report(result: Mapping[str, Any]) -> list[str]:
    """Reward and KL: held out, after and before; else of the last step."""
    if "eval/reward/mean" in result:
        before = result.get("eval/before") or {}
        first = f" (before: {_told(before, 'eval/reward/mean')})" if before else ""
        return [
            f"held-out reward {_told(result, 'eval/reward/mean')}{first},"
            f" {_told(result, 'eval/kl')} nats from the reference (k1),"
            f" {result['eval/answers']} answers to {result['eval/prompts']} prompts"
        ]
    if "reward/mean" in result:
        return [
            f"last rollout: reward {_told(result, 'reward/mean')}, {_told(result, 'kl')} nats from the reference (k1)"
        ]
    return []


def _told(line: Mapping[str, Any], name: str) -> str:
    low, high = line.get(f"{name}/low"), line.get(f"{name}/high")
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{line[name]:.3f}{interval}"


def _with_bounds(name: str, found: Estimate) -> Metrics:
    return {name: found.value, f"{name}/low": found.low, f"{name}/high": found.high}
