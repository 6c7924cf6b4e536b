"""The slips of the source note (end of math.md), each with the counter-example that it fails on.

Every test shows the corrected statement to hold where the printed one does not: none of them would pass with both.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy.optimize import minimize

from likelier.objectives.preferences import bradley_terry
from likelier.theory.classes import class_distance, equivalent, implicit_reward, project
from likelier.theory.comparisons import Comparisons, population
from likelier.theory.fits import NoFiniteFitError, fit_bradley_terry
from likelier.theory.gradients import dpo_loss, margins, pair_weights, table_gradient
from likelier.theory.optimum import (
    expectation,
    kl,
    log_partition,
    mean,
    objective,
    optimal_policy,
    optimum_value,
    total_variation,
)
from likelier.theory.world import World

WORLD, BETA = World.random(7, prompts=2, completions=4), 0.5
BEST = optimal_policy(WORLD.log_reference, WORLD.reward, BETA)
LOG_Z = log_partition(WORLD.log_reference, WORLD.reward, BETA)


def descended(loss: Callable[[torch.Tensor], torch.Tensor], steps: int = 2000) -> torch.Tensor:
    """Where L-BFGS ends from the reference, as a policy."""

    def both(flat: list[float]) -> tuple[float, list[float]]:
        logits = torch.tensor(flat, dtype=torch.float64).reshape(WORLD.reward.shape).requires_grad_()
        value = loss(logits.log_softmax(-1))
        (gradient,) = torch.autograd.grad(value, logits)
        return float(value.detach()), gradient.flatten().tolist()

    options = {"maxiter": steps, "maxfun": 2 * steps, "ftol": 1e-16, "gtol": 1e-12}
    found = minimize(
        both, WORLD.log_reference.flatten().tolist(), jac=True, method="L-BFGS-B", options=options
    )
    return torch.tensor(found.x).reshape(WORLD.reward.shape).log_softmax(-1)


def probabilities(policy: torch.Tensor) -> torch.Tensor:
    """σ(u) of each comparison, `[pairs]`."""
    return margins(policy, WORLD.log_reference, population(WORLD), BETA).sigmoid()


def test_the_loss_has_a_log() -> None:
    """`−E σ(u)` does not recover π*: its best policies are sure of everything that is likelier than not."""
    comparisons = population(WORLD)
    right = descended(lambda policy: dpo_loss(policy, WORLD.log_reference, comparisons, BETA))
    assert total_variation(right, BEST).max() < 1e-6

    def printed(policy: torch.Tensor) -> torch.Tensor:
        return -(comparisons.weight * probabilities(policy)).sum()

    wrong = descended(printed)
    assert printed(wrong) < printed(BEST) - 1e-3
    assert total_variation(wrong, BEST).max() > 0.1
    assert wrong.exp().amax(-1).min() > 0.99


def test_u_is_differentiated_once() -> None:
    """`∇ log σ(u) = σ'(u)/σ(u) ∇u`; the note's `∇σ(u)/σ(u) ∇u` has ∇u in it twice."""
    theta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    u = 3.0 * theta  # ∇u = 3
    (true,) = torch.autograd.grad(u.sigmoid().log(), theta)
    sigma = torch.sigmoid(torch.tensor(2.1, dtype=torch.float64))
    slope = sigma * (1 - sigma)
    assert true.item() == pytest.approx(float(slope / sigma * 3.0))
    assert abs(true.item() - float((slope * 3.0) / sigma * 3.0)) > 0.5


def test_chosen_is_the_preferred_one() -> None:
    """Read as an order, `y_w < y_l` would put the preferred answer last: DPO would then learn −r."""
    right = population(WORLD)
    wrong = Comparisons(prompt=right.prompt, winner=right.loser, loser=right.winner, weight=right.weight)
    turned = descended(lambda policy: dpo_loss(policy, WORLD.log_reference, wrong, BETA))
    assert total_variation(turned, optimal_policy(WORLD.log_reference, -WORLD.reward, BETA)).max() < 1e-6
    assert total_variation(turned, BEST).max() > 0.1


def test_a_preference_is_no_deterministic_choice() -> None:
    """`r_w > r_l` says p > ½, not p = 1; labels that are always the same have no finite reward."""
    rewards = WORLD.reward[0]
    rows = rewards.expand(4, -1)
    preferred = bradley_terry(rows.mT, rows)
    higher = rows.mT > rows
    assert torch.equal(preferred > 0.5, higher)
    assert (preferred < 1.0).all()
    torch.testing.assert_close(fit_bradley_terry(preferred), rewards - rewards.mean(), atol=1e-9, rtol=0.0)
    with pytest.raises(NoFiniteFitError):
        fit_bradley_terry(higher.double())


def test_the_optima_of_the_derivation_agree_but_not_its_values() -> None:
    """max J = β E log Z, the minimum at the derivation's end is −E log Z: a factor −β was dropped."""
    value = optimum_value(WORLD, BETA)

    def end(policy: torch.Tensor) -> torch.Tensor:
        """`min E[log π/π_ref − r/β]`."""
        return mean(WORLD, expectation(policy, policy - WORLD.log_reference - WORLD.reward / BETA))

    assert end(BEST).item() == pytest.approx(-float(value) / BETA)
    assert abs(float(end(BEST)) - float(value)) > 0.1
    assert objective(WORLD, BEST, BETA).item() == pytest.approx(float(value))
    for policy in (WORLD.log_reference, torch.zeros_like(BEST).log_softmax(-1)):
        assert end(policy) > end(BEST)
        assert objective(WORLD, policy, BETA).item() == pytest.approx(-BETA * float(end(policy)))


