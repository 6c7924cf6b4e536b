"""Comparisons of completions: the whole population of them, as weights, or a finite sample drawn from it.

A loss over the population is an exact sum over all pairs, `Σ w ℓ`. A sample has the same form with other weights,
so whatever reads one reads the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from likelier.theory.preference_models import by_reward
from likelier.theory.shapes import Cells, Places, Versus, Weights
from likelier.theory.world import World, WorldError


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """Comparisons of two completions of one prompt, each with its weight; the weights add up to 1.

    Raises:
        WorldError: lists of unequal length, a completion compared with itself, weights that do not add up to 1.

    >>> world = World.uniform(torch.tensor([[3.0, 0.0]], dtype=torch.float64).log1p())
    >>> [round(weight, 12) for weight in population(world).weight.tolist()]  # σ(log 4 − log 1) and the rest
    [0.8, 0.2]
    """

    prompt: Places
    """Which prompt, int64 `[pairs]`, counted from 0."""
    winner: Places
    """Which of its completions was preferred."""
    loser: Places
    weight: Weights
    """How often, as a share of all comparisons."""

    def __post_init__(self) -> None:
        count = self.weight.shape
        if not self.prompt.shape == self.winner.shape == self.loser.shape == count or len(count) != 1:
            raise WorldError("comparisons need as many prompts, winners, losers and weights")
        if bool((self.winner == self.loser).any()):
            raise WorldError("a completion is compared with itself")
        total = float(self.weight.sum())
        if not bool((self.weight >= 0).all()) or not abs(total - 1.0) <= 1e-9:
            raise WorldError(f"the weights of the comparisons add up to {total:g}, not to 1")

    @classmethod
    def of(cls, wins: Versus) -> Comparisons:
        """The comparisons of a table of wins, `[x, i, j]` how often i was preferred to j; scaled to add up to 1.

        Raises:
            WorldError: no wins at all, or a completion that wins against itself.

        >>> Comparisons.of(torch.tensor([[[0.0, 3.0], [1.0, 0.0]]], dtype=torch.float64)).weight.tolist()
        [0.75, 0.25]
        """
        if bool((wins.diagonal(dim1=1, dim2=2) != 0).any()):
            raise WorldError("a completion is compared with itself")
        total = wins.sum()
        if not bool((wins >= 0).all()) or not 0.0 < float(total) < float("inf"):
            raise WorldError("there is no comparison: every prompt has one completion, or no pair is drawn")
        prompt, winner, loser = (wins > 0).nonzero(as_tuple=True)
        return cls(prompt=prompt, winner=winner, loser=loser, weight=wins[prompt, winner, loser] / total)

    def wins(self, completions: int, prompts: int) -> Versus:
        """Back to a table `[prompts, completions, completions]`, which adds up to 1.

        >>> Comparisons.of(torch.tensor([[[0.0, 3.0], [1.0, 0.0]]], dtype=torch.float64)).wins(2, prompts=1).tolist()
        [[[0.0, 0.75], [0.25, 0.0]]]
        """
        table = self.weight.new_zeros((prompts, completions, completions))
        return table.index_put((self.prompt, self.winner, self.loser), self.weight, accumulate=True)


def population(world: World, *, chances: Versus | None = None, pairs: Versus | None = None) -> Comparisons:
    """Every comparison with its exact share: `p(x) q(y_i, y_j | x) p(y_i ≻ y_j | x)`.

    Args:
        world: its prompts' weights and, by default, its reward.
        chances: the preference model, `[prompts, completions, completions]`; Bradley–Terry's of the world's reward.
        pairs: q, which pairs are shown, in either order; all pairs of the reference's support alike by default.

    Raises:
        WorldError: pairs outside the reference's support, or no pair at all.
    """
    shown = uniform_pairs(world) if pairs is None else pairs
    model = by_reward(world.reward) if chances is None else chances
    outside = ~(world.support.unsqueeze(2) & world.support.unsqueeze(1))
    if bool((shown.masked_select(outside) > 0).any()):
        raise WorldError(
            "a completion of reference probability 0 is compared: its log-ratio is infinite; leave it out of `pairs`"
        )
    either = torch.where(outside, 0.0, shown + shown.mT)
    return Comparisons.of(world.prompt_weights[:, None, None] * either * torch.where(outside, 0.0, model))


def uniform_pairs(world: World) -> Versus:
    """Every pair of different completions of the reference's support alike, of every prompt as often as the prompt.

    >>> uniform_pairs(World.uniform(torch.zeros(1, 3, dtype=torch.float64)))[0, 0].tolist()
    [0.0, 0.16666666666666666, 0.16666666666666666]
    """
    return _told_apart(world.support.to(world.reward.dtype))


def reference_pairs(world: World) -> Versus:
    """Two independent draws from the reference, equal ones left out: how preferences are gathered in practice.

    >>> half = World.uniform(torch.zeros(1, 2, dtype=torch.float64))
    >>> reference_pairs(half).tolist()
    [[[0.0, 0.5], [0.5, 0.0]]]
    """
    return _told_apart(world.log_reference.exp())


def _told_apart(chance: Cells) -> Versus:
    both = chance.unsqueeze(2) * chance.unsqueeze(1)
    both = both - torch.diag_embed(both.diagonal(dim1=1, dim2=2))
    return both / both.sum(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(both.dtype).tiny)


def sample(comparisons: Comparisons, count: int, *, seed: int) -> Comparisons:
    """`count` comparisons drawn with replacement; those never drawn are left out.

    >>> drawn = sample(population(World.random(0)), 4, seed=0)
    >>> drawn.weight.tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    weight = sample_weights(comparisons, count, seeds=[seed])[0]
    drawn = weight > 0
    return Comparisons(
        prompt=comparisons.prompt[drawn],
        winner=comparisons.winner[drawn],
        loser=comparisons.loser[drawn],
        weight=weight[drawn],
    )


