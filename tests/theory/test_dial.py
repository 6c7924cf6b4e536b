"""The β dial against optima worked out at the other β; the per-token form where it is exact, and where it is not."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likelier.theory.dial import dial, dial_curve, per_token_dial
from likelier.theory.dial_statements import dial_curves, sequence_statements, statements
from likelier.theory.dial_worlds import SMALL, dial_worlds, first_token_world, independent_world, rare_world
from likelier.theory.optimum import frontier, optimal_policy, place
from likelier.theory.sequences import Sequences, random_sequence_world
from likelier.theory.world import World
from tests.theory.worlds import betas, worlds


@given(st.integers(0, 2**31), st.integers(1, 6), st.floats(-5, 5), st.floats(0.01, 4.0), st.booleans())
@settings(max_examples=80, deadline=None)
def test_the_dial_is_the_optimum_at_the_other_beta(
    seed: int, completions: int, exponent: float, strength: float, hole: bool
) -> None:
    """math.md (14) in random worlds, with one completion, with β tiny and huge, with π_ref = 0 somewhere."""
    world = World.random(seed, completions=completions)
    if hole and completions > 1:
        logits = world.log_reference.clone()
        logits[0, 0] = -torch.inf
        world = World.of(logits, world.reward)
    beta = 10.0**exponent
    policy = optimal_policy(world.log_reference, world.reward, beta)
    mixed = dial(world.log_reference, policy, strength)
    wanted = optimal_policy(world.log_reference, world.reward, beta / strength)
    scale = max(1.0, float(world.reward.abs().max()) * max(1.0, strength) / beta)
    assert torch.equal(mixed == -torch.inf, wanted == -torch.inf)
    error = torch.where(wanted == -torch.inf, 0.0, mixed - wanted).abs().max() / scale
    assert error < 1e-10


@given(worlds(full_support=False), betas)
@settings(max_examples=40, deadline=None)
def test_the_statement_holds_in_degenerate_worlds(world: World, beta: float) -> None:
    assert all(statement.holds for statement in statements(world, beta))


def test_the_statement_fails_for_a_wrong_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    """β' = βλ in place of β/λ."""
    from likelier.theory import dial_statements

    monkeypatch.setattr(dial_statements, "dial", lambda reference, policy, s: dial(reference, policy, 1 / s))
    assert not statements(World.random(0), 1.0)[0].holds


def test_the_ends_of_the_dial() -> None:
    world = World.random(1)
    policy = optimal_policy(world.log_reference, world.reward, 0.3)
    assert torch.equal(dial(world.log_reference, policy, 0.0), world.log_reference)
    assert torch.allclose(dial(world.log_reference, policy, 1.0), policy, atol=1e-14)
    for wrong in (-0.5, math.nan, math.inf):
        with pytest.raises(ValueError, match="λ must be 0 or more"):
            dial(world.log_reference, policy, wrong)


@pytest.mark.parametrize("strength", [0.3, 1.7])
@pytest.mark.parametrize("seed", range(3))
def test_per_token_is_exact_for_one_token(strength: float, seed: int) -> None:
    one = Sequences(letters="abc", length=1)
    _same(one, random_sequence_world(one, seed), strength)


@pytest.mark.parametrize("strength", [0.3, 1.7])
@pytest.mark.parametrize("seed", range(3))
def test_per_token_is_exact_where_the_first_token_decides(strength: float, seed: int) -> None:
    _same(SMALL, first_token_world(seed=seed), strength)


@pytest.mark.parametrize("strength", [0.3, 1.7])
@pytest.mark.parametrize("seed", range(3))
def test_per_token_is_exact_for_independent_tokens_of_fixed_number(strength: float, seed: int) -> None:
    _same(SMALL, independent_world(seed=seed), strength)


def _same(sequences: Sequences, world: World, strength: float) -> None:
    policy = optimal_policy(world.log_reference, world.reward, 0.5)
    own = per_token_dial(sequences, world.log_reference, policy, strength).exp()
    assert (own - dial(world.log_reference, policy, strength).exp()).abs().max() < 1e-13


def test_per_token_is_not_exact_elsewhere() -> None:
    """By hand: after b the soft value is log(0.98·e⁻¹ + 0.02·e⁴) at β = 1, and half of log(0.98·e⁻² + 0.02·e⁸) at ½."""
    sequences = Sequences(letters="ab", length=2)
    world = rare_world(sequences)
    policy = optimal_policy(world.log_reference, world.reward, 1.0)
    own = per_token_dial(sequences, world.log_reference, policy, 2.0).exp()[0]
    exact = dial(world.log_reference, policy, 2.0).exp()[0]
    starts_b = [y.startswith("b") for y in sequences.completions]
    once, twice = 0.98 * math.exp(-1) + 0.02 * math.exp(4), 0.98 * math.exp(-2) + 0.02 * math.exp(8)
    assert math.isclose(float(own[starts_b].sum()), once**2 / (once**2 + 2), rel_tol=1e-12)
    assert math.isclose(float(exact[starts_b].sum()), twice / (twice + 2), rel_tol=1e-12)


def test_a_curves_numbers_are_those_of_its_policies() -> None:
    named = dial_worlds()[3]
    curve = dial_curve(named.sequences, named.world, beta=0.7, strengths=(0.0, 0.5, 1.0, 2.0), name="w")
    policy = optimal_policy(named.world.log_reference, named.world.reward, 0.7)
    for strength, kl, reward in zip(curve.strengths, curve.kl, curve.reward, strict=True):
        mixed = per_token_dial(named.sequences, named.world.log_reference, policy, strength)
        assert place(named.world, mixed) == (kl, reward)
    for at, beta in ((1, 1.4), (2, 0.7), (3, 0.35)):
        (wanted,) = frontier(named.world, [beta])
        assert math.isclose(curve.frontier[at][0], wanted.kl, rel_tol=1e-10)
        assert math.isclose(curve.frontier[at][1], wanted.reward, rel_tol=1e-10)
    assert abs(curve.loss[0]) < 1e-7
    assert abs(curve.loss[2]) < 1e-7


def test_the_loss_at_equal_kl_is_against_every_policy() -> None:
    """A second way to the frontier's height: a fine grid of β, interpolated."""
    named = dial_worlds()[-1]
    curve = dial_curve(named.sequences, named.world, beta=1.0, strengths=(1.5,), name="w")
    grid = frontier(named.world, [10 ** (-k / 400) for k in range(-400, 800)])
    above = next(index for index, point in enumerate(grid) if point.kl > curve.kl[0])
    low, high = grid[above - 1], grid[above]
    share = (curve.kl[0] - low.kl) / (high.kl - low.kl)
    height = low.reward + share * (high.reward - low.reward)
    assert math.isclose(curve.best[0], height, abs_tol=1e-4)
    assert curve.loss[0] > 0.01


@pytest.mark.parametrize("beta", [0.2, 1.0, 5.0])
def test_statements_of_sequences_hold(beta: float) -> None:
    assert [statement.name for statement in sequence_statements(beta) if not statement.holds] == []


def test_the_picture_says_what_is_exact_and_what_is_not() -> None:
    lost = {curve.name: max(curve.lost_share) for curve in dial_curves()}
    assert max(lost["one token"], lost["first token decides"]) < 1e-6
    assert min(lost["length"], lost["random rewards"], lost["rare prize"]) > 3e-4
