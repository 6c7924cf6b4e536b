"""Agreement: by hand, against an independent library, and on real votes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from likelier.stats.agreement import alpha_interval, krippendorff_alpha, percent_agreement

# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", example C: four observers, twelve units, some
# values missing; nominal α = 0.743.
PUBLISHED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


def by_item(rows: list[list[Any]]) -> list[list[Any]]:
    return [[value for value in column if value is not None] for column in zip(*rows, strict=True)]


def test_the_published_example() -> None:
    assert krippendorff_alpha(by_item(PUBLISHED)) == pytest.approx(0.743, abs=5e-4)


def test_by_hand() -> None:
    """o_aa = 2 + 1/1·0 …: items aa, ab, bb, bb of two labels: o_aa 2, o_ab 1, o_ba 1, o_bb 4; n_a 3, n_b 5, n 8.
    α = 1 − 7 · 2 / (64 − 9 − 25) = 1 − 14/30."""
    labels = [["a", "a"], ["a", "b"], ["b", "b"], ["b", "b"]]
    assert krippendorff_alpha(labels) == pytest.approx(1 - 14 / 30, abs=1e-12)
    agreement = percent_agreement(labels)
    assert agreement is not None
    assert (agreement.value, agreement.n, agreement.clusters) == (0.75, 4, 4)


def test_items_with_fewer_than_two_labels_say_nothing() -> None:
    labels = [["a", "a"], ["a", "b"], ["b", "b"]]
    assert krippendorff_alpha([*labels, ["c"], []]) == krippendorff_alpha(labels)
    assert percent_agreement([["a"], []]) is None
    assert alpha_interval([["a"], []]) is None
    assert krippendorff_alpha([]) is None


def test_one_item_has_no_interval() -> None:
    alpha, agreement = alpha_interval([["a", "b"]]), percent_agreement([["a", "a"]])
    assert alpha is not None
    assert agreement is not None
    assert (alpha.value, alpha.interval) == (0.0, None)
    assert (agreement.value, agreement.interval) == (1.0, None)


def test_all_equal_is_undefined_and_full_agreement_is_not_certain() -> None:
    assert krippendorff_alpha([["a", "a"]] * 9) is None
    alpha = alpha_interval([["a", "a", "a"]] * 5 + [["b", "b", "b"]] * 4)
    assert alpha is not None
    assert alpha.value == 1.0
    assert alpha.interval is not None
    assert 0 < alpha.interval[0] < 0.9
    assert alpha.interval[1] == 1.0


VOTES = st.lists(st.lists(st.integers(0, 3), max_size=5), min_size=2, max_size=12)


@given(VOTES)
def test_equals_the_independent_library(labels: list[list[int]]) -> None:
    counts = np.array([[Counter(said)[value] for value in range(4)] for said in labels])
    paired = counts[counts.sum(axis=1) > 1]
    assume((paired.sum(axis=0) > 0).sum() > 1)  # else undefined
    theirs = krippendorff.alpha(value_counts=counts, level_of_measurement="nominal")
    assert krippendorff_alpha(labels) == pytest.approx(theirs, abs=1e-12)


@pytest.fixture(scope="module")
def pandalm(shared_data: Path) -> list[list[int]]:
    rows = json.loads((shared_data / "pandalm-testset" / "testset-v1.json").read_text("utf-8"))
    return [[row[f"annotator{number}"] for number in (1, 2, 3)] for row in rows]


def test_three_annotators_of_pandalm(pandalm: list[list[int]]) -> None:
    """999 pairs, of which all three agree on 879 (the folder's README)."""
    assert sum(len(set(votes)) == 1 for votes in pandalm) == 879
    table = np.array(pandalm, float).T
    for matrix, labels in (
        (table, pandalm),
        (np.where(table == 0, np.nan, table), [[vote for vote in votes if vote] for votes in pandalm]),
    ):
        theirs = krippendorff.alpha(matrix, level_of_measurement="nominal")
        alpha = alpha_interval(labels)
        assert alpha is not None
        assert alpha.value == pytest.approx(theirs, abs=1e-12)
        assert alpha.interval is not None
        assert alpha.interval[0] < alpha.value < alpha.interval[1]
    agreement = percent_agreement(pandalm)
    assert agreement is not None
    pairs = [(a == b, a == c, b == c) for a, b, c in pandalm]
    assert agreement.value == pytest.approx(np.mean(pairs), abs=1e-12)


def test_the_bootstrap_is_that_over_items(pandalm: list[list[int]]) -> None:
    """A second implementation, drawing items one by one, gives the same interval up to the noise of drawing."""
    draw = np.random.default_rng(1)
    some = pandalm[:200]
    alphas = []
    for _ in range(300):
        chosen = [some[index] for index in draw.integers(0, len(some), len(some))]
        alphas.append(krippendorff_alpha(chosen))
    ours = alpha_interval(some)
    assert ours is not None
    assert ours.interval is not None
    theirs = np.percentile(np.array(alphas, float), [2.5, 97.5])
    assert np.abs(np.array(ours.interval) - theirs).max() < 0.25 * (theirs[1] - theirs[0])
