"""One row of TRL's numbers: runs inside TRL's own environment, in a process of its own, and writes one JSON
file.

TRL gets its best: gradient checkpointing off (on by default), no truncation, no telemetry, no saving, one
log line at the end. What is timed is what likelier is timed on: the reference pass, and the training
steps with their optimiser; not imports, tokenising and loading.

    python -m benchmarks.trl_side --model FOLDER --pairs F.jsonl --out ROW.json --batch 1 --accumulate 8
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.common import parser, peak_bytes, read_rows

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_DATASETS_OFFLINE="1",
    TQDM_DISABLE="1",
    DISABLE_TELEMETRY="1",
)


def arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--pairs", required=True, type=Path)
    made.add_argument("--batch", type=int, default=1, help="pairs per forward")
    made.add_argument("--accumulate", type=int, default=8, help="forwards per step")
    made.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16")
    made.add_argument("--reference", choices=["precomputed", "fly"], default="precomputed")
    made.add_argument("--learning-rate", type=float, default=1e-6)
    return made.parse_args()


def timed_trainer() -> type:
    """`DPOTrainer` with a clock around its reference pass."""
    import trl

    class TimedTrainer(trl.DPOTrainer):  # type: ignore[misc]
        reference_seconds = 0.0

        def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            dataset = super()._precompute_ref_logps(*args, **kwargs)
            self.reference_seconds += time.perf_counter() - start
            return dataset

    return TimedTrainer


def step_clock() -> Any:
    """A callback that notes the time of the first step's begin, of every step's end, and what was logged."""
    from transformers import TrainerCallback

    class StepClock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.times: list[float] = []
            self.logs: list[dict[str, float]] = []

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if not self.times:
                self.times.append(time.perf_counter())

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.times.append(time.perf_counter())

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            self.logs.append(dict(logs or {}))

    return StepClock()


def same_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Of every TRL trainer here: one epoch as likelier trains it, nothing written, no row cut."""
    import torch

    return {
        "output_dir": str(options.out.with_suffix(".trl")),
        "per_device_train_batch_size": options.batch,
        "gradient_accumulation_steps": options.accumulate,
        "gradient_checkpointing": False,
        "bf16": options.precision == "bfloat16",
        "max_length": None,
        "num_train_epochs": 1,
        "learning_rate": options.learning_rate,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "seed": 0,
    }


def build(options: argparse.Namespace, rows: list[dict[str, str]], clock: Any) -> Any:
    """The trainer, its reference pass already made where it is precomputed."""
    import torch
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = trl.DPOConfig(
        **same_settings(options), precompute_ref_log_probs=options.reference == "precomputed", beta=0.1
    )
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    return timed_trainer()(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(
            [{k: row[k] for k in ("prompt", "chosen", "rejected")} for row in rows]
        ),
        processing_class=tokenizer,
        callbacks=[clock],
    )


def listen(trainer: Any) -> dict[tuple[int, ...], float]:
    """Gathers, per row of tokens, the log-prob that a reference on the fly gives its answer."""
    heard: dict[tuple[int, ...], float] = {}

    def hook(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        sums = output.log_probs.sum(dim=1).tolist()
        for ids, mask, total in zip(kwargs["input_ids"], kwargs["attention_mask"], sums, strict=True):
            heard[tuple(ids[mask.bool()].tolist())] = total

    if trainer.ref_model is not None:
        trainer.ref_model.register_forward_hook(hook, with_kwargs=True)
    return heard


def log_probs(trainer: Any, heard: dict[tuple[int, ...], float]) -> list[list[float]]:
    """Per row, TRL's log-prob of chosen and rejected at the start, in its own batches and precision."""
    data = trainer.train_dataset
    if "ref_chosen_logps" in data.column_names:
        return [[float(row["ref_chosen_logps"]), float(row["ref_rejected_logps"])] for row in data]
    return [
        [heard[tuple(row["prompt_ids"] + row[side])] for side in ("chosen_ids", "rejected_ids")]
        for row in data
    ]


def token_counts(trainer: Any) -> list[list[int]]:
    """Per row, tokens of the prompt, the chosen and the rejected answer as TRL made them."""
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    return [[len(row[name]) for name in names] for row in trainer.train_dataset]


def main() -> None:
    options = arguments()
    import torch

    torch.set_num_threads(options.threads)
    rows = read_rows(options.pairs)
    clock = step_clock()
    trainer = build(options, rows, clock)
    heard = listen(trainer)
    peak_before_training = peak_bytes()
    trainer.train()
    steps = [later - earlier for earlier, later in zip(clock.times, clock.times[1:], strict=False)]
    first = clock.logs[0]
    row = {
        "pairs": len(rows),
        "reference_seconds": trainer.reference_seconds if options.reference == "precomputed" else None,
        "training_seconds": sum(steps),
        "step_seconds": steps,
        "first_loss": first["loss"],
        "first_grad_norm": first["grad_norm"],
        "log_probs": log_probs(trainer, heard),
        "token_counts": token_counts(trainer),
        "peak_bytes_before_training": peak_before_training,
        "peak_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_bytes(),
        "threads": torch.get_num_threads(),
    }
    options.out.write_text(json.dumps(row))


if __name__ == "__main__":
    main()
