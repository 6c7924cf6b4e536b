"""The β dial: one trained policy holds the whole frontier, exactly for whole answers, nearly for next tokens.

math.md (14). Mixing log-probabilities of whole answers gives the optimum at every other β. A model that writes token by
token can only mix its next tokens, which normalises after every prefix and so loses reward: how much, small worlds say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from likelier.theory.optimum import optimal_policy, place, reward_at
from likelier.theory.sequences import Sequences, next_token_policy, sequence_policy
from likelier.theory.shapes import Cells, Choices
from likelier.theory.world import World


def dial(log_reference: Choices, log_policy: Choices, strength: float) -> Choices:
    """`log π_λ`, `π_λ ∝ π_ref^(1−λ) π^λ` over the last axis: math.md (14), arXiv 2402.02992.

    On tables of whole answers it is exact: of the optimum at β it makes that at β/λ. On tables of next tokens it mixes
    next-token logits, `(1−λ) ℓ_ref + λ ℓ_θ`. Where π_ref = 0 it stays 0.

    Args:
        log_reference, log_policy: normalised log-probabilities.
        strength: λ; 0 is the reference, 1 the policy, above 1 beyond it.

    Raises:
        ValueError: λ is negative, or not finite.

    >>> reference = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    >>> policy = torch.tensor([[0.2, 0.8]], dtype=torch.float64).log()
    >>> [round(p, 12) for p in dial(reference, policy, 2.0).exp().tolist()[0]]  # odds 4², so 16 to 1
    [0.058823529412, 0.941176470588]
    """
    if not 0.0 <= strength < float("inf"):
        raise ValueError(f"λ must be 0 or more, and finite, not {strength}")
    if strength == 0.0:
        return log_reference
    outside = log_reference == -torch.inf
    log_ratio = torch.where(outside, 0.0, log_policy - log_reference)
    mixed = torch.where(outside, -torch.inf, log_reference + strength * log_ratio)
    return mixed.log_softmax(dim=-1)


def per_token_dial(sequences: Sequences, log_reference: Cells, log_policy: Cells, strength: float) -> Cells:
    """`log π(y|x)` of the model that writes each token from the mixed next-token logits: math.md (14), its last form.

    >>> from likelier.theory.sequences import random_sequence_world
    >>> world = random_sequence_world(Sequences(letters="ab", length=2), 0)
    >>> best = optimal_policy(world.log_reference, world.reward, 1.0)
    >>> torch.allclose(per_token_dial(Sequences(letters="ab", length=2), world.log_reference, best, 1.0), best)
    True
    """
    reference = next_token_policy(sequences, log_reference)
    mixed = dial(reference, next_token_policy(sequences, log_policy), strength)
    return sequence_policy(sequences, mixed)


@dataclass(frozen=True, kw_only=True)
class DialCurve:
    """Where the per-token dial leads in one world, against the frontier; exact, no samples."""

    name: str
    beta: float
    """The β whose optimum is mixed with the reference."""
    strengths: tuple[float, ...]
    """λ."""
    kl: tuple[float, ...]
    """KL to the reference of the per-token form, nats per answer."""
    reward: tuple[float, ...]
    best: tuple[float, ...]
    """The frontier's reward at that KL."""
    reference_reward: float
    frontier: tuple[tuple[float, float], ...]
    """Points (KL, reward) of the exact dial at the same λ."""

    @property
    def loss(self) -> tuple[float, ...]:
        """Reward that the per-token form gives away at equal KL."""
        return tuple(best - own for best, own in zip(self.best, self.reward, strict=True))

    @property
    def lost_share(self) -> tuple[float, ...]:
        """That loss as a share of what the frontier gains over the reference there; 0 where nothing is gained."""
        gains = [best - self.reference_reward for best in self.best]
        return tuple(
            lost / gain if gain > _NO_GAIN else 0.0 for lost, gain in zip(self.loss, gains, strict=True)
        )


_NO_GAIN = 1e-6
"""Rounding of a KL near 0, 1e-16, is a reward of 1e-8."""


def dial_curve(
    sequences: Sequences, world: World, *, beta: float, strengths: Sequence[float], name: str
) -> DialCurve:
    """The per-token form's exact KL and reward at each λ, and the frontier's reward at the same KL.

    >>> from likelier.theory.sequences import random_sequence_world
    >>> small = Sequences(letters="ab", length=2)
    >>> curve = dial_curve(small, random_sequence_world(small, 0), beta=0.5, strengths=(0.0, 1.0, 2.0), name="")
    >>> [abs(loss) < 1e-7 for loss in curve.loss]  # at λ = 2 the per-token form is off the frontier
    [True, True, False]
    """
    policy = optimal_policy(world.log_reference, world.reward, beta)
    own = [place(world, per_token_dial(sequences, world.log_reference, policy, s)) for s in strengths]
    exact = [place(world, dial(world.log_reference, policy, s)) for s in strengths]
    return DialCurve(
        name=name,
        beta=beta,
        strengths=tuple(strengths),
        kl=tuple(point.kl for point in own),
        reward=tuple(point.reward for point in own),
        best=tuple(reward_at(world, point.kl) for point in own),
        reference_reward=place(world, world.log_reference).reward,
        frontier=tuple((point.kl, point.reward) for point in exact),
    )
