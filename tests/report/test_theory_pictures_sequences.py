"""Pictures of the dial and of the noise: every curve is there, named, and told apart without its colour."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
import torch

from likelier.report.theory_pictures_sequences import (
    _LINES,
    _NOISE_LINES,
    dial_frontier_picture,
    dial_loss_picture,
    noise_picture,
    variance_picture,
)
from likelier.theory.dial import DialCurve
from likelier.theory.dial_statements import dial_curves
from likelier.theory.dial_worlds import dial_worlds
from likelier.theory.variance_path import DPO, POLICY_GRADIENT, variance_curves
from likelier.theory.world import World


@pytest.fixture(scope="module")
def curves() -> list[DialCurve]:
    return dial_curves()


def texts(svg: str) -> str:
    return "".join(ElementTree.fromstring(svg).itertext())


def test_every_world_has_its_curve(curves: list[DialCurve]) -> None:
    shown = texts(dial_loss_picture(curves))
    assert all(named.name in shown for named in dial_worlds())
    assert "gain lost at equal KL, %" in shown
    assert len(_LINES) == len(curves)


def test_the_frontier_of_one_world(curves: list[DialCurve]) -> None:
    found = ElementTree.fromstring(dial_frontier_picture(curves[-1]))
    shown = [text.strip() for text in found.itertext()]
    assert "KL to the reference, nats per answer (at the points: λ)" in shown
    assert {"0.5", "1", "1.5", "2"} <= set(shown)


def test_every_estimate_has_its_curve() -> None:
    found = variance_curves(World.random(0), 1.0)
    needed, plain = texts(noise_picture(found)), texts(variance_picture(found))
    assert all(name in needed for name in _NOISE_LINES)
    assert DPO not in plain  # another function's gradient: its variance has other units
    assert {*_NOISE_LINES} <= {*POLICY_GRADIENT, DPO}


def test_no_two_curves_differ_by_colour_alone() -> None:
    """On a page, and printed in grey."""
    assert len({(dashes, mark) for _, dashes, mark in _LINES}) == len(_LINES)
    assert len({(dashes, mark) for _, dashes, mark in _NOISE_LINES.values()}) == len(_NOISE_LINES)


@pytest.mark.parametrize(
    "world",
    [
        World.uniform(torch.zeros(1, 1).double()),  # no noise and no signal
        World.uniform(torch.ones(2, 3).double()),  # noise without a signal: infinitely many answers
        World.random(0, scale=50.0),  # the path jumps to one answer
    ],
    ids=("alone", "equal", "far apart"),
)
def test_worlds_without_noise_or_signal_are_drawn(world: World) -> None:
    curves = variance_curves(world, 0.01)
    assert "π*" in texts(noise_picture(curves)) + texts(variance_picture(curves))
