"""A reward model from preference data: one number for each answer, higher for those that people prefer.

    likelier reward --model runs/sft/model --data preferences.jsonl --out runs/reward

math.md (3): `L = −E log σ(r(x, y_w) − r(x, y_l))`, or with `--loss plackett_luce` the likelihood of whole rankings,
math.md (2). The reward is a linear function of the hidden state of an answer's last token; it starts at 0, and its
mean over the data is 0 in the end. The result is a sequence classifier that transformers loads alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from likelier.training.config import RewardConfig
from likelier.training.on_step import OnStep
from likelier.training.rewarding import rewarding
from likelier.training.run import Run
from likelier.training.session import Inputs, command, settings_of, train


def reward(
    model: Any,
    data: Any,
    *,
    out: str | Path | None = None,
    on_step: OnStep | None = None,
    tokenizer: Any = None,
    eval_data: Any = None,
    **config: Any,
) -> Run:
    """Train a reward model on the preferences in `data`: math.md (3), arXiv 2305.18290 equation 2.

    Args:
        model: what to start from: a causal model or a reward model, as a name, a folder, a GGUF file, or a module with
            its `tokenizer`, which is copied.
        data: a path or hub name, rows, or a `datasets.Dataset`; or a list of paths.
        out: the run folder; None keeps everything in memory.
        on_step: called with each line of metrics.
        tokenizer: needed with a module in memory.
        eval_data: held-out rows, in any form of `data`.
        config: every other setting of `likelier reward`, by name.

    Raises:
        UsageError, DataError, ModelError: settings, data or model that cannot be used as given.
        WorkError: a loss that is not finite, a full disk, too little memory; the last checkpoint is intact.

    >>> run = reward("smollm2", [{"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"}])  # doctest: +SKIP
    >>> run.metrics[0]["loss"]  # doctest: +SKIP
    0.6931471805599453
    """
    inputs = Inputs(model, data, eval_data, tokenizer)
    settings = settings_of(RewardConfig, inputs, out=out, **config)
    return train(settings, rewarding(settings), inputs, on_step=on_step, say=lambda text: None, quiet=True)


def main(config: RewardConfig) -> int:
    """The command: the same run, with words on stderr and the result on stdout."""
    return command(config, rewarding(config), Inputs(config.model, config.data, config.eval_data))
