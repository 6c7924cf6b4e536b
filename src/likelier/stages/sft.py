"""Supervised fine-tuning: from answers to imitate to a model that gives such answers.

    likelier sft --model smollm2 --data answers.jsonl --out runs/sft
    likelier sft --model smollm2 --data preferences.jsonl --on chosen --out runs/preferred

`L = −Σ log π_θ(y_t | x, y_<t) / number of scored tokens`, over a step; on the preferred answers alone it is
Preferred-FT, math.md (11). Only the assistant's tokens are scored, every turn of a conversation once, and the end of
each turn with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from likelier.models.adapters import is_adapted
from likelier.models.chat import stopping_at_turns, with_template
from likelier.models.loading import Loaded
from likelier.training.config import SftConfig
from likelier.training.imitation import imitation
from likelier.training.method import Method
from likelier.training.on_step import OnStep
from likelier.training.run import Run
from likelier.training.session import Inputs, command, settings_of, train


def sft(
    model: Any,
    data: Any,
    *,
    out: str | Path | None = None,
    on_step: OnStep | None = None,
    tokenizer: Any = None,
    eval_data: Any = None,
    **config: Any,
) -> Run:
    """Train `model` on the answers in `data`: `−Σ log π_θ(y_t | x, y_<t)` over scored tokens, math.md (11).

    Args:
        model: a name, a folder, a GGUF file, or a module or PeftModel with its `tokenizer`.
        data: a path or hub name, rows, or a `datasets.Dataset`; or a list of paths. Rows are prompts with a
            completion, conversations (`messages`), plain `text`, or with `on="chosen"` preferences.
        out: the run folder; None keeps everything in memory.
        on_step: called with each line of metrics.
        tokenizer: needed with a module in memory.
        eval_data: held-out rows, in any form of `data`.
        config: every other setting of `likelier sft`, by name.

    Raises:
        UsageError, DataError, ModelError: settings, data or model that cannot be used as given.
        WorkError: a loss that is not finite, a full disk, too little memory; the last checkpoint is intact.

    >>> run = sft("smollm2", [{"prompt": "2 + 2 =", "completion": " 4"}])  # doctest: +SKIP
    >>> sorted(run.metrics[0])[:3]  # doctest: +SKIP
    ['epoch', 'examples_per_second', 'examples_seen']
    """
    inputs = Inputs(model, data, eval_data, tokenizer)
    settings = settings_of(SftConfig, inputs, out=out, **config)
    return train(settings, _method(settings), inputs, on_step=on_step, say=lambda text: None, quiet=True)


def main(config: SftConfig) -> int:
    """The command: the same run, with words on stderr and the result on stdout."""
    return command(config, _method(config), Inputs(config.model, config.data, config.eval_data))


def _method(config: SftConfig) -> Method:
    def prepare(loaded: Loaded) -> Loaded:
        if config.template is None:
            return stopping_at_turns(loaded)
        adapter = config.lora_rank is not None or is_adapted(loaded.model)
        return with_template(loaded, config.template, adapter=adapter)

    return imitation(need="best" if config.on == "chosen" else "examples", prepare=prepare)
