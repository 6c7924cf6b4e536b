"""Peak memory of a child process, and the part of it that no method can do without.

A child's `ru_maxrss` starts at its parent's peak, so the kernel's own high-water mark of the child is
polled while it runs (`VmHWM` in `/proc`, Linux).
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.05


class ChildFailed(RuntimeError):  # noqa: N818
    """A measured process ended with an error; the message has its last lines."""


@dataclass(frozen=True)
class FixedState:
    """Bytes that any training holds: float32 weights, gradients and the optimiser's two moments."""

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer


def fixed_state(parameters: int) -> FixedState:
    """The fixed state of full fine-tuning with AdamW in float32.

    >>> fixed_state(10).total
    160
    """
    return FixedState(weights=4 * parameters, gradients=4 * parameters, optimizer=8 * parameters)


def high_water(pid: int) -> int | None:
    """Bytes at the highest so far, or None when the process has gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next(
        (int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), None
    )


def run_watched(command: Sequence[str], *, env: Mapping[str, str], log: Path, cwd: Path) -> int:
    """Run `command` to its end with its output in `log`; returns its peak memory in bytes.

    Raises:
        ChildFailed: it ended with an error.
    """
    peak = 0
    with log.open("w") as output:
        child = subprocess.Popen(command, env=dict(env), cwd=cwd, stdout=output, stderr=subprocess.STDOUT)
        try:
            while child.poll() is None:
                peak = max(peak, high_water(child.pid) or 0)
                time.sleep(POLL_SECONDS)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    if child.returncode != 0:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise ChildFailed(f"exit code {child.returncode} from {' '.join(command)}\n{last}")
    return peak
