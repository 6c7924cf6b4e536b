"""What breaks: every scenario's numbers against closed forms or another route, and what they say in words."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likelier.theory import algorithms, displacement, misspecified, scenarios
from likelier.theory.policies import log_linear, softmax_table
from likelier.theory.undetermined import undetermined
from likelier.theory.world import World
from tests.theory.small_worlds import worlds


def test_dpo_spreads_without_end_and_ipo_does_not():
    """On the ladder s, 0, −s: DPO 2 s/β; IPO's certain limit (5/6 − 1/6)/β."""
    sharpness = (0.5, 3.0, 9.0)
    found = scenarios.sharpening(betas=(0.1, 10.0), sharpness=sharpness)
    for beta in (0.1, 10.0):
        assert found.dpo[beta] == pytest.approx([2 * sharp / beta for sharp in sharpness], rel=1e-8)
        assert found.ipo_limit[beta] == pytest.approx(2 / 3 / beta)
        assert list(found.ipo[beta]) == sorted(found.ipo[beta])
        assert found.ipo[beta][-1] < found.ipo_limit[beta]
    assert found.odds == pytest.approx([math.exp(2 * sharp) for sharp in sharpness])
    assert "without end" in found.words
    assert "18.0 times" in found.words


def test_only_robust_dpo_that_is_told_the_rate_recovers():
    found = scenarios.label_noise(rates=(0.0, 0.2, 0.4))
    assert set(found.distances) == {"DPO", "cDPO", "robust DPO"}
    assert max(found.distances["robust DPO"]) < 1e-10
    for name in ("DPO", "cDPO"):
        assert found.distances[name][0] < 1e-10
        assert found.distances[name][2] > found.distances[name][1] > 0.05
    assert found.distances["cDPO"][1] > found.distances["DPO"][1]


def test_plain_dpo_under_noise_by_hand():
    """Two completions: the optimum's log-ratio is the log-odds of the flipped label over β."""
    world = World.uniform(torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    found = scenarios.label_noise(world, beta=1.0, rates=(0.25,))
    p = 1 / (1 + math.exp(-1))
    noisy, smoothed = 0.75 * p + 0.25 * (1 - p), 0.625 * p + 0.375 * (1 - p)
    assert found.distances["DPO"][0] == pytest.approx(p - noisy, abs=1e-12)
    # 1 − ε of the noisy label and ε of its opposite: flipped twice at ¼ is flipped at 3/8.
    assert found.distances["cDPO"][0] == pytest.approx(p - smoothed, abs=1e-12)


def test_length_is_bought_with_reward():
    found = misspecified.length_bias(slopes=(0.0, 0.3, 0.6))
    assert list(found.lengths) == sorted(found.lengths)
    assert found.places[0].reward == pytest.approx(found.reachable[0], abs=1e-8)  # no bias: on the frontier
    for point, most in zip(found.places[1:], found.reachable[1:], strict=True):
        assert point.reward < most - 1e-3
    assert found.places[2].reward < found.places[0].reward


def test_a_circle_with_equal_rewards_leaves_the_reference_as_it_is():
    found = misspecified.circle(strengths=(0.0, 1.0, 3.0))
    assert found.misfit[0] < 1e-10
    assert found.distances[0] < 1e-10
    assert found.misfit[2] > found.misfit[1] > 0.1
    assert found.thurstone > 0.05
    assert found.thurstone_misfit < 0.05
    even = World.uniform(torch.zeros(1, 3, dtype=torch.float64))
    chances = misspecified.in_circles(even.reward, 2.0)
    policy = misspecified._dpo(even, 0.3, chances)
    assert torch.allclose(policy, even.log_reference, atol=1e-12)


def test_the_chosen_answer_falls_while_the_loss_falls():
    found = displacement.displaced()
    assert all(later < earlier for earlier, later in zip(found.losses, found.losses[1:], strict=False))
    assert found.chosen[-1] < found.chosen[0] - 0.03
    assert found.elsewhere[-1] > found.elsewhere[0] + 0.1
    steps = zip(found.chosen, found.chosen[1:], found.signs, strict=False)
    for before, after, sign in steps:
        if abs(sign) > 0.05:  # to first order
            assert (after - before) * sign > 0
    total = [sum(parts) for parts in zip(found.chosen, found.rejected, found.elsewhere, strict=True)]
    assert total == pytest.approx([1.0] * len(total))


def test_islands_leave_their_masses_open():
    """Given its island a completion has π*'s probability; in all it has what the descent's way gave it."""
    found = undetermined()
    for part in (0, 1):
        inside = [place for place, label in enumerate(found.island) if label == part]
        best = sum(found.optimum[place] for place in inside)
        for place in inside:
            assert found.highest[place] == pytest.approx(found.optimum[place] / best, abs=1e-9)
    assert found.loss_gap < 1e-12
    first = [sum(curve[:2]) for curve in (found.optimum, found.reached)]
    assert abs(first[0] - first[1]) > 0.05
    assert f"ends at {first[1]:.0%}" in found.words


@given(st.integers(0, 1000), st.integers(2, 5))
@settings(max_examples=30, deadline=None)
def test_in_a_table_what_was_chosen_always_rises(seed, size):
    """One parameter a cell: `g_w = e_w − π`, so `|g_w|² − ⟨g_w, g_l⟩ = 1 − π_w + π_l > 0`."""
    draw = torch.randn(1, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    table = softmax_table(draw.log_softmax(dim=1))
    policy = draw.softmax(dim=1)[0].tolist()
    found = displacement.rise_of_chosen(table, table.start, 0, 1)
    assert found == pytest.approx(1 - policy[0] + policy[1], abs=1e-12)


def test_alike_answers_do_not_move_apart():
    """Equal features: both gradients are one, the sign is 0, nothing can be learned."""
    log_reference = torch.full((1, 2), 0.5, dtype=torch.float64).log()
    family = log_linear(log_reference, torch.ones(1, 2, 1, dtype=torch.float64))
    assert displacement.rise_of_chosen(family, family.start, 0, 1) == 0.0


@given(worlds(), st.sampled_from([0.02, 0.3, 1.0, 20.0]))
@settings(max_examples=5, deadline=None)
def test_the_statements_hold_in_any_world(world, beta):
    """Among them worlds of one completion, of equal rewards, with rows cut short."""
    made = [
        *displacement.statements(world, beta),
        *scenarios.statements(world, beta),
        *misspecified.statements(world, beta),
        *algorithms.statements(world, beta),
    ]
    assert [statement for statement in made if not statement.holds] == []
    if int(world.support.sum(dim=1).max()) > 2:
        assert len({statement.name for statement in made}) >= 9


def test_a_statement_fails_where_its_side_is_another(monkeypatch):
    """With a wrong optimum in its place each of them that speaks of π* is found out."""
    world = World.random(0)
    for module in (displacement, scenarios, misspecified):
        monkeypatch.setattr(module, "optimal_policy", lambda log_reference, reward, beta: log_reference)
    made = [
        *displacement.statements(world, 0.5),
        *scenarios.statements(world, 0.5),
        *misspecified.statements(world, 0.5),
    ]
    failed = {statement.name.split(":")[0] for statement in made if not statement.holds}
    assert failed == {
        "DPO's loss over all comparisons",
        "comparisons in islands",
        "labels flipped at ε",
        "labels that like length",
    }
