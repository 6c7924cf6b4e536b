"""Random numbers that belong to a place, not to a moment: noise as a pure function of where it is used.

Sampling with a generator's stream depends on what was drawn before: another batch size, another order, a
resumed run, and every sample is another. Here each next-token draw has a key, hashed from (seed, prompt id,
sample index, position), and the number for a vocabulary entry is a hash of that key and the entry.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

import torch
from torch import Tensor


def draw_key(seed: int, prompt_id: str, index: int, position: int) -> int:
    """The 62-bit key of one draw.

    >>> draw_key(0, "a", 1, 2) == draw_key(0, "a", 1, 2), draw_key(0, "a", 1, 2) == draw_key(0, "a", 2, 1)
    (True, False)
    """
    place = f"{seed}\0{index}\0{position}\0{prompt_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(place, digest_size=8).digest(), "little") >> 2


def uniform(*place: int | str) -> float:
    """A number from [0, 1), even over places: a hash of where it is used.

    >>> uniform(0, "a", 1, 2) == uniform(0, "a", 1, 2), uniform(0, "a", 1, 2) == uniform(0, "a", 2, 1)
    (True, False)
    """
    # Lengths first, so that no two places are written alike.
    parts = [str(part).encode("utf-8", "surrogatepass") for part in place]
    written = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    bits = int.from_bytes(blake2b(written, digest_size=8, person=b"uniform").digest(), "little")
    return (bits >> 11) * 2.0**-53


def exponential_noise(keys: Tensor, size: int) -> Tensor:
    """Standard exponential numbers, one row per key.

    With `p` a row of probabilities, `argmax(p / noise)` is a draw from `p`: the Gumbel-max trick without its
    second logarithm, since a standard Gumbel number is minus the log of an exponential one.

    Args:
        keys: [rows] int64, from `draw_key`.
        size: entries of the vocabulary.

    Returns:
        [rows, size] float32, all above 0; the same bits whatever the other rows are.

    >>> noise = exponential_noise(torch.tensor([draw_key(0, "a", 0, 0)]), 50_000)
    >>> 0.98 < noise.mean().item() < 1.02
    True
    """
    low = (keys & 0x7FFFFFFF).to(torch.int32)[:, None]
    high = (keys >> 31).to(torch.int32)[:, None] | 1  # odd, so that the product below is a bijection
    bits = _mix_((_hashed_range(size, keys.device) ^ low) * high)
    # 31 bits, small values exact: E = -log(1 - v) is smallest, and most likely to win, where v is smallest.
    uniform = bits.bitwise_and_(0x7FFFFFFF).to(torch.float32).add_(0.5).mul_(2.0**-31)
    return uniform.neg_().log1p_().neg_()


@lru_cache(maxsize=8)
def _hashed_range(size: int, device: torch.device) -> Tensor:
    return _mix_(torch.arange(1, size + 1, dtype=torch.int32, device=device))


def _mix_(bits: Tensor) -> Tensor:
    """An invertible 32-bit hash, in place: every input bit flips about half of the output bits."""
    for shift, factor in ((16, -2048144789), (13, -1028477387), (16, None)):
        bits ^= (bits >> shift) & ((1 << (32 - shift)) - 1)
        if factor is not None:
            bits *= factor
    return bits
