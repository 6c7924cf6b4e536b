"""One row of likelier's numbers, in a process of its own: the mirror of `trl_side.py`.

What is timed is what TRL is timed on: the reference pass, and the training steps with their optimiser; not
imports, loading and tokenising. Settings other than the step, the precision and the learning rate are the
defaults. The cache of reference log-probs is empty at the start (`LIKELIER_CACHE`), so its pass is paid.

    python -m benchmarks.likelier_side --model FOLDER --pairs F.jsonl --out ROW.json --batch 8
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import parser, peak_bytes, read_rows


class Clock:
    """Watches a run from outside: its reference pass, its first step's begin and every step's end."""

    def __init__(self) -> None:
        self.reference_seconds = 0.0
        self.times: list[float] = []
        self.lines: list[dict[str, Any]] = []
        self.training: Any = None

    def install(self, training: type) -> None:
        """Put the clock around the two methods of likelier's loop."""
        training.score_reference = self._around_reference(training.score_reference)  # type: ignore[attr-defined]
        training._step = self._around_step(training._step)  # type: ignore[attr-defined]

    def on_step(self, line: dict[str, Any]) -> None:
        self.times.append(time.perf_counter())
        self.lines.append(line)

    def _around_reference(self, method: Callable[..., None]) -> Callable[..., None]:
        def timed(training: Any, *args: Any) -> None:
            start = time.perf_counter()
            method(training, *args)
            self.reference_seconds += time.perf_counter() - start
            self.training = training

        return timed

    def _around_step(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(training: Any) -> Any:
            if not self.times:
                self.times.append(time.perf_counter())
            return method(training)

        return timed


def log_probs(training: Any, rows: int) -> list[list[float]]:
    """Per row, likelier's log-prob of each of its answers at the start."""
    found: list[dict[int, float]] = [{} for _ in range(rows)]
    for index, reference in training.reference.sums.items():
        for sources, value in zip(training.plan.trees[index].sources, reference.tolist(), strict=True):
            for record, completion in sources:
                found[record][completion] = value
    return [[of_row[completion] for completion in sorted(of_row)] for of_row in found]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--pairs", required=True, type=Path)
    arguments.add_argument("--stage", choices=["dpo", "reward"], default="dpo")
    arguments.add_argument("--batch", type=int, default=8, help="pairs per step")
    arguments.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16")
    arguments.add_argument("--learning-rate", type=float, default=1e-6)
    options = arguments.parse_args()
    import torch

    import likelier
    from likelier.training.loop import Training

    torch.set_num_threads(options.threads)
    clock = Clock()
    clock.install(Training)
    rewards = options.stage == "reward"
    # A reward model is centred after its steps, which are what is timed: TRL does not centre.
    train, more = (likelier.reward, {"centre": False}) if rewards else (likelier.dpo, {})
    train(
        options.model,
        options.pairs,
        batch_size=options.batch,
        precision=options.precision,
        learning_rate=options.learning_rate,
        warmup_steps=0,
        on_step=clock.on_step,
        **more,
    )
    steps = [later - earlier for earlier, later in zip(clock.times, clock.times[1:], strict=False)]
    row = {
        "reference_seconds": None if rewards else clock.reference_seconds,
        "training_seconds": sum(steps),
        "step_seconds": steps,
        "first_loss": clock.lines[0]["loss"],
        "first_grad_norm": clock.lines[0]["grad_norm"],
        "log_probs": [] if rewards else log_probs(clock.training, len(read_rows(options.pairs))),
        "max_tokens": clock.training.policy.scorer.max_tokens,
        "peak_bytes": peak_bytes(),
        "threads": torch.get_num_threads(),
    }
    options.out.write_text(json.dumps(row))


if __name__ == "__main__":
    main()
