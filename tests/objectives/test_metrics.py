"""Rewards and what is logged of them: the reward logged is the reward optimised."""

import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from likelier.objectives import (
    OBJECTIVES,
    accuracies,
    bradley_terry,
    implicit_reward,
    log_ratio,
    reward_metrics,
)
from tests.objectives.examples import example

BETA = 0.3
FROM_MARGIN = {
    "sigmoid": lambda margin: -logsigmoid(margin),
    "robust": lambda margin: -logsigmoid(margin),
    "hinge": lambda margin: (1 - margin).clamp(min=0),
    "ipo": lambda margin: (margin - 0.5) ** 2 / BETA**2,
    "ipo_sum": lambda margin: (margin - 0.5) ** 2 / BETA**2,
    "simpo": lambda margin: -logsigmoid(margin - 0.5),
    "orpo": lambda margin: -0.1 * logsigmoid(margin),
    "unlikelihood": lambda margin: -0.1 * margin,
}
"""Each loss, at default options, from the margin of its own rewards (but for what imitates the chosen answer)."""


def test_every_pair_loss_is_listed():
    assert set(FROM_MARGIN) == {name for name, entry in OBJECTIVES.items() if entry.kind == "pair"}


@pytest.mark.parametrize("name", FROM_MARGIN)
def test_the_logged_reward_is_the_one_optimised(name):
    objective = OBJECTIVES[name]
    policy, reference, lengths, _ = example(objective, 30)
    margins = reward_metrics(objective.rewards(policy, reference, lengths, BETA))["rewards/margins"]
    losses = objective(policy, reference, lengths, BETA)
    if name == "orpo":
        losses = losses + policy[:, 0] / lengths[:, 0]
    if name == "unlikelihood":
        losses = losses + 0.9 * policy[:, 0]
    assert torch.allclose(FROM_MARGIN[name](margins), losses, rtol=1e-10, atol=1e-13)


def test_the_kway_rewards_are_the_implicit_ones():
    policy, reference, lengths, _ = example(OBJECTIVES["plackett_luce"], 10)
    for name in ("plackett_luce", "listwise"):
        rewards = OBJECTIVES[name].rewards(policy, reference, lengths, BETA)
        assert torch.equal(rewards, BETA * (policy - reference))


def test_at_the_reference_rewards_are_exactly_zero_and_the_accuracy_one_half():
    for objective in OBJECTIVES.values():
        if objective.kind == "pair" and objective.needs_reference:
            _, reference, lengths, _ = example(objective, 10, dtype=torch.float32)
            metrics = reward_metrics(objective.rewards(reference, reference, lengths, BETA))
            for name in ("rewards/chosen", "rewards/rejected", "rewards/margins"):
                assert metrics[name].abs().max() == 0.0
            assert (metrics["rewards/accuracies"] == 0.5).all()


def test_accuracies_know_higher_lower_tied_and_unknown():
    tiny = torch.finfo(torch.float32).tiny
    rewards = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0], [-0.0, 0.0], [tiny, 0.0], [0.0, tiny]])
    assert accuracies(rewards).tolist() == [1.0, 0.0, 0.5, 0.5, 1.0, 0.0]
    assert accuracies(torch.tensor([[math.nan, 0.0]])).isnan().all()
    assert accuracies(torch.zeros(0, 2)).shape == (0,)


def test_metrics_have_the_names_everyone_knows():
    metrics = reward_metrics(torch.tensor([[0.5, 0.25], [-1.0, 1.0]]))
    assert {name: value.tolist() for name, value in metrics.items()} == {
        "rewards/chosen": [0.5, -1.0],
        "rewards/rejected": [0.25, 1.0],
        "rewards/margins": [0.25, -2.0],
        "rewards/accuracies": [1.0, 0.0],
    }


def test_bradley_terry_is_symmetric_and_blind_to_shifts():
    first, second = torch.randn(2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    there, back = bradley_terry(first, second), bradley_terry(second, first)
    assert torch.allclose(there + back, torch.ones(50, dtype=torch.float64), rtol=0, atol=1e-15)
    assert torch.allclose(bradley_terry(first + 3.0, second + 3.0), there, rtol=0, atol=1e-15)
    ratio = torch.exp(first) / (torch.exp(first) + torch.exp(second))
    assert torch.allclose(there, ratio, rtol=1e-14, atol=0)


def test_log_ratio_and_implicit_reward():
    policy, reference = torch.tensor([-1.0, -5.0]), torch.tensor([-3.0, -4.5])
    assert log_ratio(policy, reference).tolist() == [2.0, -0.5]
    assert implicit_reward(policy, reference, torch.ones(2), 0.5).tolist() == [1.0, -0.25]
    with pytest.raises(ValueError, match="reference"):
        implicit_reward(policy, None, torch.ones(2), 0.5)
