"""One row of TRL's RewardTrainer: runs inside TRL's own environment, in a process of its own, writes one JSON file.

It gets its best as in `trl_side.py`. What is timed are the training steps with their optimiser.

    python -m benchmarks.trl_reward_side --model FOLDER --pairs F.jsonl --out ROW.json --batch 1 --accumulate 8
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from benchmarks.common import peak_bytes, read_rows
from benchmarks.trl_side import arguments, same_settings, step_clock


def build(options: argparse.Namespace, rows: list[dict[str, str]], clock: Any) -> Any:
    """The trainer over the same rows as likelier's."""
    import torch
    import trl
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    config = trl.RewardConfig(**same_settings(options))
    model = AutoModelForSequenceClassification.from_pretrained(
        options.model, num_labels=1, dtype=torch.float32
    )
    torch.nn.init.zeros_(model.score.weight)  # As likelier starts, so that both begin at log 2.
    return trl.RewardTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(
            [{k: row[k] for k in ("prompt", "chosen", "rejected")} for row in rows]
        ),
        processing_class=AutoTokenizer.from_pretrained(options.model),
        callbacks=[clock],
    )


def main() -> None:
    options = arguments()
    import torch

    torch.set_num_threads(options.threads)
    rows = read_rows(options.pairs)
    clock = step_clock()
    trainer = build(options, rows, clock)
    trainer.train()
    steps = [later - earlier for earlier, later in zip(clock.times, clock.times[1:], strict=False)]
    row = {
        "pairs": len(rows),
        "reference_seconds": None,
        "training_seconds": sum(steps),
        "step_seconds": steps,
        "first_loss": clock.logs[0]["loss"],
        "first_grad_norm": clock.logs[0]["grad_norm"],
        "token_counts": [[len(one["chosen_ids"]), len(one["rejected_ids"])] for one in trainer.train_dataset],
        "peak_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_bytes(),
        "threads": torch.get_num_threads(),
    }
    options.out.write_text(json.dumps(row))


if __name__ == "__main__":
    main()
