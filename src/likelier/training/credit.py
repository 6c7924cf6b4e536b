"""From a rollout to what its tokens are worth: rewards of tokens, advantages, and the returns that a value learns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from likelier.objectives.moments import Moments
from likelier.objectives.policy_gradient import (
    adapted_beta,
    explained_variance,
    generalized_advantages,
    group_normalized,
    leave_one_out,
    token_rewards,
    whitened,
)
from likelier.training.ppo_config import PpoConfig
from likelier.training.rollouts import Rollout


@dataclass(frozen=True, slots=True, eq=False)
class Credit:
    """Per token of a rollout, `[tokens]` float64."""

    advantages: Tensor
    returns: Tensor | None
    """What the value should have foretold, where one is learned."""
    explained_variance: float | None
    """Of the returns, by the values as they were."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What goes on from step to step besides the weights."""

    beta: float
    """Of the step that comes."""
    moments: Moments
    """Of all rewards so far, where they are normalised."""

    @classmethod
    def of(cls, kept: dict[str, float], config: PpoConfig) -> Carried:
        """As a checkpoint has it, or at the start."""
        moments = (kept.get(f"rewards/{name}", 0.0) for name in ("count", "mean", "squares"))
        return cls(kept.get("beta", config.beta), Moments(*moments))

    def kept(self) -> dict[str, float]:
        """As a checkpoint has it."""
        moments = self.moments
        return {
            "beta": self.beta,
            "rewards/count": moments.count,
            "rewards/mean": moments.mean,
            "rewards/squares": moments.squares,
        }

    def after(self, rollout: Rollout, config: PpoConfig) -> Carried:
        """That of the next step."""
        beta = self.beta
        if config.target_kl is not None:
            kl = float(rollout.per_answer(rollout.log_ratios).mean())
            beta = adapted_beta(beta, kl=kl, target=config.target_kl, gain=config.kl_gain)
        return Carried(beta, self.moments)

    def seen(self, rewards: Tensor, config: PpoConfig) -> Carried:
        """With the rewards of a rollout, which are normalised by themselves too."""
        if not config.normalize_rewards:
            return self
        return Carried(self.beta, self.moments.including(rewards.tolist()))


def optimized_rewards(rollout: Rollout, config: PpoConfig, carried: Carried) -> Tensor:
    """`[answers]`: the rewards as they are optimised, penalty and normalisation in, KL still out."""
    rewards = rollout.rewards
    if config.normalize_rewards:
        normalized = [carried.moments.normalized(reward) for reward in rewards.tolist()]
        rewards = torch.tensor(normalized, dtype=torch.float64)
    cut = torch.tensor([answer.finish == "length" for answer in rollout.answers])
    return rewards - config.missing_end_penalty * cut


def credit(rollout: Rollout, config: PpoConfig, carried: Carried) -> Credit:
    """Advantages by `--advantage`.

    Of whole answers (rloo, grpo) every token has the answer's: its total, `r − β log π/π_ref`, against the others'.
    The penalty is inside, also for grpo, so that where all totals are equal, at the optimum of math.md (4), nothing
    moves.
    """
    rewards = optimized_rewards(rollout, config, carried)
    if config.advantage == "gae":
        return _learned(rollout, config, rewards, carried.beta)
    totals = rewards - carried.beta * rollout.per_answer(rollout.log_ratios)
    compare = leave_one_out if config.advantage == "rloo" else group_normalized
    per_answer = compare(totals.view(-1, config.n)).flatten()
    advantages = per_answer.repeat_interleave(torch.tensor(rollout.lengths))
    return Credit(_scaled(advantages, config), None, None)


def _learned(rollout: Rollout, config: PpoConfig, rewards: Tensor, beta: float) -> Credit:
    assert rollout.values is not None
    log_ratios, mask = rollout.padded(rollout.log_ratios)
    values, _ = rollout.padded(rollout.values.double())
    per_token = token_rewards(log_ratios, rewards, mask, beta=beta)
    advantages = generalized_advantages(
        per_token, values, mask, discount=config.discount, gae_lambda=config.gae_lambda
    )
    returns = (advantages + values)[mask]
    explained = explained_variance(values[mask], returns)
    return Credit(_scaled(advantages[mask], config), returns, explained)


def _scaled(advantages: Tensor, config: PpoConfig) -> Tensor:
    if not config.normalize_advantages:
        return advantages
    return whitened(advantages, torch.ones(len(advantages), dtype=torch.bool))
