"""Pictures of a world: what they show is there, named, with units, and told apart without colour."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
import torch

from likelier.report.theory_pictures import _LINES, cost_picture, outline_picture, runaway_picture
from likelier.theory.outline import cost, outline, runaway
from likelier.theory.world import World

ALONE = World.of(torch.zeros(1, 1).double(), torch.zeros(1, 1).double())


def texts(svg: str) -> str:
    return "".join(ElementTree.fromstring(svg).itertext())


@pytest.mark.parametrize("world", [World.random(0), ALONE], ids=("random", "one completion"))
def test_the_outline_of_a_world(world: World) -> None:
    shown = texts(outline_picture(outline(world, 0.5)))
    for text in ("frontier", "best of N", "π*, β = 0.5", "KL to the reference, nats", "mean reward"):
        assert text in shown


def test_what_best_of_n_costs() -> None:
    found = cost(World.random(0))
    shown = texts(cost_picture(found))
    assert all(name in shown for name in found.curves)
    assert "KL to the reference, nats" in shown
    assert "100 equally likely 99 %" in found.words


def test_rewards_that_run_away() -> None:
    found = runaway(ridges=(1e-1, 1e-4))
    shown = texts(runaway_picture(found))
    assert all(f"wins {share}" in shown for share in found.gaps)
    assert "ridge λ" in shown


def test_no_two_curves_differ_by_colour_alone() -> None:
    assert len({(dashes, mark) for _, dashes, mark in _LINES}) == len(_LINES)


def test_the_outlines_numbers_lie_on_the_frontier() -> None:
    """π* at β is one of its points, and 1/β from 0 on climbs it."""
    found = outline(World.random(0), 0.5)
    rewards, costs = [place.reward for place in found.frontier], [place.kl for place in found.frontier]
    assert rewards == sorted(rewards)
    assert costs == sorted(costs)
    nearest = min(found.frontier, key=lambda place: abs(place.kl - found.optimum.kl))
    assert nearest.reward == pytest.approx(found.optimum.reward, abs=0.02)
