"""Comparisons: the exact population, samples of it, what is compared with what."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likelier.theory.comparisons import (
    Comparisons,
    components,
    is_decided_by_all,
    population,
    reference_pairs,
    sample,
    sample_weights,
    uniform_pairs,
)
from likelier.theory.preference_models import by_reward, deterministic, flipped, in_circles, through_link
from likelier.theory.world import World, WorldError
from tests.theory.small_worlds import worlds

RAGGED = World.of(
    torch.tensor([[0.0, 0.0, -torch.inf], [0.0, 1.0, 2.0]], dtype=torch.float64),
    torch.tensor([[1.0, 0.0, 9.0], [0.0, 0.5, 2.0]], dtype=torch.float64),
    torch.tensor([0.25, 0.75], dtype=torch.float64),
)


def table(comparisons, world):
    prompts, completions = world.reward.shape
    return comparisons.wins(completions, prompts=prompts)


def test_the_population_by_hand():
    """A quarter of the comparisons are of the first prompt, all of its only pair; the others share three pairs."""
    wins = table(population(RAGGED), RAGGED)
    sigma = 1 / (1 + math.exp(-1.0))
    assert wins[0, 0, 1] == pytest.approx(0.25 * sigma, abs=1e-15)
    assert wins[0, 1, 0] == pytest.approx(0.25 * (1 - sigma), abs=1e-15)
    assert float(wins[0, 2].sum() + wins[0, :, 2].sum()) == 0.0
    assert wins[1, 2, 0] == pytest.approx(0.75 / 3 / (1 + math.exp(-2.0)), abs=1e-15)


def test_pairs_of_the_reference_are_two_draws():
    """Counted over all pairs of draws, the equal ones thrown away."""
    shown = reference_pairs(RAGGED)[1]
    probability = RAGGED.log_reference[1].exp().tolist()
    unequal = 1 - sum(p * p for p in probability)
    for i, j in itertools.product(range(3), repeat=2):
        expected = 0.0 if i == j else probability[i] * probability[j] / unequal
        assert shown[i, j] == pytest.approx(expected, abs=1e-15)


@given(worlds(), st.sampled_from([uniform_pairs, reference_pairs]), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_any_population_adds_up_and_respects_the_support(world, pairs, rate):
    if int(world.support.sum(dim=1).max()) == 1:
        with pytest.raises(WorldError, match="no comparison"):
            population(world)
        return
    chances = flipped(by_reward(world.reward), rate)
    found = population(world, chances=chances, pairs=pairs(world))
    assert float(found.weight.sum()) == pytest.approx(1.0, abs=1e-12)
    assert bool(
        world.support[found.prompt, found.winner].all() and world.support[found.prompt, found.loser].all()
    )
    wins = table(found, world)
    both = wins + wins.mT
    assert torch.allclose(
        torch.where(both > 0, wins - both * chances, 0.0), torch.zeros_like(wins), atol=1e-15
    )


def test_which_of_two_is_shown_first_says_nothing():
    shown = torch.zeros(2, 3, 3, dtype=torch.float64)
    shown[0, 0, 1] = shown[1, 0, 2] = 1.0
    wins = table(population(RAGGED, pairs=shown), RAGGED)
    assert float(wins[1, 2, 0] / wins[1, 0, 2]) == pytest.approx(math.exp(2.0))
    assert float(wins[0].sum()) == pytest.approx(0.25)


def test_a_completion_outside_the_support_is_not_compared():
    with pytest.raises(WorldError, match="reference probability 0"):
        population(RAGGED, pairs=torch.ones(2, 3, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("wins", "said"),
    [
        (torch.zeros(1, 2, 2), "no comparison"),
        (torch.ones(1, 2, 2), "with itself"),
        (torch.tensor([[[0.0, math.nan], [1.0, 0.0]]]), "no comparison"),
    ],
)
def test_wins_that_are_none(wins, said):
    with pytest.raises(WorldError, match=said):
        Comparisons.of(wins.double())


def test_weights_that_do_not_add_up_are_refused():
    place = torch.tensor([0])
    with pytest.raises(WorldError, match=r"add up to 0\.5"):
        Comparisons(prompt=place, winner=place, loser=place + 1, weight=torch.tensor([0.5]).double())


def test_a_sample_is_the_population_in_the_long_run():
    """Every share within five standard errors."""
    whole = population(RAGGED)
    count = 40_000
    weights = sample_weights(whole, count, seeds=[3])[0]
    error = (whole.weight * (1 - whole.weight) / count).sqrt()
    assert bool(((weights - whole.weight).abs() < 5 * error).all())
    drawn = sample(whole, 3, seed=1)
    assert drawn.weight.numel() <= 3
    assert float(drawn.weight.sum()) == pytest.approx(1.0)


def test_every_seed_is_its_own_sample_wherever_it_stands():
    whole = population(RAGGED)
    both = sample_weights(whole, 50, seeds=[4, 5])
    assert torch.equal(both[1], sample_weights(whole, 50, seeds=[5])[0])
    assert not torch.equal(both[0], both[1])


def test_other_preference_models_by_hand():
    reward = torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64)
    assert deterministic(reward)[0].tolist() == [[0.5, 0.5, 1.0], [0.5, 0.5, 1.0], [0.0, 0.0, 0.5]]
    normal = through_link(reward, torch.special.ndtr)
    assert float(normal[0, 0, 2]) == pytest.approx(0.5 * (1 + math.erf(1 / math.sqrt(2))), abs=1e-15)
    circle = in_circles(torch.zeros(1, 3).double(), math.log(3))
    assert [float(circle[0, i, (i + 1) % 3]) for i in range(3)] == pytest.approx([0.75] * 3)
    even = in_circles(torch.zeros(1, 4).double(), 5.0)
    assert float(even[0, 0, 2]) == 0.5


@pytest.mark.parametrize("chances", [by_reward, deterministic, lambda r: in_circles(r, 0.7)])
def test_one_of_two_is_preferred(chances):
    found = chances(RAGGED.reward)
    assert torch.allclose(found + found.mT, torch.ones_like(found), atol=1e-15)


def test_a_link_that_favours_the_first_is_refused():
    with pytest.raises(ValueError, match="symmetric"):
        through_link(RAGGED.reward, lambda gap: torch.sigmoid(gap + 1.0))


def reachable(wins, undirected):
    """Warshall's closure of the wins, by three loops: a second implementation."""
    size = len(wins)
    near = [
        [i == j or wins[i][j] > 0 or (undirected and wins[j][i] > 0) for j in range(size)]
        for i in range(size)
    ]
    for k, i, j in itertools.product(range(size), repeat=3):
        near[i][j] = near[i][j] or (near[i][k] and near[k][j])
    return near


@given(st.lists(st.lists(st.integers(0, 2), min_size=5, max_size=5), min_size=5, max_size=5))
@settings(max_examples=80, deadline=None)
def test_components_are_what_can_be_reached(numbers):
    wins = torch.tensor(numbers).double().fill_diagonal_(0)
    if float(wins.sum()) == 0:
        return
    world = World.uniform(torch.zeros(1, 5, dtype=torch.float64))
    comparisons = Comparisons.of(wins[None])
    either, ahead = reachable(wins.tolist(), True), reachable(wins.tolist(), False)
    found = components(comparisons, world)[0].tolist()
    pairs = list(itertools.product(range(5), repeat=2))
    assert all((found[i] == found[j]) == either[i][j] for i, j in pairs)
    assert is_decided_by_all(comparisons, world) == all(ahead[i][j] for i, j in pairs if either[i][j])
