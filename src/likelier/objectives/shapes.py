"""The shapes of what goes into a loss and comes out, by name.

In the tests jaxtyping's import hook checks them at every call (`tests/conftest.py`), equal names for equal sizes;
elsewhere they are for the reader and cost nothing.
"""

from __future__ import annotations

from typing import TypeAlias

from jaxtyping import Bool, Float, Integer, Real
from torch import Tensor

Pairs: TypeAlias = Float[Tensor, "pairs 2"]
"""Log-probs, rewards: column 0 is the chosen answer, column 1 the rejected."""
PairLengths: TypeAlias = Real[Tensor, "pairs 2"]
PerPair: TypeAlias = Float[Tensor, " pairs"]

Trees: TypeAlias = Float[Tensor, "trees answers"]
TreeLengths: TypeAlias = Real[Tensor, "trees answers"]
TreeMask: TypeAlias = Bool[Tensor, "trees answers"]
"""False where a tree has fewer answers than the widest."""
TreeRanks: TypeAlias = Integer[Tensor, "trees answers"]
PerTree: TypeAlias = Float[Tensor, " trees"]

Values: TypeAlias = Float[Tensor, "*shape"]
Counts: TypeAlias = Real[Tensor, "*shape"]
Mask: TypeAlias = Bool[Tensor, "*shape"]

AnswerTokens: TypeAlias = Float[Tensor, "answers tokens"]
"""A number for each token of each answer; what lies past an answer's end is not read."""
AnswerMask: TypeAlias = Bool[Tensor, "answers tokens"]
"""True up to each answer's last token."""
PerAnswer: TypeAlias = Float[Tensor, " answers"]
Groups: TypeAlias = Float[Tensor, "prompts group"]
"""A number for each of a prompt's answers."""
PerToken: TypeAlias = Float[Tensor, " tokens"]