def test_p_star_is_not_any_policys() -> None:
    """`p*(y_1 ≻ y_2) = σ(u)` at π*; of another π_θ it is not true, and at the reference σ(u) is ½ for every pair."""
    pairs = population(WORLD)
    preferred = bradley_terry(
        WORLD.reward[pairs.prompt, pairs.winner], WORLD.reward[pairs.prompt, pairs.loser]
    )
    torch.testing.assert_close(probabilities(BEST), preferred, atol=1e-12, rtol=0.0)
    assert (probabilities(WORLD.log_reference) == 0.5).all()
    assert (preferred - 0.5).abs().max() > 0.1


def test_rewards_are_centred_over_all_prompts() -> None:
    """E_D[r] = 0 is one number, not one for each x; a shift of each prompt would change no preference either."""
    centred = WORLD.reward - mean(WORLD, expectation(WORLD.log_reference, WORLD.reward))
    per_prompt = expectation(WORLD.log_reference, centred)
    assert abs(float(mean(WORLD, per_prompt))) < 1e-12
    assert per_prompt.abs().max() > 0.01
    assert equivalent(centred - per_prompt.unsqueeze(-1), WORLD.reward)


def test_z_depends_on_r_and_beta() -> None:
    other_reward = log_partition(WORLD.log_reference, 2 * WORLD.reward, BETA)
    other_beta = log_partition(WORLD.log_reference, WORLD.reward, 2 * BETA)
    assert (other_reward - LOG_Z).abs().min() > 0.01
    assert (other_beta - LOG_Z).abs().min() > 0.01


def test_lemma_2_is_not_its_converse() -> None:
    """Equivalent rewards share the optimal policy, always; one policy, two classes: where π_ref = 0."""
    world = World.of(
        torch.tensor([[0.0, 0.0, -torch.inf]]).double(), torch.tensor([[1.0, 0.0, 0.0]]).double()
    )
    same_class = optimal_policy(world.log_reference, world.reward + 3.0, BETA)
    other_class = world.reward + torch.tensor([[0.0, 0.0, 5.0]]).double()
    best = optimal_policy(world.log_reference, world.reward, BETA)
    assert total_variation(same_class, best).item() < 1e-15
    assert not equivalent(other_class, world.reward)
    assert total_variation(optimal_policy(world.log_reference, other_class, BETA), best).item() == 0.0


def test_theorem_1s_form_has_a_log() -> None:
    """`β log(π/π_ref)` is in r's class; the printed `β π/π_ref` is not."""
    assert equivalent(implicit_reward(WORLD, BEST, BETA), WORLD.reward)
    printed = BETA * (BEST - WORLD.log_reference).exp()
    assert class_distance(printed, WORLD.reward).min() > 0.1
    assert equivalent(project(WORLD, BETA), BETA * (BEST - WORLD.log_reference))


def value_view(policy: torch.Tensor) -> torch.Tensor:
    """(13) as it should be."""
    soft_value = BETA * LOG_Z.unsqueeze(-1)
    return mean(WORLD, expectation(policy, WORLD.reward - soft_value - BETA * (policy - WORLD.log_reference)))


def test_the_value_view_is_a_maximum_over_an_expectation_with_a_log() -> None:
    """(13) is −β KL(π‖π*): its maximum is 0, at π*. Without the log in the ratio another policy is best."""
    assert value_view(BEST).item() == pytest.approx(0.0, abs=1e-14)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        policy = torch.randn(WORLD.reward.shape, generator=generator, dtype=torch.float64).log_softmax(-1)
        assert value_view(policy).item() == pytest.approx(-BETA * float(mean(WORLD, kl(policy, BEST))))
        assert value_view(policy) < value_view(BEST)  # so π* is no minimum

    def printed(policy: torch.Tensor) -> torch.Tensor:
        """The ratio without its log; negative, since it is to be made large."""
        ratio = (policy - WORLD.log_reference).exp()
        soft_value = BETA * LOG_Z.unsqueeze(-1)
        return -mean(WORLD, expectation(policy, WORLD.reward - soft_value - BETA * ratio))

    wrong = descended(printed)
    assert printed(wrong) < printed(BEST) - 1e-3
    assert total_variation(wrong, BEST).max() > 0.01


def test_without_an_expectation_nothing_is_to_be_maximised() -> None:
    """r − β log Z − β log(π/π_ref) without E over y ∼ π is 0 for every y at π*: no sum of it tells policies apart
    by their distance to π*, and it grows without bound as π(y|x) goes to 0."""
    inside = WORLD.reward - BETA * LOG_Z.unsqueeze(-1) - BETA * (BEST - WORLD.log_reference)
    assert inside.abs().max() < 1e-14
    rare = torch.tensor([[0.0, -50.0, -50.0, -50.0]] * 2).double().log_softmax(-1)
    unweighted = (WORLD.reward - BETA * LOG_Z.unsqueeze(-1) - BETA * (rare - WORLD.log_reference)).sum()
    assert unweighted > 10.0 > value_view(rare)


def test_the_gradients_weight_is_always_positive() -> None:
    """Not only where the reward is estimated wrongly: rightly ranked pairs pull too, if less."""
    assert (pair_weights(BEST, WORLD.log_reference, population(WORLD), BETA) > 0).all()
    rightly = Comparisons.of(torch.tensor([[[0.0, 1.0, 0.0, 0.0]] + [[0.0] * 4] * 3] * 2).double())
    policy = WORLD.log_reference + torch.tensor([3.0, -3.0, 0.0, 0.0]).double()
    policy = policy.log_softmax(-1)  # ranks y_1 over y_2 by 6 β
    gradient = table_gradient(policy, WORLD.log_reference, rightly, BETA)
    assert gradient[0, 0].item() == pytest.approx(-0.5 * BETA / (1 + math.exp(6 * BETA)))
    assert gradient[0, 0] < 0
