"""Worlds drawn at random, degenerate ones among them."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from likelier.theory.world import World

betas = st.one_of(
    st.sampled_from([1e-4, 1e-2, 0.1, 1.0, 10.0, 1e6]), st.floats(-4.0, 6.0).map(lambda power: 10.0**power)
)
"""β from 1e-4 to 1e6."""


def tables(rows: int, columns: int, cells: st.SearchStrategy[float]) -> st.SearchStrategy[torch.Tensor]:
    """Float64 tables `[rows, columns]` of these cells."""
    row = st.lists(cells, min_size=columns, max_size=columns)
    return st.lists(row, min_size=rows, max_size=rows).map(
        lambda found: torch.tensor(found, dtype=torch.float64)
    )


@st.composite
def worlds(draw: st.DrawFn, *, full_support: bool = True, least: int = 1) -> World:
    """1 to 3 prompts with `least` to 5 completions: probabilities down to 1e-300, equal rewards, prompts of weight 0.

    Without `full_support` also completions of probability 0, and prompts with fewer completions than others.
    """
    prompts, width = draw(st.integers(1, 3)), draw(st.integers(least, 5))
    logits = draw(
        tables(prompts, width, st.one_of(st.floats(-3.0, 3.0), st.sampled_from([0.0, -30.0, -690.0])))
    )
    reward = draw(tables(prompts, width, st.one_of(st.floats(-5.0, 5.0), st.sampled_from([0.0, 1.0]))))
    shares = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=prompts, max_size=prompts))
    weights = torch.tensor([1.0, *shares[1:]]).double()
    counts = [width] * prompts
    if not full_support:
        counts = draw(st.lists(st.integers(1, width), min_size=prompts, max_size=prompts))
        for row, count in enumerate(counts):
            gone = draw(st.sets(st.integers(0, count - 1), max_size=count - 1))
            logits[row, [*gone, *range(count, width)]] = -torch.inf
    return World(
        log_reference=logits.log_softmax(dim=-1),
        reward=reward,
        prompt_weights=weights / weights.sum(),
        prompts=tuple(f"x{row + 1}" for row in range(prompts)),
        completions=tuple(tuple(f"y{column + 1}" for column in range(count)) for count in counts),
    )


@st.composite
def policies(draw: st.DrawFn, world: World) -> torch.Tensor:
    """A policy within the reference's support."""
    logits = draw(tables(*world.reward.shape, st.floats(-40.0, 5.0)))
    return logits.masked_fill(~world.support, -torch.inf).log_softmax(dim=-1)
