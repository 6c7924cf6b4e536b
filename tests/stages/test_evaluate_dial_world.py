"""The dial in worlds where everything is a sum: mixed tokens, reweighted answers, and what their intervals cover."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from likelier.engines.divergence import estimate_kl
from likelier.engines.mixing import at_strength
from likelier.engines.prompts import Prompt
from likelier.engines.sampling import SampledPrompt, sample
from likelier.stages.evaluate_dial import reweighted
from likelier.stats import mean_interval
from likelier.theory.dial import dial, per_token_dial
from likelier.theory.export import ModelWorld, model_world
from likelier.theory.letter_models import next_tokens_of, random_model
from likelier.theory.optimum import place
from likelier.theory.sequences import sequence_policy
from likelier.theory.shapes import Cells

STRENGTHS = (0.5, 2.0)


@pytest.fixture(scope="module")
def world() -> ModelWorld:
    """Two prompts, fifteen answers of at most three tokens."""
    return model_world(0, length=3, scale=1.0)


@pytest.fixture(scope="module")
def policy(world: ModelWorld) -> Any:
    """Halfway from the reference to another random model, by weights."""
    moved, other = random_model(world.sequences, 0), random_model(world.sequences, 7)
    moved.load_state_dict(world.model.state_dict())
    with torch.no_grad():
        for parameter, target in zip(moved.parameters(), other.parameters(), strict=True):
            parameter.lerp_(target, 0.25)
    return moved


def drawn(world: ModelWorld, model: Any, n: int) -> list[SampledPrompt]:
    prompts = [Prompt(id=prompt, content=prompt) for prompt in world.world.prompts]
    return sample(model, world.tokenizer, prompts, n=n, max_new_tokens=world.sequences.length)


def rewards_of(world: ModelWorld, sampled: list[SampledPrompt]) -> list[list[float]]:
    return [[world.reward(prompt.id, answer.text) for answer in prompt.completions] for prompt in sampled]


def exact(world: ModelWorld, log_policy: Cells) -> tuple[float, float]:
    at = place(world.world, log_policy)
    return at.reward, at.kl


@pytest.mark.parametrize("strength", STRENGTHS)
def test_the_mixture_is_the_exact_per_token_process(strength: float, world: ModelWorld, policy: Any) -> None:
    """Every answer's probability, and reward and KL of what is drawn within four standard errors."""
    log_policy = world.policy_of(policy)
    expected = per_token_dial(world.sequences, world.world.log_reference, log_policy, strength)
    mixture = at_strength(policy, world.model, strength)
    mixture.device = torch.device("cpu")
    table = next_tokens_of(mixture, world.sequences, world.world.prompts)
    # float64 but for a softmax of attention in float32.
    torch.testing.assert_close(sequence_policy(world.sequences, table), expected, rtol=0, atol=1e-9)
    sampled = drawn(world, mixture, 1500)
    kl = estimate_kl(mixture, world.model, sampled).values
    for values, truth in zip((rewards_of(world, sampled), kl), exact(world, expected), strict=True):
        means = [np.mean(own) for own in values]
        error = np.sqrt(sum(np.var(own, ddof=1) / len(own) for own in values)) / len(values)
        assert abs(np.mean(means) - truth) < 4 * error
    assert exact(world, expected) != pytest.approx(exact(world, log_policy), abs=0.02)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_reweighted_answers_are_the_exact_optimum(strength: float, world: ModelWorld, policy: Any) -> None:
    """math.md (14) over whole answers; the policy's own place is far away."""
    log_policy = world.policy_of(policy)
    truth = exact(world, dial(world.world.log_reference, log_policy, strength))
    sampled = drawn(world, policy, 3000)
    ratios = estimate_kl(policy, world.model, sampled, estimator="k1").values
    rewards = rewards_of(world, sampled)
    reward, kl, _, effective = reweighted(ratios, rewards, [[1.0] * 3000] * 2, strength)
    found = float(np.mean(reward)), float(np.mean(kl))
    spread = np.std(rewards) / np.sqrt(6000 * effective), np.std(ratios) * 2 / np.sqrt(6000 * effective)
    own = exact(world, log_policy)
    for value, wanted, error in zip(found, truth, spread, strict=True):
        assert abs(value - wanted) < 4 * error
    assert max(abs(w - b) / e for w, e, b in zip(truth, spread, own, strict=True)) > 8


@pytest.mark.parametrize("strength", [0.5, 1.5])
def test_intervals_of_reweighted_figures_cover(strength: float) -> None:
    """100 prompts of 16 answers. Log-ratios are normal of deviation s: KL(π_λ ‖ π_ref) is λ² s²/2, and E ℓ s² (λ − ½).

    Without the jackknife that of KL covers 89 % at λ = 1.5.
    """
    draws = np.random.default_rng(3)
    covered = np.zeros(2)
    for _ in range(1000):
        s = draws.uniform(0.3, 0.7, size=100)
        base = draws.normal(size=100)
        ratios = s[:, None] ** 2 / 2 + s[:, None] * draws.normal(size=(100, 16))
        rewards = base[:, None] + ratios + draws.normal(size=(100, 16))
        reward, kl, _, _ = reweighted(ratios.tolist(), rewards.tolist(), ratios.tolist(), strength)
        square = (0.7**3 - 0.3**3) / (3 * 0.4)  # E s²
        for index, (values, truth) in enumerate(
            ((reward, square * (strength - 0.5)), (kl, strength**2 * square / 2))
        ):
            covered[index] += not mean_interval([one[0] for one in values]).excludes(truth)
    assert ((covered >= 930) & (covered <= 970)).all(), covered
