"""Small stable pieces that several losses share; finite in value and gradient wherever they can be."""

from __future__ import annotations

import math

import torch

from likelier.objectives.shapes import Counts, Mask, Values


def log1mexp(log_prob: Values) -> Values:
    """`log(1 − e^x)` for x < 0, accurate at both ends.

    Near 0 through `expm1`, far below through `log1p`; there the other branch, whose slope is
    infinite at 0, is fed a harmless value, so that the gradient is never NaN.

    >>> import torch
    >>> log1mexp(torch.tensor([-1e-10, -50.0], dtype=torch.float64)).tolist()
    [-23.025850929990458, -1.9287498479639178e-22]
    """
    near_zero = log_prob > -math.log(2.0)
    far = torch.where(near_zero, -1.0, log_prob)
    return torch.where(near_zero, torch.log(-torch.expm1(log_prob)), torch.log1p(-torch.exp(far)))


def per_token(total: Values, lengths: Counts) -> Values:
    """`total / |y|`; a branch without scored tokens has total 0 and mean 0.

    >>> import torch
    >>> per_token(torch.tensor([-6.0, 0.0]), torch.tensor([3, 0])).tolist()
    [-2.0, 0.0]
    """
    return total / lengths.clamp(min=1)


def log_odds(policy: Values, lengths: Counts) -> Values:
    """`logit p̄ = log(p̄ / (1 − p̄))` with `p̄ = exp(log π_θ(y|x) / |y|)`, ORPO's odds (arXiv 2403.07691, eq. 4).

    `policy`: summed log-probs, `lengths`: scored tokens, of one shape. A p̄ that rounds to 1 counts as one
    rounding step below it: the odds stay finite.

    >>> import torch
    >>> log_odds(torch.tensor([-2.0]), torch.tensor([2])).tolist()  # p̄ = 1/e, so −log(e − 1)
    [-0.5413248538970947]
    """
    mean = per_token(policy, lengths).clamp(max=-torch.finfo(policy.dtype).eps)
    return mean - log1mexp(mean)


def masked(values: Values, mask: Mask) -> Values:
    """`values` with 0 where `mask` is False: whatever stood there reaches neither value nor gradient.

    >>> import torch
    >>> masked(torch.tensor([1.0, float("nan")]), torch.tensor([True, False])).tolist()
    [1.0, 0.0]
    """
    return values.masked_fill(~mask, 0.0)
