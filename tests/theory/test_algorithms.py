"""Many samples side by side are many samples one by one; each algorithm ends where its own theory says."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likelier.objectives import OBJECTIVES
from likelier.theory.algorithms import (
    PREFERRED_FT,
    fitted_rewards,
    optimal_policies,
    pair_gradient,
    policy_gradient,
    ppo,
    train_pairs,
    unlikelihood,
)
from likelier.theory.batches import Samples, adam, distance_to, log_policies, standing
from likelier.theory.comparisons import is_decided_by_all, population, sample
from likelier.theory.descent import Training, descend
from likelier.theory.fits import fit_bradley_terry
from likelier.theory.frontiers import Distances, Plan, distances, frontiers
from likelier.theory.optimum import objective, optimal_policy, place, reward_at, total_variation
from likelier.theory.stability import sampled_policy_gradient, stability
from likelier.theory.world import World

WORLD = World.random(3, prompts=2, completions=4)


@given(st.integers(0, 10_000), st.integers(1, 60))
@settings(max_examples=20, deadline=None)
def test_a_batch_of_samples_is_each_sample(seed, count):
    batch = Samples.draw(WORLD, count, seeds=[seed, seed + 1])
    alone = sample(population(WORLD), count, seed=seed)
    assert torch.equal(batch.wins()[0], alone.wins(4, prompts=2))
    assert bool(batch.have_a_finite_fit()[0]) == is_decided_by_all(alone, WORLD)


def test_gradients_of_a_batch_are_those_of_each_seed():
    """Against autograd through `Training`, whose pairs are picked in another way."""
    samples = Samples.draw(WORLD, 40, seeds=[1, 2])
    parameters = torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for name, options in (("sigmoid", {"label_smoothing": 0.1}), ("ipo_sum", {}), ("hinge", {})):
        found = pair_gradient(samples, OBJECTIVES[name], 0.7, options=options)(parameters)
        training = Training(
            objective=OBJECTIVES[name], log_reference=WORLD.log_reference, beta=0.7, options=dict(options)
        )
        for row, seed in enumerate([1, 2]):
            at = parameters[row].clone().requires_grad_(True)
            policy = (WORLD.log_reference + at).log_softmax(dim=-1)
            training.loss(sample(population(WORLD), 40, seed=seed), policy).backward()
            assert torch.allclose(found[row], at.grad, atol=1e-14)


def test_adam_is_adam():
    """Against torch's own, on a function that is not convex."""

    def slope(at):
        return at.cos() + 0.3 * at

    start = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = adam(slope, start, rate=torch.tensor([0.1, 0.01]).double(), steps=30, keep=[7])
    for row, rate in enumerate((0.1, 0.01)):
        theirs = start[row].clone().requires_grad_(True)
        optimizer = torch.optim.Adam([theirs], lr=rate)
        for step in range(30):
            if step == 7:
                assert torch.allclose(found[0][row], theirs.detach(), atol=1e-13)
            theirs.grad = slope(theirs.detach())
            optimizer.step()
        assert torch.allclose(found[1][row], theirs.detach(), atol=1e-13)


