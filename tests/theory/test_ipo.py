"""IPO's own problem: its closed form against brute force, and against the descent on its loss."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from likelier.objectives import OBJECTIVES
from likelier.theory.comparisons import population, reference_pairs
from likelier.theory.descent import Training, descend
from likelier.theory.ipo import ipo_optimal_policy, uniform_opponents
from likelier.theory.optimum import total_variation
from likelier.theory.preference_models import deterministic, in_circles
from likelier.theory.world import World
from tests.theory.small_worlds import worlds


def test_the_closed_form_is_the_maximum_of_what_ipo_asks_for():
    """`E_{y∼π, y'∼μ}[p(y ≻ y')] − β KL(π‖π_ref)`, climbed by scipy from the reference."""
    world = World.random(6, prompts=1, completions=4)
    chances, beta = in_circles(world.reward, 1.0), 0.3
    opponents = uniform_opponents(world.log_reference)
    reference, wins = world.log_reference[0].numpy(), chances[0].numpy().mean(axis=1)

    def loss(logits):
        policy = np.exp(logits - np.logaddexp.reduce(logits))
        return -(policy @ wins) + beta * policy @ (np.log(policy) - reference)

    best = minimize(loss, reference, method="BFGS", options={"gtol": 1e-9})
    found = ipo_optimal_policy(world.log_reference, chances, opponents, beta)
    assert loss(found[0].numpy()) == pytest.approx(best.fun, abs=1e-12)
    assert np.allclose(found[0].exp(), np.exp(best.x - np.logaddexp.reduce(best.x)), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(worlds(least=2), st.sampled_from([0.05, 1.0, 20.0]), st.booleans())
def test_ipo_sum_solves_it_where_pairs_are_draws_of_the_opponents(world, beta, by_reference):
    """Any preferences, here certain ones: opponents are those that the pairs were drawn from."""
    if by_reference and float(world.log_reference.exp().amax()) > 0.999:
        return
    opponents = world.log_reference if by_reference else uniform_opponents(world.log_reference)
    pairs = reference_pairs(world) if by_reference else None
    chances = deterministic(world.reward)
    training = Training(objective=OBJECTIVES["ipo_sum"], log_reference=world.log_reference, beta=beta)
    found = descend(training, population(world, chances=chances, pairs=pairs))
    expected = ipo_optimal_policy(world.log_reference, chances, opponents, beta)
    assert found.outcome == "minimum"
    assert float(total_variation(found.log_policy, expected).max()) < 1e-9
    ratios = (found.log_policy - world.log_reference)[world.support]
    assert float(ratios.max() - ratios.min()) <= 1 / beta + 1e-9 or len(world.prompts) > 1
