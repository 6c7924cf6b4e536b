"""transformers and peft kept quiet: progress bars and a few known messages that ask nothing of the reader.

Everything else they say is let through. Weights that are missing or left over, which transformers
reports as a table before it carries on, are errors of ours (`loading.py`).
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

_NOISE = (
    "LOAD REPORT",
    "loss_type=",
    "is falling back to its reference PyTorch implementation",
    "Converting and de-quantizing GGUF tensors",
)
_filter_installed = False


class _WithoutNoise(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to let the message through."""
        message = record.getMessage()
        return not any(noise in message for noise in _NOISE)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Inside, transformers shows no progress bars; its known noise is dropped from here on."""
    from transformers.utils import logging as theirs

    _drop_noise(theirs.get_logger("transformers"))
    shown = theirs.is_progress_bar_enabled()
    theirs.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # peft asks for an attribute that transformers is about to rename.
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
            yield
    finally:
        if shown:
            theirs.enable_progress_bar()


def _drop_noise(root: logging.Logger) -> None:
    """Filter the handlers, since a filter on a logger does not see what its children log."""
    global _filter_installed
    if not _filter_installed:
        for handler in root.handlers:
            handler.addFilter(_WithoutNoise())
        _filter_installed = True
