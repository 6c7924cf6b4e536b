"""Precisions and devices: what a stage runs in unless told."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["bfloat16", "float32", "float64"]
DTYPES: dict[Precision, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
"""The inputs of matrix products in each precision."""


def default_device() -> torch.device:
    """CUDA where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def default_precision(device: torch.device) -> Precision:
    """bfloat16 where the processor multiplies it fast, float32 elsewhere: emulated, it is the slower one."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        # There is no public question for this.
        fast = bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return "bfloat16" if fast else "float32"


def master_dtype(precision: Precision) -> torch.dtype:
    """Of the weights that are trained and loaded."""
    return torch.float64 if precision == "float64" else torch.float32
