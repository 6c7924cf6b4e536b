"""Worlds for descents: ragged, with equal rewards, with probabilities near 0, yet no optimum beyond float64's reach."""

import torch
from hypothesis import strategies as st

from likelier.theory.world import World


@st.composite
def worlds(draw, *, least=1):
    """One to three prompts of `least` to four completions; shorter rows are filled up with probability 0."""
    prompts = draw(st.integers(1, 3))
    sizes = draw(st.lists(st.integers(least, 4), min_size=prompts, max_size=prompts))
    width = max(sizes)
    reward = draw(_table(prompts, st.floats(-3.0, 3.0)))[:, :width]
    logits = draw(_table(prompts, st.floats(-12.0, 0.0)))[:, :width]
    for row, size in zip(logits, sizes, strict=True):
        row[size:] = -torch.inf
    weights = torch.tensor(
        draw(st.lists(st.sampled_from([0.1, 0.5, 1.0]), min_size=prompts, max_size=prompts))
    )
    return World.of(logits, reward, weights.double() / weights.double().sum())


def _table(prompts, cells):
    rows = st.lists(st.lists(cells, min_size=4, max_size=4), min_size=prompts, max_size=prompts)
    return rows.map(lambda table: torch.tensor(table, dtype=torch.float64))
