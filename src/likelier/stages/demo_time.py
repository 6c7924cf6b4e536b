"""How long the demo will take on this machine: said before it begins."""

from __future__ import annotations

import time

import torch
from torch import nn

PARAMETERS = 134.5e6
"""Of the default model, so that it need not be loaded for the answer."""
FIXED_SECONDS = 40.0
"""Of a demo: loading, labels, pictures."""
SHARE = 0.25
"""Of the rate of matrix products, reached on the whole."""


def expected_minutes(parameters: float, *, sampled: int, compared: int, trained: int, tokens: int) -> float:
    """A fixed part, and floating-point work at the rate of this machine.

    Args:
        parameters: of the model.
        sampled: answers that are drawn.
        compared: answers that both models read for the KL.
        trained: answers in training, those of every epoch counted as three (forward and backward) and those of
            the reference's pass as one.
        tokens: of an answer at most; with its share of the prompt a trained one has about twice as many.
    """
    operations = parameters * 2 * tokens * (sampled + 2 * compared + 2 * trained)
    return (FIXED_SECONDS + operations / (SHARE * matrix_rate())) / 60


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
