"""The reference's log-probs of the trees that a run visits: from the cache on disk, or scored once and kept there.

The key is content: weights as loaded, the configuration that enters the forward, precision and kernels, and the
tokens of trunk and branch. Changing β, the loss or the learning rate costs nothing; new rows cost themselves.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from likelier.data.trees import Tree
from likelier.models.identity import forward_config_digest, weights_digest
from likelier.scoring.cache import LogpCache
from likelier.scoring.cache_rows import branch_key
from likelier.scoring.packing import subtree
from likelier.scoring.scorer import Scorer

_TREES_PER_WRITE = 64
_KERNELS = (
    *("packing", "attention", "kernels", "products", "weights", "layers", "norms", "activations", "experts"),
    *("head", "distribution", "forward", "parts", "rotary", "scorer"),
)
"""The files that make the numbers."""


def content_digest(scorer: Scorer) -> bytes:
    """Of the model alone: weights as loaded, and the configuration that enters the forward; 32 bytes."""
    digest = hashlib.sha256(weights_digest(scorer.causal))
    digest.update(forward_config_digest(scorer.causal.config))
    return digest.digest()


def arithmetic(scorer: Scorer) -> str:
    """In words, what the last bits of a scorer's numbers depend on besides its model."""
    cuda = scorer.device.type == "cuda"
    where = torch.cuda.get_device_name(scorer.device) if cuda else torch.backends.cpu.get_cpu_capability()
    return (
        f"kernels {_kernel_version()}, {scorer.way}, own head {scorer.own_head}, {scorer.dtype},"
        # A product may be shared out between threads along the sum, so their number enters the last bit.
        f" torch {torch.__version__}, {where}, threads {0 if cuda else torch.get_num_threads()}"
    )


def model_digest(scorer: Scorer, *, content: bytes | None = None) -> bytes:
    """Of everything about a scorer that its numbers depend on; 32 bytes. `content` is its digest, where known."""
    return hashlib.sha256(arithmetic(scorer).encode() + (content or content_digest(scorer))).digest()


def reference_logps(
    scorer: Scorer,
    trees: Sequence[Tree],
    *,
    cache: LogpCache | None,
    digest: bytes,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[list[Tensor]]:
    """Per tree and branch, the log-probs of its scored tokens under the reference.

    Args:
        scorer: of the reference; with `digest = model_digest(scorer)`.
        cache: where known ones are looked up and new ones kept; None does neither.
        on_progress: called with (trees scored, trees to score), of those that the cache lacks. What it raises ends
            the pass; what was scored until then is in the cache.
    """
    keys = [_keys(tree, digest) for tree in trees]
    known = {} if cache is None else cache.get([key for own in keys for key in own])
    missing: list[Tree] = []
    asked: set[bytes] = set()
    wanted: list[list[bytes]] = []
    for tree, own in zip(trees, keys, strict=True):
        branches = [k for k, key in enumerate(own) if key not in known and key not in asked]
        if branches:
            asked.update(own[k] for k in branches)
            missing.append(subtree(tree, branches))
            wanted.append([own[k] for k in branches])
    fresh: dict[bytes, np.ndarray] = {}
    try:
        for done, (index, logps) in enumerate(scorer.score_each(missing), 1):
            fresh |= {key: values.numpy() for key, values in zip(wanted[index], logps, strict=True)}
            if cache is not None and done % _TREES_PER_WRITE == 0:
                cache.put(fresh)
                known |= fresh
                fresh = {}
            if on_progress is not None:
                on_progress(done, len(missing))
    finally:
        # Also where somebody interrupts: what was scored is not scored again.
        if cache is not None and fresh:
            cache.put(fresh)
    known |= fresh
    return [[torch.from_numpy(known[key]) for key in own] for own in keys]


def in_tenths(say: Callable[[str], None], what: str, *, after: float = 0.0) -> Callable[[int, int], None]:
    """An `on_progress` that says how far a pass is, in ten lines at most: it may take minutes.

    What is done within `after` seconds says nothing.

    >>> for done in range(1, 11):
    ...     in_tenths(print, "rewards", after=3600)(done, 10)

    >>> told = in_tenths(print, "reference")
    >>> for done in range(1, 41):
    ...     told(done, 40) if done > 33 else None
    reference: 36 of 40 prompts scored
    reference: 40 of 40 prompts scored
    """

    started = time.monotonic()

    def told(done: int, total: int) -> None:
        due = done * 10 // total > (done - 1) * 10 // total
        if due and time.monotonic() - started >= after:
            say(f"{what}: {done:,} of {total:,} prompts scored")

    return told


def branch_sums(logps: Sequence[Tensor]) -> Tensor:
    """`[branches]` float64: the sums that the policy's `Scorer.branch_logps` are compared with, bit for bit."""
    return torch.stack([values.double().sum() for values in logps])


@cache
def _kernel_version() -> str:
    """Of the code that makes the numbers: a change that moves a bit must miss, and nobody remembers to say so."""
    digest = hashlib.sha256()
    for name in _KERNELS:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()


def _keys(tree: Tree, digest: bytes) -> list[bytes]:
    keys = []
    for branch in tree.branches:
        *above, leaf = (tree.nodes[node] for node in tree.path(branch))
        trunk = np.concatenate([node.tokens for node in above]) if above else np.zeros(0, np.int32)
        keys.append(
            branch_key(digest, trunk=trunk, branch=leaf.tokens, scored=leaf.scored)  # type: ignore[arg-type]
        )
    return keys
