"""Rankings and their fits, against hand arithmetic, a sampler's law, scipy and the condition for a finite fit."""

from __future__ import annotations

import math
from itertools import pairwise, permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_expit

from likelier.objectives.preferences import bradley_terry
from likelier.theory.choice import ranking_log_probabilities, rankings
from likelier.theory.fits import (
    NoFiniteFitError,
    fit_bradley_terry,
    fit_plackett_luce,
    penalised_fit,
    require_finite_fit,
)
from tests.theory.worlds import tables

REWARDS = st.integers(2, 5).flatmap(lambda count: tables(1, count, st.floats(-8.0, 8.0)))


def test_orders() -> None:
    assert rankings(4).tolist() == [list(order) for order in permutations(range(4))]
    assert rankings(1).tolist() == [[0]]


def test_three_by_hand() -> None:
    """Worths 1, 2, 4: p(c, b, a) = 4/7 · 2/3, p(a, b, c) = 1/7 · 2/6."""
    worths = torch.tensor([[1.0, 2.0, 4.0]]).double()
    found = dict(
        zip(permutations("abc"), ranking_log_probabilities(worths.log()).exp()[0].tolist(), strict=True)
    )
    assert found["c", "b", "a"] == pytest.approx(4 / 7 * 2 / 3)
    assert found["a", "b", "c"] == pytest.approx(1 / 7 * 2 / 6)
    assert found["b", "c", "a"] == pytest.approx(2 / 7 * 4 / 5)


@given(reward=REWARDS)
def test_all_rankings_share_1_and_the_best_is_a_softmax(reward: torch.Tensor) -> None:
    """Luce's choice axiom: who is first is drawn by softmax(r), and of two items the order is Bradley–Terry's."""
    orders, probability = rankings(reward.shape[1]), ranking_log_probabilities(reward).exp()[0]
    assert probability.sum().item() == pytest.approx(1.0, abs=1e-12)
    for item, share in enumerate(reward[0].softmax(-1).tolist()):
        assert probability[orders[:, 0] == item].sum().item() == pytest.approx(share, abs=1e-12)
    places = orders.argsort(-1)
    before = probability[places[:, 0] < places[:, 1]].sum()
    assert before.item() == pytest.approx(float(bradley_terry(*reward[0, :2])), abs=1e-12)


@settings(max_examples=30)
@given(reward=REWARDS)
def test_a_fit_to_exact_preferences_is_the_reward(reward: torch.Tensor) -> None:
    rows = reward.expand(reward.shape[1], -1)
    fitted = fit_bradley_terry(bradley_terry(rows.mT, rows))
    torch.testing.assert_close(fitted, reward[0] - reward.mean(), atol=1e-7, rtol=0.0)
    assert abs(fitted.sum()) < 1e-12


@settings(max_examples=30)
@given(reward=REWARDS)
def test_a_fit_to_exact_rankings_is_the_reward(reward: torch.Tensor) -> None:
    count = reward.shape[1]
    weights = ranking_log_probabilities(reward).exp()[0].tolist()
    fitted = fit_plackett_luce(rankings(count).tolist(), weights=weights, items=count)
    torch.testing.assert_close(fitted, reward[0] - reward.mean(), atol=1e-7, rtol=0.0)


def test_counts_against_a_general_optimiser() -> None:
    wins = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 5.0], [4.0, 1.0, 0.0]]).double()

    def loss(rewards: list[float]) -> float:
        gaps = torch.tensor(rewards, dtype=torch.float64)
        gaps = gaps.unsqueeze(-1) - gaps
        return -float((wins * torch.from_numpy(log_expit(gaps.numpy()))).sum())

    found = torch.tensor(minimize(loss, [0.0] * 3, method="BFGS", tol=1e-10).x)
    torch.testing.assert_close(fit_bradley_terry(wins), found - found.mean(), atol=1e-5, rtol=0.0)


def test_zermelos_equation_holds_at_the_fit() -> None:
    """Each item won as often as the fitted probabilities say: the likelihood's stationarity, written out."""
    wins = torch.randint(1, 9, (6, 6), generator=torch.Generator().manual_seed(0)).double()
    fitted = fit_bradley_terry(wins).expand(6, -1)
    games = (wins + wins.T).fill_diagonal_(0.0)
    expected = (games * bradley_terry(fitted.mT, fitted)).sum(-1)
    torch.testing.assert_close(expected, wins.fill_diagonal_(0.0).sum(-1), atol=1e-10, rtol=0.0)


