"""The shapes of a small world, by name; everything is float64.

In the tests jaxtyping's import hook checks them at every call; elsewhere they are for the reader and cost nothing.
"""

from __future__ import annotations

from typing import TypeAlias

from jaxtyping import Float64
from torch import Tensor

Cells: TypeAlias = Float64[Tensor, "prompts completions"]
"""A value for every completion y of every prompt x: log-probabilities, rewards."""
PerPrompt: TypeAlias = Float64[Tensor, " prompts"]
Number: TypeAlias = Float64[Tensor, ""]
