"""How much of everything a demo does."""

from __future__ import annotations

from dataclasses import dataclass

HELD_OUT_SEED = 1
"""Added to the seed for held-out answers: they share no random number with those trained on."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    train_stride: int
    """1 takes every training prompt, 3 every third."""
    answers: int
    held_out_answers: int
    dial_prompts: int
    """Held-out prompts behind the slider: with its five strengths that draw, 60 answers in forwards of 64 rows."""


def size_of(*, quick: bool) -> Size:
    """The whole, or what takes a third of the time."""
    return Size(3, 4, 2, 12) if quick else Size(1, 4, 8, 12)
