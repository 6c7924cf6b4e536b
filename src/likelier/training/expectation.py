"""How long a run will take: said before it begins, from the machine's rate of products and a little experience."""

from __future__ import annotations

import torch

_PRODUCTS = 0.9
"""Of the rate of matrix products, reached by a pass's own."""
_BESIDE = 240e9
"""FLOP/s of a pass on one thread, were there only what waits for memory: norms, softmax, copies, attention."""
_UPDATE = 4.4e-9
"""Seconds of one thread for each trained weight of an update: the optimiser, fresh working copies, a pass's rest."""
_CUDA_SHARE = 0.4
"""Of the rate of products, on a GPU: a guess, none has been measured (docs/log.md)."""


def expected_seconds(
    work: float, *, rate: float, updated: float, device: torch.device, threads: int
) -> float:
    """Seconds of `work`: its products, what waits for memory beside them, and the updates.

    The faster the products, the smaller the share of their rate that a run reaches, and so it is with small steps:
    an update costs the same after one pair as after a hundred. Measured on two machines of two cores whose products
    differ fourfold (docs/log.md); with more threads all of it is taken to be as much faster.

    Args:
        work: FLOP of all passes.
        rate: FLOP/s of matrix products here.
        updated: trained weights times updates.
        threads: of the CPU.

    >>> cpu = torch.device("cpu")
    >>> round(expected_seconds(5.1e12, rate=388e9, updated=3 * 134.5e6, device=cpu, threads=2), 1)
    26.1
    """
    if device.type == "cuda":
        return work / (_CUDA_SHARE * rate)
    return work / (_PRODUCTS * rate) + (work / _BESIDE + updated * _UPDATE) / threads