@settings(max_examples=20)
@given(factor=st.floats(-12.0, 12.0).map(lambda power: 10.0**power))
def test_only_the_weights_proportions_count(factor: float) -> None:
    wins = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 5.0], [4.0, 1.0, 0.0]]).double()
    torch.testing.assert_close(fit_bradley_terry(factor * wins), fit_bradley_terry(wins), atol=1e-9, rtol=0.0)


def test_partial_rankings_bind_through_what_they_share() -> None:
    """0 against 1 at odds 4 : 1, 1 against 2 at odds 4 : 1; 0 and 2 never met."""
    found = [[0, 1]] * 4 + [[1, 0]] + [[1, 2]] * 4 + [[2, 1]]
    gap = math.log(4)
    assert fit_plackett_luce(found, items=3).tolist() == pytest.approx([gap, 0.0, -gap])


def strongly_connected(found: list[list[int]], items: int) -> bool:
    """The condition in Ford's words: however the items are parted in two, each part won against the other."""
    for part in range(1, 2**items - 1):
        inside = [bool(part >> item & 1) for item in range(items)]
        pairs = [(a, b) for ranking in found for k, a in enumerate(ranking) for b in ranking[k + 1 :]]
        if not any(inside[a] and not inside[b] for a, b in pairs):
            return False
    return True


@given(data=st.data(), items=st.integers(1, 5))
def test_a_finite_fit_exists_exactly_where_every_parting_was_won_both_ways(
    data: st.DataObject, items: int
) -> None:
    order = st.permutations(range(items)).flatmap(
        lambda order: st.integers(1, items).map(lambda size: order[:size])
    )
    found = data.draw(st.lists(order, max_size=6))
    if strongly_connected(found, items):
        assert fit_plackett_luce(found, items=items).isfinite().all()
    else:
        with pytest.raises(NoFiniteFitError):
            fit_plackett_luce(found, items=items)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([[0, 1, 2], [0, 2, 1]], "prompt `why?`: `a` was never ranked below the rest: its reward grows"),
        ([[0, 1], [1, 0], [0, 2]], "`a`, `b` were never ranked below the rest: their rewards grow"),
        ([[0, 1], [1, 0]], "`c` was never compared with the rest: its reward can be anything"),
        ([], "`a` was never compared"),
    ],
)
def test_who_is_to_blame_is_named(found: list[list[int]], message: str) -> None:
    with pytest.raises(NoFiniteFitError) as raised:
        fit_plackett_luce(found, items=3, names="abc", prompt="why?")
    assert message in str(raised.value)


def test_a_weight_of_0_binds_nothing() -> None:
    with pytest.raises(NoFiniteFitError):
        fit_plackett_luce([[0, 1], [1, 0]], weights=[1.0, 0.0], items=2)
    require_finite_fit([[0, 1], [1, 0]], items=2)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_weights_are_weights(weight: float) -> None:
    with pytest.raises(ValueError, match="weights"):
        fit_bradley_terry(torch.tensor([[0.0, weight], [1.0, 0.0]]).double())
    with pytest.raises(ValueError, match="weights"):
        fit_plackett_luce([[0, 1], [1, 0]], weights=[weight, 1.0], items=2)


def test_deterministic_labels_diverge() -> None:
    """The penalised gap g solves σ(−g) = λ g / 2, so it grows without bound as λ → 0, and the loss goes to 0."""
    gaps = []
    for ridge in (1e-1, 1e-3, 1e-6, 1e-9):
        first, second = penalised_fit([[0, 1]], items=2, ridge=ridge).tolist()
        gap = first - second
        assert 1 / (1 + math.exp(gap)) == pytest.approx(ridge * gap / 2, rel=1e-9)
        gaps.append(gap)
    assert all(later > earlier + 2 for earlier, later in pairwise(gaps))
    with pytest.raises(NoFiniteFitError, match="`item 1` was never ranked below"):
        fit_plackett_luce([[0, 1]], items=2)


def test_a_ridge_is_positive() -> None:
    with pytest.raises(ValueError, match="ridge"):
        penalised_fit([[0, 1]], items=2, ridge=0.0)
