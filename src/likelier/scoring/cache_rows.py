"""The rows of the log-prob cache: the address of a branch by content, and values with a checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Logps = npt.NDArray[np.floating[Any]]
Row = tuple[bytes, int, int, bytes, bytes]
"""Key, bytes per item, number of items, checksum, payload (little-endian)."""

_STORED_TYPES: dict[int, np.dtype[np.floating[Any]]] = {4: np.dtype("<f4"), 8: np.dtype("<f8")}
_NATIVE_TYPES: dict[int, np.dtype[np.floating[Any]]] = {4: np.dtype("=f4"), 8: np.dtype("=f8")}


def branch_key(
    model_digest: bytes, *, trunk: Sequence[int], branch: Sequence[int], scored: Sequence[bool]
) -> bytes:
    """The address of a branch's log-probs: 32 bytes that change whenever the numbers may.

    Args:
        model_digest: of everything about the model that enters the forward: weights as loaded,
            configuration, precision, kernel version.
        trunk: token ids from the root to the branch.
        branch: token ids of the branch.
        scored: which of the branch's tokens have a log-prob in the entry.

    >>> one = branch_key(b"model", trunk=[1, 2], branch=[3], scored=[True])
    >>> len(one), one == branch_key(b"model", trunk=[1], branch=[2, 3], scored=[False, True])
    (32, False)
    """
    digest = hashlib.blake2b(digest_size=32)
    for part in (
        model_digest,
        np.asarray(trunk, "<i8").tobytes(),
        np.asarray(branch, "<i8").tobytes(),
        np.asarray(scored, np.bool_).tobytes(),
    ):
        # Lengths first: no two different lists of parts run together into the same bytes.
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def pack_row(key: bytes, values: Logps) -> Row:
    """The columns of one entry; `values` is `[scored tokens]`, float32 or float64.

    Raises:
        ValueError: an array of another dtype or shape.

    >>> unpack_row(*pack_row(b"key", np.array([-0.5, -1.25])))
    array([-0.5 , -1.25])
    """
    item_size, length = values.dtype.itemsize, values.size
    if values.ndim != 1 or values.dtype.kind != "f" or item_size not in _STORED_TYPES:
        raise ValueError(
            f"log-probs must be one row of float32 or float64, not {values.dtype} {values.shape}"
        )
    payload = values.astype(_STORED_TYPES[item_size]).tobytes()
    return key, item_size, length, _checksum(key, item_size, length, payload), payload


def unpack_row(
    key: object, item_size: object, length: object, checksum: object, payload: object
) -> Logps | None:
    """The array of one row, or None where anything about it is not as it was written.

    >>> key, item_size, length, checksum, payload = pack_row(b"key", np.array([-0.5]))
    >>> unpack_row(b"another key", item_size, length, checksum, payload) is None
    True
    """
    if not (isinstance(key, bytes) and isinstance(payload, bytes) and isinstance(length, int)):
        return None
    if not isinstance(item_size, int) or item_size not in _STORED_TYPES or len(payload) != length * item_size:
        return None
    if checksum != _checksum(key, item_size, length, payload):
        return None
    return np.frombuffer(payload, dtype=_STORED_TYPES[item_size]).astype(_NATIVE_TYPES[item_size])


def _checksum(key: bytes, item_size: int, length: int, payload: bytes) -> bytes:
    """Over the key too: values that ended up under another's key are damage."""
    head = b"%d %d %d " % (len(key), item_size, length)
    return hashlib.blake2b(head + key + payload, digest_size=16).digest()
