"""Weights that lie exactly halfway between two bfloat16 numbers, as dequantised checkpoints have them.

Round to nearest puts each on one side; the first update, however small, tips all of them along the gradient by a
whole spacing at once. In SmolLM2's 4-bit GGUF 8 % of the weights lie so, and one AdamW step at a learning rate of
3e-8 moved the margin by 18.8 nats (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_LEAST_SHARE = 1e-3
"""By chance one float32 number in 65,536 lies halfway; such models are left alone, bit for bit."""


@torch.no_grad()
def settle_halfway(parameters: Iterable[Tensor]) -> float:
    """Set halfway float32 weights to the bfloat16 number that they round to; returns their share (0 if few).

    Matrix products in bfloat16 read the same numbers before and after.

    >>> weight = torch.tensor([1.0, 1.00390625, 1.5])
    >>> settle_halfway([weight]), weight.tolist()
    (0.3333333333333333, [1.0, 1.0, 1.5])
    """
    weights = [p for p in parameters if p.dtype == torch.float32]
    total = sum(weight.numel() for weight in weights)
    halfway = sum(int(_is_halfway(weight).sum()) for weight in weights)
    if total == 0 or halfway / total < _LEAST_SHARE:
        return 0.0
    for weight in weights:
        weight.copy_(torch.where(_is_halfway(weight), weight.bfloat16().float(), weight))
    return halfway / total


@contextmanager
def settled_halfway(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Within, weights are as `settle_halfway` leaves them; after, as they were.

    Embeddings and norms are read in float32: without this a model would be scored otherwise than the run that starts
    from it scores its reference.

    >>> weight = torch.tensor([1.0, 1.00390625, 1.5])
    >>> with settled_halfway([weight]):
    ...     weight.tolist()
    [1.0, 1.0, 1.5]
    >>> weight.tolist()
    [1.0, 1.00390625, 1.5]
    """
    weights = [weight for weight in parameters if weight.dtype == torch.float32]
    places = [_is_halfway(weight).nonzero(as_tuple=True) for weight in weights]
    kept = [weight.detach()[place] for weight, place in zip(weights, places, strict=True)]
    settle_halfway(weights)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, place, values in zip(weights, places, kept, strict=True):
                weight[place] = values


def _is_halfway(weight: Tensor) -> Tensor:
    """A bfloat16 number is the upper half of a float32's bits; halfway, the lower half is its top bit alone."""
    return (weight.view(torch.int32) & 0xFFFF) == 0x8000
