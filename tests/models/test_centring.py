"""Centring: the mean is gone, no other direction with that would add less spread, and the spread is told honestly."""

import pytest
import torch

from likelier.models.centring import centring


def states(count, width, *, offset, seed=0):
    noise = torch.Generator().manual_seed(seed)
    scales = torch.linspace(0.2, 3.0, width, dtype=torch.float64)
    return torch.randn(count, width, generator=noise, dtype=torch.float64) * scales + offset


def head(width, seed=1):
    return torch.randn(width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_mean_is_gone_and_differences_hardly_move():
    given, weight = states(600, 16, offset=1.5), head(16)
    found = centring(given, weight)
    before, after = given @ weight, given @ (weight - found.shift)
    assert abs(float(after.mean())) < 1e-12
    assert found.mean == pytest.approx(float(before.mean()), rel=1e-12)
    moved = (after - before + found.mean).std(correction=0) / before.std(correction=0)
    assert float(moved) == pytest.approx(found.spread, rel=0.3)


def test_no_direction_with_that_mean_adds_less():
    """Lagrange's condition: Σa is a multiple of μ. With many states the ridge is nothing."""
    given, weight = states(200_000, 4, offset=0.7), head(4)
    shift = centring(given, weight).shift
    covariance = torch.cov(given.T, correction=0)
    pull = covariance @ shift / given.mean(0)
    assert float((pull - pull.mean()).abs().max() / pull.mean().abs()) < 5e-3


def test_the_spread_is_that_of_new_states():
    """With fewer states than dimensions a shift without spread can always be fitted; on others it has one."""
    given, weight = states(40, 64, offset=0.3), head(64)
    found = centring(given, weight)
    fresh = states(20_000, 64, offset=0.3, seed=5) @ found.shift
    deviation = float((given @ weight).std(correction=0))
    assert float((given @ found.shift).std(correction=0)) < 0.7 * float(fresh.std(correction=0))
    assert found.spread > 0.5 * float(fresh.std(correction=0)) / deviation


def test_beyond_a_twentieth_of_a_deviation_it_is_not_allowed():
    weight = head(16)
    assert centring(states(500, 16, offset=20.0), weight).allowed
    found = centring(states(500, 16, offset=0.05), weight)
    assert not found.allowed
    assert found.spread > 0.05


@pytest.mark.parametrize("offset", [0.0, 2.0])
def test_a_head_of_zero_has_nothing_to_centre(offset):
    found = centring(states(30, 8, offset=offset), torch.zeros(8))
    assert (found.mean, found.spread, found.allowed) == (0.0, 0.0, True)
    assert not found.shift.any()
