"""Policy gradients for math.md (4): rewards of tokens, advantages, and the clipped losses of PPO.

An answer is a walk through its tokens. Each token costs `β (log π_θ − log π_ref)`, the last one brings the reward, so
that a walk's total is `r(x, y) − β (log π_θ(y|x) − log π_ref(y|x))`, whose mean is (4).

Schulman et al. 2016 (arXiv 1506.02438, GAE), Schulman et al. 2017 (1707.06347, PPO), Ziegler et al. 2019 (1909.08593,
per-token penalty and its controller), Ahmadian et al. 2024 (2402.14740, RLOO), Shao et al. 2024 (2402.03300, GRPO).
"""

from __future__ import annotations

import math

import torch

from likelier.objectives.shapes import AnswerMask, AnswerTokens, Groups, Mask, PerAnswer, PerToken, Values

_LEAST_DEVIATION = 1e-8
_GROUP_DEVIATION = 1e-4
"""GRPO's: answers that are equal but for rounding are not blown up to a difference."""


def token_rewards(
    log_ratios: AnswerTokens, rewards: PerAnswer, mask: AnswerMask, *, beta: float
) -> AnswerTokens:
    """`−β (log π_θ − log π_ref)` of each token, and the answer's reward added to its last: Ziegler et al. 2019, (2).

    Args:
        log_ratios: `[answers, tokens]`, log π_θ(y_t | …) − log π_ref(y_t | …) in nats, of the policy that drew them.
        rewards: `[answers]`, r(x, y).
        mask: `[answers, tokens]`, True up to an answer's last token; each has one token at least.
        beta: β, in units of the reward a nat.

    >>> mask = torch.tensor([[True, True, False]])
    >>> token_rewards(torch.tensor([[1.0, -2.0, 9.0]]), torch.tensor([3.0]), mask, beta=0.5).tolist()
    [[-0.5, 4.0, 0.0]]
    """
    last = mask.sum(1, keepdim=True) - 1
    penalties = torch.where(mask, -beta * log_ratios, 0.0)
    return penalties.scatter_add(1, last, rewards[:, None].to(penalties.dtype))


def generalized_advantages(
    rewards: AnswerTokens, values: AnswerTokens, mask: AnswerMask, *, discount: float, gae_lambda: float
) -> AnswerTokens:
    """`A_t = Σ_l (γλ)^l δ_{t+l}`, `δ_t = r_t + γ V_{t+1} − V_t`, V after the last token 0: Schulman et al. 2016, (16).

    An answer that was cut at its limit is over as well: what is optimised is the process that is cut there.

    Args:
        rewards, values: `[answers, tokens]`; V_t is the value of the state in which token t is drawn.
        mask: `[answers, tokens]`.
        discount: γ in (0, 1].
        gae_lambda: λ in [0, 1]; 1 is the sum of rewards to come, less the value.

    >>> mask = torch.tensor([[True, True]])
    >>> rewards, values = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.25]])
    >>> generalized_advantages(rewards, values, mask, discount=1.0, gae_lambda=0.5).tolist()  # δ = −¼, ¾
    [[0.125, 0.75]]
    """
    known = torch.where(mask, values, 0.0)
    after = torch.cat([known[:, 1:], torch.zeros_like(known[:, :1])], 1)
    errors = torch.where(mask, rewards + discount * after - known, 0.0)
    advantages = torch.zeros_like(errors)
    carried = torch.zeros_like(errors[:, 0])
    for place in reversed(range(errors.shape[1])):
        carried = errors[:, place] + discount * gae_lambda * carried
        advantages[:, place] = carried
    return advantages


def leave_one_out(totals: Groups) -> Groups:
    """`R_i − mean_{j≠i} R_j`, a baseline that does not depend on the answer itself: RLOO, Ahmadian et al. 2024.

    `totals`: `[prompts, group]`, two answers of a prompt at least.

    >>> leave_one_out(torch.tensor([[1.0, 2.0, 6.0]])).tolist()
    [[-3.0, -1.5, 4.5]]
    """
    group = totals.shape[1]
    return (totals - totals.mean(1, keepdim=True)) * (group / (group - 1))


def group_normalized(totals: Groups) -> Groups:
    """`(R_i − mean R) / (std R + 1e-4)` over a prompt's answers, std with n − 1: GRPO, Shao et al. 2024, section 4.1.2.

    `totals`: `[prompts, group]`, two answers of a prompt at least; equal ones all give 0.

    >>> group_normalized(torch.tensor([[1.0, 3.0], [2.0, 2.0]], dtype=torch.float64)).round(decimals=3).tolist()
    [[-0.707, 0.707], [0.0, 0.0]]
    """
    return (totals - totals.mean(1, keepdim=True)) / (totals.std(1, keepdim=True) + _GROUP_DEVIATION)


