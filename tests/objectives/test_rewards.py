"""Losses of a reward model: by hand, against DPO's own at β = 1, and by their gradients."""

import math

import pytest
import torch

from likelier.objectives import OBJECTIVES, REWARD_OBJECTIVES

PAIRS = torch.tensor([[1.5, 0.25], [-0.5, 2.0], [0.0, 0.0]], dtype=torch.float64)
LENGTHS = torch.ones(3, 2)


def test_bradley_terry_by_hand():
    """−log σ(u) = log(1 + e^−u) for u = 1.25, −2.5, 0."""
    losses = REWARD_OBJECTIVES["bradley_terry"](PAIRS, None, LENGTHS, 1.0)
    expected = [math.log1p(math.exp(-1.25)), math.log1p(math.exp(2.5)), math.log(2)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-15)


def test_margin_and_smoothing_by_hand():
    """u − m = 1.25 − 0.75; a quarter of labels flipped."""
    losses = REWARD_OBJECTIVES["bradley_terry"](
        PAIRS[:1], None, LENGTHS[:1], 1.0, margin=0.75, label_smoothing=0.25
    )
    expected = 0.75 * math.log1p(math.exp(-0.5)) + 0.25 * math.log1p(math.exp(0.5))
    assert losses.tolist() == pytest.approx([expected], rel=1e-15)


def test_the_gradient_is_minus_sigma_of_minus_u():
    """math.md (9) with r for β log-ratio."""
    values = PAIRS.clone().requires_grad_()
    REWARD_OBJECTIVES["bradley_terry"](values, None, LENGTHS, 1.0).sum().backward()
    slope = [1 / (1 + math.exp(u)) for u in (1.25, -2.5, 0.0)]
    assert values.grad[:, 0].tolist() == pytest.approx([-s for s in slope], rel=1e-15)
    assert values.grad[:, 1].tolist() == pytest.approx(slope, rel=1e-15)


def test_it_is_dpo_with_values_for_log_ratios():
    reference = torch.tensor([[-7.0, -3.0]] * 3, dtype=torch.float64)
    theirs = OBJECTIVES["sigmoid"](PAIRS + reference, reference, LENGTHS, 1.0)
    assert torch.allclose(REWARD_OBJECTIVES["bradley_terry"](PAIRS, None, LENGTHS, 1.0), theirs, rtol=1e-14)


def test_plackett_luce_by_hand():
    """Order c, a, b of values 1, −1, 2: e²/(e² + e + e⁻¹) · e/(e + e⁻¹)."""
    values = torch.tensor([[1.0, -1.0, 2.0]], dtype=torch.float64)
    order = {"mask": torch.ones(1, 3, dtype=torch.bool), "ranks": torch.tensor([[1, 2, 0]])}
    loss = REWARD_OBJECTIVES["plackett_luce"](values, None, torch.ones(1, 3), 1.0, **order)
    e = math.e
    expected = -math.log(e**2 / (e**2 + e + 1 / e)) - math.log(e / (e + 1 / e))
    assert loss.tolist() == pytest.approx([expected], rel=1e-14)


def test_of_two_answers_plackett_luce_is_bradley_terry():
    order = {"mask": torch.ones(3, 2, dtype=torch.bool), "ranks": torch.tensor([[0, 1]] * 3)}
    pairs = REWARD_OBJECTIVES["bradley_terry"](PAIRS, None, LENGTHS, 1.0)
    assert torch.allclose(
        REWARD_OBJECTIVES["plackett_luce"](PAIRS, None, LENGTHS, 1.0, **order), pairs, rtol=1e-14
    )


@pytest.mark.parametrize("name", REWARD_OBJECTIVES)
def test_what_is_logged_is_what_is_compared(name):
    objective = REWARD_OBJECTIVES[name]
    assert objective.name == name
    assert torch.equal(objective.rewards(PAIRS, None, LENGTHS, 1.0), PAIRS)
    assert not objective.needs_reference
    assert not objective.reads_beta


def test_at_values_of_zero_the_losses_have_their_own_value():
    zeros = torch.zeros(1, 3, dtype=torch.float64)
    assert REWARD_OBJECTIVES["bradley_terry"].at_reference(1.0) == pytest.approx(math.log(2))
    order = {"mask": torch.ones(1, 3, dtype=torch.bool), "ranks": torch.tensor([[0, 1, 1]])}
    loss = REWARD_OBJECTIVES["plackett_luce"](zeros, None, torch.ones(1, 3), 1.0, **order)
    assert loss.item() == pytest.approx(REWARD_OBJECTIVES["plackett_luce"].at_reference(1.0, ranks=[0, 1, 1]))
