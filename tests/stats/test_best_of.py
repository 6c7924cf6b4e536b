"""Best-of-N's weights: against every subset, and against the exact best-of-N of a world with few completions."""

from __future__ import annotations

from itertools import combinations, product
from math import prod
from statistics import fmean

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from likelier.stats.best_of import kept_weights
from likelier.theory.best_of_n import best_of_n


def by_subsets(scores: list[float], values: list[float], n: int) -> float:
    """The mean over all subsets of what is kept; of equal scores each is kept as often."""
    kept = []
    for subset in combinations(range(len(scores)), n):
        highest = max(scores[index] for index in subset)
        kept.append(fmean(values[index] for index in subset if scores[index] == highest))
    return fmean(kept)


DRAWS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.5, 1.0, 1.5, -2.0]), st.floats(-9, 9)), min_size=1, max_size=7
)


@given(draws=DRAWS, data=st.data())
def test_the_mean_over_all_subsets(draws: list[tuple[float, float]], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(draws)))
    scores, values = map(list, zip(*draws, strict=True))
    weights = kept_weights(scores, n)
    assert np.mean(weights * values) == pytest.approx(by_subsets(scores, values, n), abs=1e-12)
    assert weights.mean() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_what_is_expected_of_it_is_best_of_n(n: int) -> None:
    """Over all sequences of four draws from three answers, two of them tied, by their probabilities: no bias."""
    chances, scores, values = [0.2, 0.5, 0.3], [1.0, 0.0, 1.0], [7.0, 1.0, -2.0]
    expected = sum(
        prod(chances[draw] for draw in drawn)
        * float(np.mean(kept_weights([scores[d] for d in drawn], n) * np.array([values[d] for d in drawn])))
        for drawn in product(range(3), repeat=4)
    )
    reference, reward = torch.tensor([chances], dtype=torch.float64).log(), torch.tensor([scores]).double()
    exact = float((best_of_n(reference, reward, n).exp() * torch.tensor(values)).sum())
    assert expected == pytest.approx(exact, abs=1e-12)


def test_one_draw_counts_as_it_is_and_all_draws_leave_the_best() -> None:
    scores = [0.3, 0.1, 0.9, 0.9, 0.2, 0.7, -1.0]
    assert kept_weights(scores, 1).tolist() == [1.0] * 7
    assert kept_weights(scores, 7).tolist() == [0, 0, 3.5, 3.5, 0, 0, 0]


def test_many_draws_do_not_overflow() -> None:
    weights = kept_weights(np.arange(3000.0), 1500)
    assert np.isfinite(weights).all()
    assert weights.mean() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("scores", "n"), [([1.0], 2), ([1.0], 0), ([], 1), ([float("nan"), 1.0], 1), ([[1.0]], 1)]
)
def test_what_is_none(scores: list[float], n: int) -> None:
    with pytest.raises(ValueError, match=r"draws|scores"):
        kept_weights(scores, n)
