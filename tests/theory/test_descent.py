"""Where objectives lead: the optimal policy where comparisons cover the support, and what is open where they do not."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from torch.nn.functional import logsigmoid

from likelier.objectives import OBJECTIVES, resolve, stepwise
from likelier.theory.comparisons import Comparisons, components, is_decided_by_all, population, sample
from likelier.theory.descent import Training, descend
from likelier.theory.optimum import optimal_policy, total_variation
from likelier.theory.policies import log_linear, softmax_table
from likelier.theory.preference_models import by_reward, deterministic
from likelier.theory.world import World
from tests.theory.small_worlds import worlds

BETAS = st.sampled_from([1e-4, 1e-3, 0.1, 1.0, 30.0, 1e6])


def training(world, beta, loss="sigmoid", **options):
    return Training(objective=resolve(loss), log_reference=world.log_reference, beta=beta, options=options)


def distance(log_policy, other):
    return float(total_variation(log_policy, other).max())


@given(worlds(), BETAS)
@settings(max_examples=20, deadline=None)
def test_dpo_reaches_the_optimal_policy_of_any_world(world, beta):
    """Degenerate ones too: one completion, equal rewards, probabilities near 0, β small and large."""
    if int(world.support.sum(dim=1).max()) == 1:
        return
    found = descend(training(world, beta), population(world))
    best = optimal_policy(world.log_reference, world.reward, beta)
    assert found.outcome == "minimum"
    assert distance(found.log_policy, best) < 1e-10
    assert found.undetermined == 0


def test_prompts_are_put_together_again():
    """Each is descended alone; the loss and the gradient are those of the whole, of prompts asked unequally often."""
    world = World.random(8, prompts=3, completions=3)
    comparisons = population(world)
    mine = training(world, 0.5, "ipo_sum")
    found = descend(mine, comparisons)
    assert found.loss == pytest.approx(float(mine.loss(comparisons, found.log_policy)), abs=1e-15)
    at = found.log_policy.clone().requires_grad_(True)
    mine.loss(comparisons, at.log_softmax(dim=-1)).backward()
    assert float(at.grad.norm()) < 1e-13


def test_without_the_log_dpo_does_not_recover_the_optimum():
    """The note prints the loss without the log (math.md, "Where the note slips"): `−σ(u)` is another loss."""

    def without_log(policy, reference, lengths, beta):
        ratio = policy - reference
        return -torch.sigmoid(beta * (ratio[:, 0] - ratio[:, 1]))

    world = World.random(0)
    found = descend(training(world, 1.0, without_log), population(world))
    assert distance(found.log_policy, optimal_policy(world.log_reference, world.reward, 1.0)) > 0.1


def test_the_descent_agrees_with_scipy():
    world = World.random(3, prompts=1, completions=4)
    drawn = sample(population(world), 60, seed=0)
    mine = training(world, 0.5)
    policies = softmax_table(world.log_reference)

    def value_and_gradient(point):
        at = torch.tensor(point, requires_grad=True)
        loss = mine.loss(drawn, policies.log_policy(at))
        loss.backward()
        return float(loss.detach()), at.grad.numpy()

    theirs = minimize(value_and_gradient, np.zeros(4), jac=True, method="BFGS", options={"gtol": 1e-9})
    found = descend(mine, drawn)
    assert found.loss == pytest.approx(theirs.fun, abs=1e-12)
    assert distance(found.log_policy, policies.log_policy(torch.tensor(theirs.x))) < 1e-7


@given(st.integers(0, 10_000), st.integers(1, 15), st.sampled_from([0.1, 2.0]))
@settings(max_examples=15, deadline=None)
def test_a_finite_optimum_exists_exactly_where_wins_go_round(seed, count, beta):
    """Ford's condition on the graph, against what the descent sees."""
    world = World.random(seed, prompts=1, completions=3)
    drawn = sample(population(world), count, seed=seed)
    found = descend(training(world, beta), drawn)
    assert found.outcome == ("minimum" if is_decided_by_all(drawn, world) else "unattained")


def islands(world, groups, seed):
    """All comparisons within groups of completions, none between them; one prompt."""
    shown = torch.zeros(1, *world.reward.shape[1:] * 2, dtype=torch.float64)
    for group in groups:
        for i, j in itertools.permutations(group, 2):
            shown[0, i, j] = 1.0
    return population(world, pairs=shown)


@pytest.mark.parametrize("groups", [[(0, 1, 2), (3, 4)], [(0, 1), (2, 3)], [(0, 4)], [(0, 1, 2, 3, 4)]])
def test_what_is_not_compared_is_not_determined(groups):
    """Within an island the policy is π* given the island; the islands' masses are open, one direction each but one."""
    world = World.random(11, prompts=1, completions=5)
    comparisons = islands(world, groups, 0)
    found = descend(training(world, 0.4), comparisons)
    labels = components(comparisons, world)[0]
    best = optimal_policy(world.log_reference, world.reward, 0.4)
    for label in labels.unique():
        inside = labels == label
        conditional, expected = (policy[0, inside].log_softmax(dim=0) for policy in (found.log_policy, best))
        assert torch.allclose(conditional, expected, atol=1e-9)
    assert found.undetermined == int(labels.max())
    # Another split of the mass between islands has the same loss: the data cannot tell.
    moved = (found.log_policy + labels.double() * 0.7).log_softmax(dim=-1)
    mine = training(world, 0.4)
    assert float(mine.loss(comparisons, moved)) == pytest.approx(found.loss, abs=1e-13)


