"""The value-function view: how noisy one estimate of the gradient is, with each baseline and for DPO, exactly.

math.md (13). Policies are softmax tables with a parameter for every answer of every prompt, so `∇ log π(y|x)` is the
unit vector of y less π(·|x), and mean and variance of an estimate are sums over all answers, or over all groups of
answers where a baseline is sampled. An estimate is of `∇J`, (4); its noise is the trace of its covariance over all
parameters.

What is comparable: estimates of the same gradient, for the same number of answers (a `cost` says how many one uses).
What is not: DPO descends another function, whose gradient has another size, so only the ratio of noise to signal can be
set beside the others; and it learns from drawn labels, where the policy gradient is told the exact reward.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from likelier.theory.optimum import expectation, log_partition
from likelier.theory.shapes import Cells, Number, PerPrompt
from likelier.theory.world import World


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Mean and mean square of an estimate of the gradient, given its prompt."""

    mean: Cells
    """`E[g | x]` in the parameters of x; those of other prompts get nothing."""
    square: PerPrompt
    """`E[‖g‖² | x]`."""
    cost: int
    """Answers that one estimate uses."""


def gradient(world: World, moments: Moments) -> Cells:
    """`E[g]` over all parameters: each prompt's mean times the prompt's probability."""
    return world.prompt_weights[:, None] * moments.mean


def noise(world: World, moments: Moments) -> Number:
    """The trace of the estimate's covariance, `E‖g‖² − ‖E g‖²`, prompts drawn as well."""
    return (world.prompt_weights * moments.square).sum() - gradient(world, moments).square().sum()


def noise_per_answer(world: World, moments: Moments) -> float:
    """The noise of a mean of estimates, times the answers that it took: what compares at an equal number of answers.

    >>> world = World.random(0)
    >>> pair, single = leave_one_out(world, world.log_reference, 0.5), no_baseline(world, world.log_reference, 0.5)
    >>> noise_per_answer(world, pair) == 2 * float(noise(world, pair)), single.cost
    (True, 1)
    """
    return moments.cost * float(noise(world, moments))


def answers_needed(world: World, moments: Moments) -> float:
    """Answers until the noise is as large as the signal: noise per answer over `‖E g‖²`; free of the gradient's scale.

    It is infinite where the gradient is 0 and the noise is not, and not a number where both are.
    """
    signal = float(gradient(world, moments).square().sum())
    spread = noise_per_answer(world, moments)
    if signal == 0.0:
        return float("inf") if spread > 0.0 else float("nan")
    return spread / signal


def payoff(world: World, log_policy: Cells, beta: float) -> Cells:
    """`R(x,y) = r(x,y) − β (log π(y|x) − log π_ref(y|x))`: what (4) averages; 0 where π = 0, which is never drawn.

    >>> world = World.random(0)
    >>> bool(torch.equal(payoff(world, world.log_reference, 0.5), world.reward))
    True
    """
    drawn = log_policy > -torch.inf
    log_ratio = torch.where(drawn, log_policy - world.log_reference, 0.0)
    return torch.where(drawn, world.reward - beta * log_ratio, 0.0)


def with_baseline(log_policy: Cells, payoffs: Cells, baseline: PerPrompt) -> Moments:
    """`g = (R(x,y) − b(x)) ∇log π(y|x)` for one y ∼ π; every b(x) has the same mean, since `E[∇log π] = 0`.

    >>> half = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    >>> payoffs = torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    >>> plain, centred = (with_baseline(half, payoffs, torch.tensor([b]).double()) for b in (0.0, 2.0))
    >>> [round(x, 12) for x in plain.mean.tolist()[0]], [round(x, 12) for x in centred.mean.tolist()[0]]
    ([-0.5, 0.5], [-0.5, 0.5])
    >>> round(plain.square.item(), 12), round(centred.square.item(), 12)
    (2.5, 0.5)
    """
    advantage = payoffs - baseline[:, None]
    probability = log_policy.exp()
    weighted = probability * advantage
    mean = weighted - probability * weighted.sum(dim=-1, keepdim=True)
    square = (probability * advantage.square() * score_squares(log_policy)).sum(dim=-1)
    return Moments(mean=mean, square=square, cost=1)


def score_squares(log_policy: Cells) -> Cells:
    """`‖∇log π(y|x)‖² = 1 − 2 π(y|x) + Σ_z π(z|x)²` in a softmax table."""
    probability = log_policy.exp()
    return 1.0 - 2.0 * probability + probability.square().sum(dim=-1, keepdim=True)


def no_baseline(world: World, log_policy: Cells, beta: float) -> Moments:
    """The plain score-function estimate: b = 0."""
    payoffs = payoff(world, log_policy, beta)
    return with_baseline(log_policy, payoffs, torch.zeros_like(world.prompt_weights))


def soft_value(world: World, log_policy: Cells, beta: float) -> Moments:
    """b = β log Z(x), the soft value of π_ref: the middle term of math.md (13). At π* nothing is left of the noise."""
    baseline = beta * log_partition(world.log_reference, world.reward, beta)
    return with_baseline(log_policy, payoff(world, log_policy, beta), baseline)


