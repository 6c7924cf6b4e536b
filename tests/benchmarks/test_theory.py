"""The recorded run of algorithms in small worlds: it runs, and its sentences follow from its numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.theory import SMALL, finding, main
from likelier.stats import Estimate
from likelier.theory.stability import Stability, stability
from likelier.theory.world import World


def test_the_small_run_writes_its_files(tmp_path: Path) -> None:
    assert main(["--small", "--out", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert results["settings"]["seeds"] == SMALL.seeds
    assert len(results["frontiers"][0]["points"]) > 20
    assert [found["beta"] for found in results["distances"][0]] == list(SMALL.betas)
    text = (tmp_path / "README.md").read_text("utf-8")
    for picture in tmp_path.glob("*.svg"):
        assert f"({picture.name})" in text
        svg = picture.read_text("utf-8")
        ElementTree.fromstring(svg)
        assert "var(--" not in svg


@pytest.fixture(scope="module")
def trial() -> Stability:
    return stability(World.random(0, prompts=1, completions=3), seeds=3, repeats=2, steps=3, rates=(0.1, 1.0))


def gained(*values: float) -> tuple[Estimate, ...]:
    return tuple(Estimate(value=value, n=3, clusters=3) for value in values)


@pytest.mark.parametrize(
    ("difference", "noise", "rates", "said"),
    [
        ((0.2, 0.1, 0.3), (0.1, 0.2), ((0.9, 0.6), (0.8, 0.1)), "is the stabler one, by all three"),
        ((-0.2, -0.3, -0.1), (0.2, 0.1), ((0.9, 0.1), (0.9, 0.8)), "no measure shows"),
        ((0.0, -0.1, 0.1), (0.1, 0.2), ((0.9, 0.6), (0.9, 0.6)), "by some measures and not by others"),
    ],
)
def test_the_finding_follows_from_the_numbers(trial, difference, noise, rates, said) -> None:
    value, low, high = difference
    shaped = replace(
        trial,
        difference=Estimate(value=value, low=low, high=high, n=3, clusters=3),
        own_noise={"DPO": (noise[0],) * 2, "PPO": (noise[1],) * 2, "PPO-GT": (0.0, 0.0)},
        gained={"DPO": gained(*rates[0]), "PPO": gained(*rates[1]), "PPO-GT": gained(1.0, 1.0)},
    )
    assert said in finding([shaped, shaped])
    assert finding([shaped]).startswith("In 1 trials")