def test_hinge_ends_at_the_vertex_that_linear_programming_finds():
    """`E max(0, 1 − βd)` is piecewise linear: an independent solver gives its minimum."""
    world = World.random(5, prompts=1, completions=4)
    comparisons, beta = population(world), 0.8
    found = descend(training(world, beta, "hinge"), comparisons)
    pairs = len(comparisons.weight)
    rows = np.zeros((pairs, 4 + pairs))
    places = torch.stack([comparisons.winner, comparisons.loser], dim=1).tolist()
    for row, (winner, loser) in enumerate(places):
        rows[row, winner], rows[row, loser], rows[row, 4 + row] = -beta, beta, -1.0
    cost = np.concatenate([np.zeros(4), comparisons.weight.numpy()])
    bounds = [(None, None)] * 4 + [(0, None)] * pairs
    best = linprog(cost, A_ub=rows, b_ub=-np.ones(pairs), bounds=bounds)
    assert found.outcome == "kink"
    assert found.loss == pytest.approx(best.fun, abs=1e-6)


def test_deterministic_labels_have_no_optimum_whatever_beta():
    world = World.random(2, prompts=2, completions=3)
    comparisons = population(world, chances=deterministic(world.reward))
    for beta in (0.01, 1.0, 50.0):
        assert descend(training(world, beta), comparisons).outcome == "unattained"
    falling = descend(training(world, 1.0, "robust", label_smoothing=0.1), comparisons)
    assert falling.outcome == "unbounded"


def test_a_shared_parameter_stops_where_its_gradient_does():
    """One parameter, two pairs that pull it both ways: the optimum solves a scalar equation, by bisection."""
    world = World.uniform(torch.zeros(1, 3, dtype=torch.float64))
    wins = torch.zeros(1, 3, 3, dtype=torch.float64)
    wins[0, 0, 1], wins[0, 1, 2] = 0.75, 0.25
    features = torch.tensor([[[1.0], [0.0], [2.0]]], dtype=torch.float64)
    found = descend(
        training(world, 1.0), Comparisons.of(wins), family=log_linear(world.log_reference, features)
    )
    low, high = -50.0, 50.0
    for _ in range(200):
        middle = (low + high) / 2
        pull = 0.75 / (1 + np.exp(middle)) - 0.25 * 2 / (1 + np.exp(-2 * middle))
        low, high = (middle, high) if pull > 0 else (low, middle)
    assert float(found.parameters) == pytest.approx(low, abs=1e-10)


@pytest.mark.parametrize("name", ["plackett_luce", "sft"])
def test_other_kinds_are_asked_about_pairs(name):
    """A ranking of two is a pair; imitation reads the winner alone."""
    world = World.random(1)
    comparisons = population(world)
    policy = optimal_policy(world.log_reference, world.reward, 2.0)
    found = training(world, 0.7, name).losses(comparisons, policy)
    if name == "sft":
        expected = -policy[comparisons.prompt, comparisons.winner]
    else:
        ratio = policy - world.log_reference
        gap = ratio[comparisons.prompt, comparisons.winner] - ratio[comparisons.prompt, comparisons.loser]
        expected = -logsigmoid(0.7 * gap)
    assert torch.allclose(found, expected, atol=1e-14)


def test_what_has_no_population_loss_is_refused():
    world = World.random(0)
    with pytest.raises(ValueError, match="scores"):
        training(world, 0.1, OBJECTIVES["listwise"])

    @stepwise
    def whole_step(policy, reference, lengths, beta):
        return policy[:, 1] - policy[:, 0]

    with pytest.raises(ValueError, match="whole step"):
        training(world, 0.1, whole_step)


def test_lengths_are_those_of_the_completions():
    world = World.random(0, prompts=1, completions=3)
    lengths = torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64)
    chances = by_reward(world.reward)
    mine = Training(objective=resolve("ipo"), log_reference=world.log_reference, beta=0.5, lengths=lengths)
    found = descend(mine, population(world, chances=chances))
    # Its optimum in v = log-ratio / length is that of ipo_sum in v: solve that least-squares problem by hand.
    rows, targets = [], []
    for i, j in itertools.combinations(range(3), 2):
        row = np.zeros(3)
        row[i], row[j] = 1.0, -1.0
        rows.append(row)
        targets.append(float(2 * chances[0, i, j] - 1))
    values = np.linalg.lstsq(np.array(rows), np.array(targets), rcond=None)[0]
    ratio = (found.log_policy - world.log_reference)[0] / lengths[0]
    assert np.allclose(ratio - ratio[0], values - values[0], atol=1e-9)
