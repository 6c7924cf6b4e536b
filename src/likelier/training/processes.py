"""The process: refused where there are several, deterministic while it trains, stopped between two steps."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from torch.utils import deterministic as settings

from likelier.errors import UsageError, WorkError, is_out_of_memory

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Names of settings in glibc's malloc.h."""


def require_single_process(stage: str) -> None:
    """Raises `UsageError` under torchrun with several processes, which this stage cannot use yet."""
    world = os.environ.get("WORLD_SIZE", "1")
    if world != "1":
        raise UsageError(
            f"likelier {stage} runs in one process so far, and WORLD_SIZE is {world}; start it without torchrun"
        )


@contextmanager
def deterministic() -> Iterator[None]:
    """Deterministic operations for as long as the context lasts; what the caller had set comes back."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = settings.fill_uninitialized_memory  # type: ignore[attr-defined]
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Filling memory that is written right after costs a pass over it and changes no number.
    settings.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        settings.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def keep_freed_memory() -> None:
    """Give back what loading left behind, then have glibc keep what is freed for the next pack.

    Its own rule moves the limit above which blocks are mapped one by one as it sees larger ones; fragmented, a run
    then takes a tenth more memory and time (docs/log.md). Elsewhere than on Linux with glibc that is left alone.
    """
    # The copy that the check at load was made on hangs in cycles: a fifth of a gigabyte for SmolLM2-135M.
    gc.collect()
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt") and hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
        library.mallopt(_M_MMAP_THRESHOLD, 1 << 25)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def named_shortage() -> Iterator[None]:
    """Inside, running out of memory is a `WorkError` with the remedy, on every device."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise WorkError(
            "out of memory; the last checkpoint is intact. Lower --max-tokens, set --gradient-checkpointing, or train"
            " an adapter with --lora-rank 16; a run with a checkpoint goes on with --resume"
        ) from error


class StopRequest:
    """Ctrl-C and SIGTERM ask the loop to stop after its step; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.by_signal = False
        """Rather than by a figure that stopped improving, or by `on_step`."""

    def requested(self) -> bool:
        """Whether the loop is to end after this step."""
        return self.reason is not None

    def during(
        self, work: str, told: Callable[[int, int], None], *, again: str
    ) -> Callable[[int, int], None]:
        """An `on_progress` that also ends `work`, whose parts are kept, once somebody asks to stop.

        Args:
            told: called first, with what is done and what there is to do.
            again: what goes on from there, in words.

        Raises:
            WorkError: from the callback.
        """

        def on_progress(done: int, total: int) -> None:
            told(done, total)
            if self.requested():
                raise WorkError(
                    f"stopped by {self.reason} during {work}, {done:,} of {total:,} prompts done; they are kept, and"
                    f" {again} goes on from there"
                )

        return on_progress

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Handle the signals for as long as the context lasts; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        names = [signal.SIGINT, signal.SIGTERM]
        before = [signal.signal(name, self._handle) for name in names]
        try:
            yield self
        finally:
            for name, handler in zip(names, before, strict=True):
                signal.signal(name, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.reason is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.by_signal = True
        self.reason = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
