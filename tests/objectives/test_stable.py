"""The pieces at the ends of their ranges, against 400 digits."""

import math

import mpmath
import pytest
import torch

from likelier.objectives.stable import log1mexp, log_odds


@pytest.mark.parametrize(
    "log_prob", [-1e-300, -1e-16, -1e-8, -0.1, -0.6931, -math.log(2), -0.6932, -5.0, -40.0, -700.0, -1e4]
)
def test_log1mexp_and_its_slope(log_prob):
    x = torch.tensor(log_prob, dtype=torch.float64, requires_grad=True)
    value = log1mexp(x)
    (slope,) = torch.autograd.grad(value, x)
    with mpmath.workdps(400):
        exact = mpmath.mpf(log_prob)
        true_value = float(mpmath.log(-mpmath.expm1(exact)))
        true_slope = float(mpmath.exp(exact) / mpmath.expm1(exact))
    assert value.item() == pytest.approx(true_value, rel=1e-14, abs=5e-324)
    assert slope.item() == pytest.approx(true_slope, rel=1e-13, abs=5e-324)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_odds_at_certainty_are_finite_and_in_order(dtype):
    log_probs = torch.tensor([0.0, -1e-40, -1e-3, -1.0, -1e4], dtype=dtype, requires_grad=True)
    odds = log_odds(log_probs, torch.ones(5))
    (slope,) = torch.autograd.grad(odds.sum(), log_probs)
    assert odds.isfinite().all()
    assert slope.isfinite().all()
    assert (odds.diff() <= 0.0).all()
