"""Forward products in fixed shapes.

On CPU the library picks its matrix kernel by the number of rows, so the same token gets other bits in another
pack. Here every forward product therefore has `ROWS` rows: a row's numbers depend on the row alone. Backward
products run at full size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

ROWS = 128
"""Of a forward product on a CPU: more are a few percent faster, but a pack's last block is padded (docs/log.md)."""
_TILE = {torch.float32: 16, torch.float64: 48}
"""Columns of a forward product are a multiple of this on a CPU: on an AMD processor the library computes those past
its own tile (16 and 24) differently for some rows of a block (docs/log.md)."""


def fixed_rows_linear(
    x: Float[Tensor, "T K"],
    matrix: Float[Tensor, "N K"],
    bias: Float[Tensor, " N"] | None = None,
    *,
    rows: int = ROWS,
) -> Float[Tensor, "T N"]:
    """`x @ matrix.T + bias` for `[T, K]` and `[N, K]`; on CPU in products of `rows` rows, the last padded.

    >>> x = torch.randn(300, 8)
    >>> torch.equal(fixed_rows_linear(x, torch.eye(8))[290:], fixed_rows_linear(x[290:], torch.eye(8)))
    True
    """
    if x.is_cuda:
        return F.linear(x, matrix, bias)
    out = x.new_empty(len(x), len(matrix))
    full = len(x) - len(x) % rows
    for start in range(0, full, rows):
        _product(x[start : start + rows], matrix, bias, out[start : start + rows])
    if full < len(x):
        padded = x.new_zeros(rows, x.shape[1])
        padded[: len(x) - full] = x[full:]
        last = _product(padded, matrix, bias, x.new_empty(rows, len(matrix)))
        out[full:] = last[: len(x) - full]
    return out


def _product(x: Tensor, matrix: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    """`out = x @ matrix.T + bias`, columns past a whole number of tiles apart, as a tile of their own."""
    tail = len(matrix) % _TILE.get(x.dtype, 1)
    whole = len(matrix) - tail
    if whole:
        _multiply(x, matrix[:whole], None if bias is None else bias[:whole], out[:, :whole])
    if tail:
        tile = F.pad(matrix[whole:], (0, 0, 0, _TILE[x.dtype] - tail))
        columns = _multiply(x, tile, None, x.new_empty(len(x), len(tile)))[:, :tail]
        out[:, whole:] = columns if bias is None else columns + bias[whole:]
    return out


def _multiply(x: Tensor, matrix: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    if bias is None:
        return torch.mm(x, matrix.T, out=out)
    return torch.addmm(bias, x, matrix.T, out=out)
