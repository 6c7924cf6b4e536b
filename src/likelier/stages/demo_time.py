"""How long the demo will take on this machine: said before it begins."""

from __future__ import annotations

import time

import torch
from torch import nn

PARAMETERS = 134.5e6
"""Of the default model, so that it need not be loaded for the answer."""
FIXED_SECONDS = 15.0
"""Of a demo: loading, labels, pictures."""
SHARE = 0.62
"""Of the rate of matrix products, reached by what waits for them."""
OTHER_RATE = 525e9
"""Floating-point operations a second, were there only what waits for memory: sampling one token at a time."""


def expected_minutes(parameters: float, *, sampled: int, compared: int, trained: int, tokens: int) -> float:
    """A fixed part, one at the rate of this machine's matrix products, and one that waits for memory.

    The constants are those of two machines of two cores whose products differ fourfold (docs/log.md).

    Args:
        parameters: of the model.
        sampled: answers that are drawn.
        compared: answers that both models read for the KL.
        trained: answers that are trained on, with about as many tokens of prompts: read once by the reference, then
            forward and backward.
        tokens: of an answer, at most.
    """
    operations = 2 * parameters * tokens * (sampled + 2 * compared + 2 * 4 * trained)
    return (FIXED_SECONDS + operations * (1 / (SHARE * matrix_rate()) + 1 / OTHER_RATE)) / 60


def matrix_rate() -> float:
    """Floating-point operations a second of a linear layer of the default model's size, undisturbed."""
    fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    layer = nn.Linear(576, 1536, bias=False, dtype=torch.bfloat16 if fast else torch.float32)
    rows = torch.ones(512, 576, dtype=layer.weight.dtype)
    with torch.inference_mode():
        layer(rows)
        times = []
        begun = time.perf_counter()
        while time.perf_counter() - begun < 0.2:
            start = time.perf_counter()
            layer(rows)
            times.append(time.perf_counter() - start)
    return 2 * 512 * 576 * 1536 / min(times)
