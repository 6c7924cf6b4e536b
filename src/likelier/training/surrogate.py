"""The losses of a pack's tokens: policy, value and entropy, summed, and what is watched beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from likelier.objectives.policy_gradient import (
    approximate_kl,
    clipped_policy_loss,
    clipped_value_loss,
    outside_range,
)
from likelier.scoring.distribution import TokenFigures
from likelier.training.credit import Credit
from likelier.training.ppo_config import PpoConfig
from likelier.training.rollouts import Rollout


@dataclass(frozen=True, slots=True)
class TokenLosses:
    """Sums over tokens; only `total` has a gradient."""

    total: Tensor
    """Policy + value weight · value − entropy weight · entropy."""
    policy: float
    value: float
    approximate_kl: float
    clipped: float
    tokens: int

    @classmethod
    def none(cls) -> TokenLosses:
        """Of no token."""
        return cls(torch.zeros((), dtype=torch.float64), 0.0, 0.0, 0.0, 0.0, 0)

    def plus(self, other: TokenLosses) -> TokenLosses:
        """Of both, without a gradient."""
        return TokenLosses(
            self.total + other.total.detach().cpu(),
            self.policy + other.policy,
            self.value + other.value,
            self.approximate_kl + other.approximate_kl,
            self.clipped + other.clipped,
            self.tokens + other.tokens,
        )


def token_losses(
    now: TokenFigures, rollout: Rollout, found: Credit, places: Sequence[slice], config: PpoConfig
) -> TokenLosses:
    """The losses of the tokens at `places`, in the order in which `now` has them; in float64."""
    device = now.logps.device

    def of(values: Tensor) -> Tensor:
        return torch.cat([values[place] for place in places]).to(device).double()

    logps, old = now.logps.double(), of(rollout.logps)
    policy = clipped_policy_loss(logps, old, of(found.advantages), clip_range=config.clip_range).sum()
    value = torch.zeros_like(policy)
    if now.values is not None:
        assert rollout.values is not None
        assert found.returns is not None
        losses = clipped_value_loss(
            *(now.values.double(), of(rollout.values), of(found.returns)), clip_range=config.value_clip_range
        )
        value = losses.sum()
    total = policy + config.value_weight * value - config.entropy_weight * now.entropies.double().sum()
    with torch.no_grad():
        away = approximate_kl(logps, old).sum()
        clipped = outside_range(logps, old, clip_range=config.clip_range).sum()
    of_policy, of_value, far, outside = (float(figure.detach()) for figure in (policy, value, away, clipped))
    return TokenLosses(total, of_policy, of_value, far, outside, len(logps))
