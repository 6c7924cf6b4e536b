"""Forward products in fixed shapes.

On CPU the library picks its matrix kernel by the number of rows, so the same token gets other bits in another
pack. Here every forward product therefore has one of a few numbers of rows, which were seen to give a row the same
bits: a row's numbers depend on the row alone. Backward products run at full size.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

ROWS = 128
"""Of a forward product on a CPU, whose bits are the measure for those of more rows and fewer."""
_ROW_COUNTS = (1024, 512, 256, ROWS, 64)
"""Of products that are tried: with more rows they are a tenth faster, with fewer a pack's end pads less."""
_WORTH_TRYING = 1 << 17
"""Numbers of a matrix from which on that is worth the trial."""
_TILE = {torch.float32: 16, torch.float64: 48}
"""Columns of a forward product are a multiple of this on a CPU: on an AMD processor the library computes those past
its own tile (16 and 24) differently for some rows of a block (docs/log.md)."""


def fixed_rows_linear(
    x: Float[Tensor, "T K"],
    matrix: Float[Tensor, "N K"],
    bias: Float[Tensor, " N"] | None = None,
    *,
    rows: int | None = None,
    out: Float[Tensor, "T N"] | None = None,
) -> Float[Tensor, "T N"]:
    """`x @ matrix.T + bias` for `[T, K]` and `[N, K]`; on CPU in products of fixed numbers of rows, the last padded.

    `rows` of each product; by default few and large ones, as far as they give a row the bits that it has in `ROWS`.

    >>> x = torch.randn(300, 8)
    >>> torch.equal(fixed_rows_linear(x, torch.eye(8))[290:], fixed_rows_linear(x[290:], torch.eye(8)))
    True
    """
    if x.is_cuda and out is None:
        return F.linear(x, matrix, bias)
    out = x.new_empty(len(x), len(matrix)) if out is None else out
    if x.is_cuda:
        return _multiply(x, matrix, bias, out)
    start = 0
    for count in _row_counts(x, matrix, bias) if rows is None else [rows] * -(-len(x) // rows):
        if start + count <= len(x):
            _product(x[start : start + count], matrix, bias, out[start : start + count])
        else:
            padded = x.new_zeros(count, x.shape[1])
            padded[: len(x) - start] = x[start:]
            last = _product(padded, matrix, bias, x.new_empty(count, len(matrix)))
            out[start:] = last[: len(x) - start]
        start += count
    return out


def _row_counts(x: Tensor, matrix: Tensor, bias: Tensor | None) -> list[int]:
    if len(x) <= ROWS or matrix.numel() < _WORTH_TRYING:
        return [ROWS] * -(-len(x) // ROWS)
    shape = (*matrix.shape, matrix.stride(0) == 1, bias is not None)
    sizes = _equal_row_counts(x.dtype, *shape, threads=torch.get_num_threads())
    left, counts = len(x) + -len(x) % sizes[-1], []
    for size in sizes:
        counts += [size] * (left // size)
        left %= size
    return counts


@lru_cache(maxsize=256)
@torch.no_grad()
def _equal_row_counts(
    dtype: torch.dtype, outputs: int, inputs: int, transposed: bool, biased: bool, *, threads: int
) -> list[int]:
    """Those of `_ROW_COUNTS` whose products have the bits of `ROWS` rows, by trying; `threads` is only a key."""
    generator = torch.Generator().manual_seed(0)

    def made(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    x, bias = made(max(_ROW_COUNTS), inputs), made(outputs) if biased else None
    matrix = made(inputs, outputs).T if transposed else made(outputs, inputs)

    def of(size: int) -> Tensor:
        parts = [_product(part, matrix, bias, x.new_empty(size, outputs)) for part in x.split(size)]
        return torch.cat(parts)

    measure = of(ROWS)
    return [size for size in _ROW_COUNTS if size == ROWS or torch.equal(of(size), measure)]


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
