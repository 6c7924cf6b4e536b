"""Descent to a minimum, or the word that there is none, on functions whose answer is known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import softplus

from likelier.theory.kinks import _shortest, stationary_point
from likelier.theory.minimise import derivatives, minimise


def start(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("probability", [0.5, 0.9, 1e-3, 1e-8])
def test_the_log_odds_are_found_at_any_scale(probability, scale):
    def loss(x):
        u = scale * x
        return (probability * softplus(-u) + (1 - probability) * softplus(u)).sum()

    found = minimise(loss, start(0.0), scale=scale, reach=1e9)
    expected = math.log(probability / (1 - probability))
    assert found.outcome == "minimum"
    assert float(found.point * scale) == pytest.approx(expected, abs=1e-16 / probability + 1e-10)


@pytest.mark.parametrize(
    "tail",
    [
        lambda x: softplus(-x).sum(),
        lambda x: softplus(-1e-4 * x).sum(),
        lambda x: torch.sigmoid(-x).sum(),
        lambda x: -torch.special.log_ndtr(x).sum(),
        lambda x: softplus(-x).sum() + (x - 1.0).square().sum() * 0 + softplus(-x).sum(),
    ],
)
def test_an_infimum_at_infinity_is_no_minimum(tail):
    point = start(0.0)
    scale = float(derivatives(tail, point)[1].abs())
    found = minimise(tail, point, scale=scale, reach=1e7)
    assert found.outcome == "unattained"
    assert not found.is_finite


def test_a_minimum_in_one_direction_and_none_in_another():
    found = minimise(
        lambda x: softplus(-x[0]) + 0.3 * softplus(-x[1]) + 0.7 * softplus(x[1]), start(0.0, 0.0), scale=1.0
    )
    assert found.outcome == "unattained"
    assert float(found.point[1]) == pytest.approx(math.log(3 / 7), abs=1e-6)


def test_a_function_without_a_floor():
    assert minimise(lambda x: -x.sum(), start(0.0, 0.0), scale=1.0).outcome == "unbounded"


def test_a_valley_is_found_though_its_curvature_is_negative_at_the_start():
    """Rosenbrock's function, and a double well from its top's slope."""
    rosenbrock = minimise(
        lambda x: (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2, start(-1.2, 1.0), scale=100.0
    )
    assert rosenbrock.outcome == "minimum"
    assert torch.allclose(rosenbrock.point, start(1.0, 1.0), atol=1e-9)
    well = minimise(lambda x: (x**2 - 1).square().sum(), start(0.1), scale=1.0)
    assert float(well.point) == pytest.approx(1.0, abs=1e-10)


def test_directions_without_curvature_are_counted_and_not_walked():
    found = minimise(lambda x: (x[0] + x[1] - 3.0) ** 2, start(0.0, 1.0, 5.0), scale=1.0)
    assert (found.outcome, found.flat) == ("minimum", 2)
    assert torch.allclose(found.point, start(1.0, 2.0, 5.0), atol=1e-12)


def test_a_kink_is_found_and_certified():
    """max of three planes: the minimum is where they meet, solved by hand at (1, 1)."""

    def roof(x):
        return torch.stack([x[0] + x[1], 4.0 - 2.0 * x[0], 4.0 - 2.0 * x[1]]).max()

    found = minimise(roof, start(-3.0, 7.0), scale=1.0)
    assert found.outcome == "kink"
    assert torch.allclose(found.point, start(1.0, 1.0), atol=1e-6)
    assert found.gradient_norm <= 1e-7


def test_a_slope_is_not_taken_for_a_kink():
    assert not stationary_point(lambda x: -x.sum(), start(0.0), scale=1.0).is_stationary


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_the_shortest_vector_of_a_hull(points):
    """Against all points and all segments between two: in the plane the nearest lies there, or 0 is inside."""
    rows = np.array(points)
    best = min(np.linalg.norm(rows, axis=1))
    for a in rows:
        for b in rows:
            step = b - a
            share = 0.0 if not step.any() else np.clip(-a @ step / (step @ step), 0, 1)
            best = min(best, float(np.linalg.norm(a + share * step)))
    found = float(_shortest(torch.tensor(rows)).norm())
    assert found <= best + 1e-9
    if not _holds_origin(rows):
        assert found == pytest.approx(best, abs=1e-7)


def _holds_origin(rows):
    """Whether no half-plane through 0 holds all points, on a fine circle of directions."""
    angles = np.linspace(0, 2 * np.pi, 20_000)
    reach = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ rows.T
    return bool((reach.min(axis=1) <= 1e-9).all())
