"""How much an answer repeats itself."""

from __future__ import annotations

from collections.abc import Sequence


def repetition(tokens: Sequence[int]) -> float:
    """The share of an answer's 3-grams of tokens that it has had before; 0 where there are none.

    >>> repetition([1, 2, 3, 1, 2, 3]), repetition([1, 2])
    (0.25, 0.0)
    """
    grams = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0
