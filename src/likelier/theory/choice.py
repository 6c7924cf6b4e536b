"""Choices that rewards explain: the probability of every ranking, math.md (1) and (2), and what is said of them."""

from __future__ import annotations

import math
from itertools import permutations

import torch

from likelier.objectives.preferences import bradley_terry, plackett_luce_log_probability
from likelier.theory.fits import NoFiniteFitError, fit_bradley_terry, fit_plackett_luce, penalised_fit
from likelier.theory.shapes import Cells, Orders, Rankings
from likelier.theory.statement import IDENTITY, Statement, largest, largest_gap
from likelier.theory.world import World


def rankings(count: int) -> Orders:
    """All `count`! orders of as many items, `[count!, count]`, best first.

    >>> rankings(3).tolist()
    [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
    """
    return torch.tensor(list(permutations(range(count))))


def ranking_log_probabilities(reward: Cells) -> Rankings:
    """`log p*(τ|x)` for each prompt and each of `rankings(K)`: math.md (2), the paper's equation 18.

    >>> two = torch.tensor([[0.0, 3.0]], dtype=torch.float64).log1p()  # rewards 0 and log 4
    >>> [round(p, 12) for p in ranking_log_probabilities(two).exp()[0].tolist()]
    [0.2, 0.8]
    """
    orders = rankings(reward.shape[-1])
    places = orders.argsort(dim=-1)  # [orders, K]: where each item stands
    count, size = len(places), len(reward)
    found = plackett_luce_log_probability(
        reward.repeat_interleave(count, dim=0),
        mask=torch.ones(size * count, reward.shape[-1], dtype=torch.bool),
        ranks=places.repeat(size, 1),
    )
    return found.reshape(size, count)


def statements(world: World, beta: float) -> list[Statement]:
    """(1) to (3) in `world`; β is not read: preferences know nothing of it.

    >>> [statement.name for statement in statements(World.random(0), 0.5) if not statement.holds]
    []
    """
    return [_two_are_bradley_terry(world), _one_for_all_rankings(world), _fitted_again(world), _runaway()]


MOST = 5
"""Completions of a prompt of which all rankings are counted: there are K! of them."""


def few(world: World) -> list[Cells]:
    """Each prompt's rewards, `[1, K]`, of its first `MOST` completions."""
    return [
        row[None, : min(len(names), MOST)] for row, names in zip(world.reward, world.completions, strict=True)
    ]


def _two_are_bradley_terry(world: World) -> Statement:
    first = world.reward[:, :1].expand(world.reward.shape).flatten()
    pairs = torch.stack([first, world.reward.flatten()], dim=-1)
    both = ranking_log_probabilities(pairs).exp()
    one, other = bradley_terry(*pairs.unbind(-1)), bradley_terry(*pairs.flip(-1).unbind(-1))
    error = largest([largest_gap(both[:, 0], one), largest_gap(one + other, torch.ones_like(one))])
    return Statement(
        name="Plackett–Luce for K = 2 is Bradley–Terry", equation="(1), (2)", error=error, bound=IDENTITY
    )


def _one_for_all_rankings(world: World) -> Statement:
    errors = [0.0]
    for reward in few(world):
        probability, orders = ranking_log_probabilities(reward).exp()[0], rankings(reward.shape[1])
        best = torch.zeros_like(reward[0]).index_add(0, orders[:, 0], probability)
        errors += [abs(float(probability.sum()) - 1.0), largest_gap(best, reward[0].softmax(-1))]
    return Statement(
        name="all K! rankings share 1, and who is first is drawn by softmax(r)",
        equation="(2)",
        error=largest(errors),
        bound=IDENTITY,
    )


_WIDEST = 20.0
"""Rewards that lie further apart leave comparisons that float64 cannot tell from certain ones."""


def _fitted_again(world: World) -> Statement:
    error, shrunk = 0.0, False
    for row, names, prompt in zip(world.reward, world.completions, world.prompts, strict=True):
        reward = row[: len(names)]
        spread = float(reward.max() - reward.min())
        shrunk = shrunk or spread > _WIDEST
        reward = reward * min(1.0, _WIDEST / max(spread, 1.0))
        square = reward.expand(len(names), -1)
        wanted = bradley_terry(square.mT, square)
        found = fit_bradley_terry(wanted, names=names, prompt=prompt).expand(len(names), -1)
        error = largest([error, largest_gap(bradley_terry(found.mT, found), wanted)])
    return Statement(
        name="the likeliest rewards for exact preferences give those preferences back",
        equation="(3)",
        error=error,
        bound=IDENTITY,
        note=f"rewards scaled to a spread of {_WIDEST:g}" if shrunk else "",
    )


def _runaway() -> Statement:
    """One comparison, always won: refused; with a ridge λ the gap g solves σ(−g) = λ g / 2, without bound as λ → 0."""
    gaps, errors = [], []
    for ridge in (1e-1, 1e-3, 1e-6):
        first, second = penalised_fit([(0, 1)], items=2, ridge=ridge).tolist()
        gaps.append(first - second)
        errors.append(abs(1.0 / (1.0 + math.exp(gaps[-1])) - ridge * gaps[-1] / 2.0))
    try:
        fit_plackett_luce([(0, 1)], items=2)
        errors.append(math.inf)
    except NoFiniteFitError:
        pass
    return Statement(
        name="labels that are always the same have no finite rewards",
        equation="(3)",
        error=largest(errors) if sorted(gaps) == gaps else math.inf,
        bound=IDENTITY,
        note="gap under a ridge of 0.1, 0.001, 1e-6: " + ", ".join(f"{gap:.3g}" for gap in gaps),
    )
