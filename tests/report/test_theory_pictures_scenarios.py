"""Pictures of what breaks and of algorithms: every curve is there, named, and told apart without its colour."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from likelier.report import theory_pictures_algorithms as algorithms
from likelier.report import theory_pictures_scenarios as scenarios
from likelier.report.charts import errors_of
from likelier.stats import Estimate
from likelier.theory.displacement import displaced
from likelier.theory.frontiers import Distances, Frontiers, Plan, distances, frontiers
from likelier.theory.misspecified import circle, length_bias
from likelier.theory.scenarios import label_noise, sharpening
from likelier.theory.stability import stability
from likelier.theory.undetermined import undetermined
from likelier.theory.world import World

WORLD = World.random(21, prompts=1, completions=3)


def texts(svg: str) -> str:
    return "".join(ElementTree.fromstring(svg).itertext())


@pytest.fixture(scope="module")
def found() -> Frontiers:
    return frontiers(Plan(world=WORLD, comparisons=50, seeds=3, steps=5, betas=(0.3, 1.0)))


@pytest.fixture(scope="module")
def apart() -> Distances:
    return distances(WORLD, beta=0.5, counts=(30, 100), seeds=3, steps=5)


@pytest.mark.parametrize(
    ("picture", "named"),
    [
        (
            lambda: scenarios.sharpening_picture(sharpening(betas=(0.1, 10.0), sharpness=(1.0, 2.0))),
            ["DPO, β = 0.1", "IPO, β = 10", "spread of log-ratios, nats", "odds of the best answer"],
        ),
        (
            lambda: scenarios.noise_picture(label_noise(rates=(0.0, 0.1))),
            ["cDPO, told the rate", "robust DPO, told the rate", "labels turned round, %", "total variation"],
        ),
        (
            lambda: scenarios.length_picture(length_bias(slopes=(0.0, 0.5))),
            ["true reward", "the most at the same KL", "the reference", "length, tokens"],
        ),
        (
            lambda: scenarios.circle_picture(circle(strengths=(0.0, 1.0))),
            ["largest error of a preference", "total variation to π*", "circle's log-odds"],
        ),
        (
            lambda: scenarios.undetermined_picture(undetermined()),
            ["the same loss", "π*", "DPO from the reference", "completions, in two islands", "y5"],
        ),
        (
            lambda: scenarios.displacement_picture(displaced(steps=3)),
            ["never compared", "chosen", "rejected", "loss, nats", "step of gradient descent"],
        ),
    ],
)
def test_scenarios(picture, named) -> None:
    shown = texts(picture())
    assert [name for name in named if name not in shown] == []


def test_frontiers_show_every_algorithm_in_one_picture_or_the_other(found: Frontiers) -> None:
    with_beta = texts(algorithms.frontier_picture(found))
    without = texts(algorithms.frontier_picture(found, algorithms.WITHOUT_BETA, name="other"))
    assert [name for name in found.algorithms if name not in with_beta + without] == []
    assert "exact frontier" in with_beta
    assert "KL to the reference, nats" in without
    assert {*algorithms.WITH_BETA, *algorithms.WITHOUT_BETA} == set(found.algorithms)


def test_distances_and_rates(apart: Distances) -> None:
    shown = texts(algorithms.distance_picture(apart))
    assert all(
        name in shown for name in ("DPO", "hinge", "IPO", "comparisons in the sample", "units of reward")
    )
    rates = texts(
        algorithms.stability_picture(stability(WORLD, seeds=2, repeats=1, steps=3, rates=(0.1, 1.0)))
    )
    assert all(name in rates for name in ("DPO", "PPO", "PPO-GT", "learning rate of Adam, 3 steps"))


def test_intervals_are_as_long_as_they_say() -> None:
    """A value without an interval has no arms; an interval's arms end where it does."""
    alone, whole = (
        Estimate(value=2.0, n=1, clusters=1),
        Estimate(value=2.0, low=1.5, high=3.0, n=9, clusters=9),
    )
    assert errors_of([alone, whole]) == [[0.0, 0.5], [0.0, 1.0]]
    assert whole.scaled(100).interval == (150.0, 300.0)
    assert alone.scaled(100).interval is None
    assert (algorithms._high(alone), algorithms._high(whole)) == (2.0, 3.0)


def test_no_two_curves_differ_by_colour_alone() -> None:
    marks = [mark for _, _, mark in algorithms._LINES.values()]
    assert len(set(marks)) == len(marks)
    styles = [(dashes, mark) for _, dashes, mark in scenarios._NOISE_LINES.values()]
    assert len(set(styles)) == len(styles)


def test_ids_differ_between_pictures_of_one_page(found: Frontiers) -> None:
    first, second = (
        algorithms.frontier_picture(found, names, name=name)
        for names, name in ((algorithms.WITH_BETA, "one"), (algorithms.WITHOUT_BETA, "two"))
    )
    ids = [
        {node.attrib["id"] for node in ElementTree.fromstring(svg).iter() if "id" in node.attrib}
        for svg in (first, second)
    ]
    assert ids[0] & ids[1] == set()