def own_value(world: World, log_policy: Cells, beta: float) -> Moments:
    """b = E_{y∼π}[R(x,y)], the policy's own value, which a critic learns."""
    payoffs = payoff(world, log_policy, beta)
    return with_baseline(log_policy, payoffs, expectation(log_policy, payoffs))


def best_constant(world: World, log_policy: Cells, beta: float) -> Moments:
    """b = E[R ‖∇log π‖²] / E[‖∇log π‖²], the least noisy of all baselines that depend on x alone."""
    payoffs, squares = payoff(world, log_policy, beta), score_squares(log_policy)
    weight = expectation(log_policy, squares)
    weighed = expectation(log_policy, payoffs * squares)
    baseline = torch.where(weight > 0, weighed / torch.where(weight > 0, weight, 1.0), 0.0)
    return with_baseline(log_policy, payoffs, baseline)


def another_sample(world: World, log_policy: Cells, beta: float) -> Moments:
    """b is the payoff of a second answer to the same prompt, which teaches nothing else: `E[(R₁ − R₂)² ‖∇log π₁‖²]`."""
    payoffs = payoff(world, log_policy, beta)
    own = own_value(world, log_policy, beta)
    spread = _variance(log_policy, payoffs)
    square = own.square + spread * expectation(log_policy, score_squares(log_policy))
    return Moments(mean=own.mean, square=square, cost=2)


def leave_one_out(world: World, log_policy: Cells, beta: float, *, answers: int = 2) -> Moments:
    """`g = 1/K Σ_i (R_i − mean of the other R_j) ∇log π(y_i|x)` for K answers to one prompt.

    It is a U-statistic of the kernel `h(1,2) = ½ (R₁ − R₂)(∇log π₁ − ∇log π₂)`, so its variance is
    `(2(K−2) tr Cov E[h|1] + tr Cov h) / (K(K−1)/2)`, of which `E‖h‖² = Var R` in a softmax table.

    Raises:
        ValueError: fewer than two answers.

    >>> world = World.random(0)
    >>> [leave_one_out(world, world.log_reference, 0.5, answers=k).cost for k in (2, 4)]
    [2, 4]
    """
    if answers < 2:
        raise ValueError(f"leave-one-out needs two answers to a prompt, not {answers}")
    payoffs, probability = payoff(world, log_policy, beta), log_policy.exp()
    own = own_value(world, log_policy, beta)
    signal = own.mean.square().sum(dim=-1)
    whole = _variance(log_policy, payoffs) - signal
    part = (probability * _projected_squares(log_policy, payoffs)).sum(dim=-1) - signal
    pairs = answers * (answers - 1) / 2
    return Moments(mean=own.mean, square=(2 * (answers - 2) * part + whole) / pairs + signal, cost=answers)


def dpo_pair(world: World, log_policy: Cells, beta: float) -> Moments:
    """`g = −β σ(−u) (∇log π(y_w|x) − ∇log π(y_l|x))`, (9), of two answers y ∼ π_ref labelled by (1).

    Two equal answers teach nothing. The scores' difference is that of two unit vectors, so `‖g‖² = 2 β² σ(−u)²`.

    >>> half = World.uniform(torch.zeros(1, 2).double())
    >>> dpo_pair(half, half.log_reference, 1.0).square.item()  # ½ of the pairs differ, each 2 · ¼
    0.25
    """
    log_ratio = torch.where(world.support, log_policy - world.log_reference, 0.0)
    margin = beta * (log_ratio[:, :, None] - log_ratio[:, None, :])
    probability = world.log_reference.exp()
    drawn = probability[:, :, None] * probability[:, None, :]
    preferred = logsigmoid(world.reward[:, :, None] - world.reward[:, None, :]).exp()
    differ = 1.0 - torch.eye(probability.shape[-1], dtype=probability.dtype)
    pull = beta * logsigmoid(-margin).exp()
    weight = 2.0 * drawn * preferred * differ  # either order of the two, the first of them preferred
    force = weight * pull
    mean = -(force.sum(dim=2) - force.sum(dim=1))
    return Moments(mean=mean, square=(weight * 2.0 * pull.square()).sum(dim=(1, 2)), cost=2)


def _variance(log_policy: Cells, values: Cells) -> PerPrompt:
    centred = values - expectation(log_policy, values)[:, None]
    return expectation(log_policy, centred.square())


def _projected_squares(log_policy: Cells, payoffs: Cells) -> Cells:
    """`‖E[h | y₁]‖²`, h the kernel of `leave_one_out`: ½ (R₁ − E R) at y₁, and −½ π(y₂) (R₁ − R₂) at each other y₂."""
    probability = log_policy.exp()
    centred = payoffs - expectation(log_policy, payoffs)[:, None]
    pushed = probability[:, None, :] * (payoffs[:, :, None] - payoffs[:, None, :])
    return 0.25 * (centred.square() + pushed.square().sum(dim=-1))
