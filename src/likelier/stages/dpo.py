"""Direct Preference Optimization: from preference data to a better model.

    likelier dpo --model smollm2 --data preferences.jsonl --out runs/first

math.md (7): `L = −E log σ(β (log-ratio of the chosen − log-ratio of the rejected))`, or any loss of the table in
`objectives`. Where it departs from the paper: a prompt is read once for all its answers (trees), AdamW is the
default optimiser, and the reference's log-probs are scored once and kept on disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from likelier.config import named
from likelier.training.config import DpoConfig
from likelier.training.on_step import OnStep
from likelier.training.preferences import preferences
from likelier.training.preparation import resolve_loss
from likelier.training.run import Run
from likelier.training.session import Inputs, command, settings_of, train


def dpo(
    model: Any,
    data: Any,
    *,
    out: str | Path | None = None,
    reference: Any = None,
    loss: Any = "sigmoid",
    beta: float | None = None,
    on_step: OnStep | None = None,
    tokenizer: Any = None,
    eval_data: Any = None,
    **config: Any,
) -> Run:
    """Train `model` on the preferences in `data`: math.md (7), arXiv 2305.18290 equation 7.

    Args:
        model: a name, a folder, a GGUF file, or a module or PeftModel with its `tokenizer`.
        data: a path or hub name, rows, or a `datasets.Dataset`; or a list of paths.
        out: the run folder; None keeps everything in memory.
        reference: another model than the policy before its first update.
        loss: a name, `"module:function"`, or `f(policy, reference, lengths, beta) -> loss per pair`.
        beta: β, 0.1 unless given.
        on_step: called with each line of metrics.
        tokenizer: needed with a module in memory.
        eval_data: held-out rows, in any form of `data`.
        config: every other setting of `likelier dpo`, by name.

    Raises:
        UsageError, DataError, ModelError: settings, data or model that cannot be used as given.
        WorkError: a loss that is not finite, a full disk, too little memory; the last checkpoint is intact.

    >>> run = dpo("smollm2", [{"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"}])  # doctest: +SKIP
    >>> run.metrics[0]["loss"]  # doctest: +SKIP
    0.6931471805599453
    """
    inputs = Inputs(model, data, eval_data, tokenizer)
    given = {"out": out, "beta": beta, "reference": named(reference), "loss": named(loss)}
    settings = settings_of(DpoConfig, inputs, **given, **config)
    method = preferences(
        settings, resolve_loss(settings, loss, given=settings.model_fields_set), reference=reference
    )
    return train(settings, method, inputs, on_step=on_step, say=lambda text: None, quiet=True)


def main(config: DpoConfig) -> int:
    """The command: the same run, with words on stderr and the result on stdout."""
    loss = resolve_loss(config, config.loss, given=config.model_fields_set)
    return command(
        config,
        preferences(config, loss, reference=config.reference),
        Inputs(config.model, config.data, config.eval_data),
    )
