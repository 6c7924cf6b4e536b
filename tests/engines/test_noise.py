"""Noise belongs to its place, and is exponential."""

from __future__ import annotations

import math

import torch

from likelier.engines.noise import draw_key, exponential_noise


def keys(count: int, *, seed: int = 0) -> torch.Tensor:
    return torch.tensor([draw_key(seed, "prompt", 0, position) for position in range(count)])


def test_a_row_does_not_depend_on_the_others() -> None:
    many = exponential_noise(keys(5), 1000)
    alone = exponential_noise(keys(5)[3:4], 1000)
    assert torch.equal(many[3], alone[0])


def test_every_part_of_the_place_counts() -> None:
    places = [(0, "a", 0, 0), (1, "a", 0, 0), (0, "b", 0, 0), (0, "a", 1, 0), (0, "a", 0, 1), (0, "a1", 0, 0)]
    assert len({draw_key(*place) for place in places}) == len(places)


def test_keys_survive_strange_ids() -> None:
    assert draw_key(0, "\ud800", 0, 0) != draw_key(0, "\0", 0, 0)


def test_the_distribution_is_exponential() -> None:
    noise = exponential_noise(keys(64), 4096).double().flatten()
    assert noise.min() > 0
    # Kolmogorov-Smirnov at n = 262,144: 0.0038 is the 0.1 % quantile.
    ordered = noise.sort().values
    expected = 1 - torch.exp(-ordered)
    steps = torch.arange(1, len(ordered) + 1, dtype=torch.float64) / len(ordered)
    assert (expected - steps).abs().max() < 0.0038


def test_neighbours_are_independent() -> None:
    noise = exponential_noise(keys(64), 4096).double() - 1
    bound = 4 / math.sqrt(noise.numel())
    assert (noise[:, 1:] * noise[:, :-1]).mean().abs() < bound
    assert (noise[1:] * noise[:-1]).mean().abs() < bound


def test_the_winner_is_uniform_over_equal_weights() -> None:
    winners = exponential_noise(keys(20_000), 16).argmin(dim=-1).bincount(minlength=16).double()
    chi_square = ((winners - 1250) ** 2 / 1250).sum()
    assert chi_square < 37.7  # 15 degrees of freedom, 0.1 %