def sample_weights(comparisons: Comparisons, count: int, *, seeds: Sequence[int]) -> torch.Tensor:
    """The weights of a sample of `count` for each seed, `[seeds, pairs]`, 0 where a comparison was not drawn.

    Raises:
        ValueError: fewer than one comparison.
    """
    if count < 1:
        raise ValueError(f"a sample holds at least one comparison, not {count}")
    weights = comparisons.weight.new_zeros((len(seeds), comparisons.weight.numel()))
    for row, seed in zip(weights, seeds, strict=True):
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.multinomial(comparisons.weight, count, replacement=True, generator=generator)
        row += torch.bincount(drawn, minlength=row.numel()).to(row.dtype) / count
    return weights


def components(comparisons: Comparisons, world: World) -> torch.Tensor:
    """Which completions of a prompt are compared with each other, directly or through others.

    Returns:
        int64 `[prompts, completions]`: the number of each completion's component, −1 outside the reference's support.
        Probabilities within one component are determined by the comparisons, the mass of a component is not.

    >>> world = World.uniform(torch.zeros(1, 4, dtype=torch.float64))
    >>> wins = torch.zeros(1, 4, 4, dtype=torch.float64)
    >>> wins[0, 0, 1] = wins[0, 2, 3] = 1.0
    >>> islands = Comparisons.of(wins)
    >>> components(islands, world).tolist()
    [[0, 0, 1, 1]]
    """
    return _components(comparisons, world, strong=False)


def is_decided_by_all(comparisons: Comparisons, world: World) -> bool:
    """Whether a finite Bradley–Terry fit exists: each component's wins go round, strongly connected (Ford 1957).

    If not, some completions never lose to the rest of their component, and a likelihood rises without end.

    >>> world = World.random(0)
    >>> is_decided_by_all(population(world), world)
    True
    """
    weak, strong = (_components(comparisons, world, strong=kind) for kind in (False, True))
    return bool((weak.amax(dim=1) == strong.amax(dim=1)).all())


def _components(comparisons: Comparisons, world: World, *, strong: bool) -> torch.Tensor:
    found = torch.full(world.reward.shape, -1)
    size = world.reward.shape[1]
    for index, support in enumerate(world.support):
        edges = (comparisons.prompt == index) & (comparisons.weight > 0)
        places = (comparisons.winner[edges].numpy(), comparisons.loser[edges].numpy())
        graph = coo_array((comparisons.weight[edges].numpy(), places), shape=(size, size))
        _, labels = connected_components(graph, directed=True, connection="strong" if strong else "weak")
        inside = torch.as_tensor(labels, dtype=torch.int64)[support]
        found[index, support] = torch.unique(inside, return_inverse=True)[1]
    return found