def whitened(values: Values, mask: Mask) -> Values:
    """`values` to mean 0 and deviation 1 over the entries of `mask`; the others are 0. Equal ones all give 0.

    >>> whitened(torch.tensor([1.0, 3.0, 99.0]), torch.tensor([True, True, False])).tolist()
    [-1.0, 1.0, 0.0]
    """
    kept = values[mask]
    deviation = kept.std(correction=0)
    return torch.where(mask, (values - kept.mean()) / deviation.clamp(min=_LEAST_DEVIATION), 0.0)


def clipped_policy_loss(
    logps: PerToken, old_logps: PerToken, advantages: PerToken, *, clip_range: float
) -> PerToken:
    """`−min(ρ A, clip(ρ, 1 − ε, 1 + ε) A)`, `ρ = π_θ / π_old`: Schulman et al. 2017, (7). ε = 0 does not clip.

    At ρ = 1 its gradient is the policy gradient's, `−A ∇log π_θ`. It is 0 where moving further would only overshoot:
    A > 0 and ρ > 1 + ε, or A < 0 and ρ < 1 − ε.

    Args:
        logps: `[tokens]`, log π_θ of the tokens that were drawn.
        old_logps: `[tokens]`, of the policy that drew them.
        advantages: `[tokens]`.

    >>> two = torch.tensor([2.0, 2.0]).log()
    >>> clipped_policy_loss(two, torch.zeros(2), torch.tensor([1.0, -1.0]), clip_range=0.2).tolist()
    [-1.2000000476837158, 2.0]
    """
    ratios = (logps - old_logps).exp()
    if clip_range == 0.0:
        return -ratios * advantages
    clipped = ratios.clamp(1.0 - clip_range, 1.0 + clip_range)
    return -torch.minimum(ratios * advantages, clipped * advantages)


def clipped_value_loss(
    values: PerToken, old_values: PerToken, returns: PerToken, *, clip_range: float
) -> PerToken:
    """`½ max((V − R)², (V_old + clip(V − V_old, ±ε) − R)²)`, as in the code of Schulman et al. 2017; ε = 0 is none.

    `values`, `old_values`, `returns`: `[tokens]`, in units of the reward.

    >>> clipped_value_loss(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([1.0]), clip_range=0.5).tolist()
    [0.125]
    """
    plain = (values - returns).square()
    if clip_range == 0.0:
        return 0.5 * plain
    near = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return 0.5 * torch.maximum(plain, (near - returns).square())


def approximate_kl(logps: PerToken, old_logps: PerToken) -> PerToken:
    """`(ρ − 1) − log ρ` of tokens drawn from π_old, never below 0; its mean estimates KL(π_old ‖ π_θ) of a token.

    math.md, "KL" (k3, per token only).

    >>> approximate_kl(torch.zeros(1), torch.zeros(1)).tolist()
    [0.0]
    """
    log_ratios = logps - old_logps
    return log_ratios.expm1() - log_ratios


def outside_range(logps: PerToken, old_logps: PerToken, *, clip_range: float) -> PerToken:
    """1 for each token with `|ρ − 1| > ε`, else 0: its mean is PPO's clip fraction. ε = 0 clips none.

    >>> outside_range(torch.tensor([0.1, 0.3]), torch.zeros(2), clip_range=0.2).tolist()
    [0.0, 1.0]
    """
    if clip_range == 0.0:
        return torch.zeros_like(logps)
    return ((logps - old_logps).expm1().abs() > clip_range).to(logps.dtype)


def explained_variance(values: PerToken, returns: PerToken) -> float:
    """`1 − Var(R − V) / Var(R)`: 1 where the values foretell the returns, 0 where a constant does as well, or below.

    NaN where all returns are equal: there is nothing to explain.

    >>> explained_variance(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]))
    0.75
    """
    variance = float(returns.double().var(correction=0))
    left = float((returns.double() - values.double()).var(correction=0))
    return 1.0 - left / variance if variance > 0.0 else math.nan


def adapted_beta(beta: float, *, kl: float, target: float, gain: float) -> float:
    """`β (1 + K clip((KL − target) / target, ±0.2))`: the controller of Ziegler et al. 2019, section 2.2, K = 0.1.

    Args:
        beta: β of the step whose answers `kl` was measured on.
        kl: KL(π_θ ‖ π_ref) of whole answers, in nats.
        target: in nats, above 0.
        gain: K.

    >>> adapted_beta(0.1, kl=12.0, target=6.0, gain=0.1)  # twice the target, 2 % dearer
    0.10200000000000001
    """
    error = (kl - target) / target
    return beta * (1.0 + gain * min(0.2, max(-0.2, error)))