def test_the_exact_policy_gradient_is_that_of_the_objective():
    beta = 0.6
    parameters = torch.randn(1, 2, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    at = parameters.clone().requires_grad_(True)
    policy = (WORLD.log_reference + at[0]).log_softmax(dim=-1)
    objective(WORLD, policy, beta).backward()
    found = policy_gradient(WORLD.log_reference, WORLD.reward[None], beta)(parameters)
    # PPO takes each prompt as often as any other: Adam does not see the difference.
    assert torch.allclose(-at.grad / WORLD.prompt_weights.unsqueeze(-1), found, atol=1e-14)


def test_the_sampled_policy_gradient_is_unbiased():
    """The mean of many batches against the exact one; a batch's mean as baseline shrinks it by 1 − 1/answers."""
    beta, answers, rows = 0.6, 8, 4000
    one = torch.randn(1, 2, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    draws = sampled_policy_gradient(
        WORLD, WORLD.reward[None].expand(rows, -1, -1), beta, answers, torch.Generator().manual_seed(3)
    )(one.expand(rows, -1, -1))
    at = one.clone().requires_grad_(True)
    objective(WORLD, (WORLD.log_reference + at[0]).log_softmax(dim=-1), beta).backward()
    expected = -(1 - 1 / answers) * at.grad[0]
    error = draws.std(dim=0) / math.sqrt(rows)
    assert bool(((draws.mean(dim=0) - expected).abs() < 5 * error).all())


def test_dpo_takes_the_reward_models_path():
    """At rate η/β after any number of steps: the optimum of (4) for a reward model trained as long at rate η."""
    samples = Samples.draw(WORLD, 60, seeds=[5, 6])
    for beta, steps in ((0.1, 40), (2.0, 90)):
        dpo = train_pairs(samples, OBJECTIVES["sigmoid"], beta, rate=0.05 / beta, steps=steps)[-1]
        rewards = fitted_rewards(samples, rate=0.05, steps=steps)
        assert torch.allclose(dpo, optimal_policies(WORLD.log_reference, rewards, beta), atol=2e-4)


def test_long_training_ends_at_the_maximum_likelihood():
    """Where a sample has a finite fit: the fit by Newton, and DPO's minimum by Newton."""
    samples = Samples.draw(WORLD, 3000, seeds=[0])
    assert samples.have_a_finite_fit().tolist() == [True]
    rewards = fitted_rewards(samples, rate=0.05, steps=1500)[0]
    for row, wins in zip(rewards, samples.wins()[0], strict=True):
        assert torch.allclose(row - row.mean(), fit_bradley_terry(wins), atol=1e-3)
    trained = train_pairs(samples, OBJECTIVES["sigmoid"], 0.5, rate=0.1, steps=1500)[-1][0]
    training = Training(objective=OBJECTIVES["sigmoid"], log_reference=WORLD.log_reference, beta=0.5)
    exact = descend(training, sample(population(WORLD), 3000, seed=0))
    assert float(total_variation(trained, exact.log_policy).max()) < 1e-3


def test_ppo_climbs_to_the_optimum_of_its_reward():
    for beta in (0.3, 2.0):
        found = ppo(WORLD.log_reference, WORLD.reward[None], beta, rate=0.1, steps=600)[-1]
        best = optimal_policy(WORLD.log_reference, WORLD.reward, beta)
        assert float(total_variation(found[0], best).max()) < 1e-3


def test_preferred_ft_ends_at_the_distribution_of_winners():
    samples = Samples.draw(WORLD, 3000, seeds=[0])
    found = train_pairs(samples, PREFERRED_FT, 1.0, rate=0.05, steps=1500)[-1][0]
    won = samples.wins()[0].sum(dim=2)
    assert torch.allclose(found.exp(), won / won.sum(dim=1, keepdim=True), atol=1e-3)


def test_unlikelihood_has_no_end():
    """With α = 1 a completion that loses more often than it wins falls for as long as training lasts."""
    samples = Samples.draw(WORLD, 3000, seeds=[0])
    early, late = train_pairs(samples, unlikelihood(1.0), 1.0, rate=0.05, steps=800, keep=[200])
    assert float(late.min()) < 2 * float(early.min())


def test_standing_is_place():
    policies = log_policies(
        WORLD.log_reference, torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0)).double()
    )
    found = standing(WORLD, policies)
    for row, policy in enumerate(policies):
        expected = place(WORLD, policy)
        assert float(found.kl[row]) == pytest.approx(expected.kl, abs=1e-14)
        assert float(found.reward[row]) == pytest.approx(expected.reward, abs=1e-14)
        assert float(found.objective(0.3)[row]) == pytest.approx(
            float(objective(WORLD, policy, 0.3)), abs=1e-14
        )
    other = policies[0]
    apart = distance_to(WORLD, policies, other)
    assert float(apart[0]) == 0.0
    assert float(apart[1]) == pytest.approx(float(total_variation(policies[1], other) @ WORLD.prompt_weights))


def test_no_algorithm_is_above_the_frontier():
    found = frontiers(Plan(world=WORLD, comparisons=100, seeds=4, steps=40))
    for point in found.points:
        assert point.below.value > -1e-4
        assert point.below.value == pytest.approx(
            reward_at(WORLD, point.kl.value) - point.reward.value, abs=0.05
        )
        assert point.share <= 1.001
    assert {"DPO", "IPO", "hinge", "PPO", "PPO-GT", "Preferred-FT", "best of N"} <= set(found.algorithms)
    assert len(found.of("DPO")) == 4
    assert "PPO-GT 100%" in found.words
    with_dial = [point.kl.value for point in found.of("DPO")]
    assert with_dial == sorted(with_dial, reverse=True)


def test_more_comparisons_come_nearer_to_the_optimum():
    found = distances(WORLD, beta=0.5, counts=(20, 2000), seeds=6, steps=60, rate=0.1)
    for name in ("DPO", "PPO", "cDPO, ε 0.1"):
        assert found.lost[name][1].value < found.lost[name][0].value
        assert found.apart[name][1].value < found.apart[name][0].value
    assert found.without_fit[0].value > found.without_fit[1].value
    assert found.lost["PPO-GT"][0].value < 1e-3
    assert isinstance(found, Distances)
    assert "from 20 comparisons to 2,000" in found.words


def test_stability_by_hand_where_the_answer_is_known():
    """No step is a gain of 0; the best rate and the paired difference come from the table itself."""
    found = stability(WORLD, seeds=4, steps=30, repeats=2, rates=(1e-9, 0.1), batch=8)
    for name in ("DPO", "PPO", "PPO-GT"):
        assert found.gained[name][0].value == pytest.approx(0.0, abs=1e-6)
        assert found.best(name) == 1
        assert found.gained[name][1].value <= 1.0
    expected = found.gained["DPO"][1].value - found.gained["PPO"][1].value
    assert found.difference.value == pytest.approx(expected, abs=1e-12)
    assert ("within chance" in found.words) != found.difference.excludes(0.0)
    assert found.own_noise["PPO"][1] > 0
    assert np.isfinite(found.spread["DPO"]).all()
