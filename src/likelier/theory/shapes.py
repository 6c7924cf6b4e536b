"""The shapes of a small world, by name; everything is float64.

In the tests jaxtyping's import hook checks them at every call; elsewhere they are for the reader and cost nothing.
"""

from __future__ import annotations

from typing import TypeAlias

from jaxtyping import Bool, Float64, Int64
from torch import Tensor

Cells: TypeAlias = Float64[Tensor, "prompts completions"]
"""A value for every completion y of every prompt x: log-probabilities, rewards."""
NextTokens: TypeAlias = Float64[Tensor, "prompts prefixes tokens"]
"""Log-probabilities of the token that follows each prefix of an answer; the end token is the last."""
Choices: TypeAlias = Float64[Tensor, "*rows choices"]
"""Log-probabilities of one choice a row, whatever is chosen: whole answers, or next tokens."""
PerPrompt: TypeAlias = Float64[Tensor, " prompts"]
Number: TypeAlias = Float64[Tensor, ""]
Versus: TypeAlias = Float64[Tensor, "prompts completions completions"]
"""A value for every ordered pair (y_i, y_j) of a prompt's completions."""
Places: TypeAlias = Int64[Tensor, " pairs"]
"""Numbers of prompts or completions, one for each comparison."""
Weights: TypeAlias = Float64[Tensor, " pairs"]
Vector: TypeAlias = Float64[Tensor, " parameters"]
"""The parameters of a policy, or a direction among them."""
Items: TypeAlias = Float64[Tensor, " items"]
Wins: TypeAlias = Float64[Tensor, "items items"]
"""How often, or with which weight, the row's item was preferred to the column's."""
Orders: TypeAlias = Int64[Tensor, "orders items"]
Rankings: TypeAlias = Float64[Tensor, "prompts orders"]
Existing: TypeAlias = Bool[Tensor, "prompts completions"]
"""Which completions a prompt has: rows are filled up to the longest."""
