"""Direct Preference Optimization: from preference data to a better model.

    likelier dpo --model smollm2 --data preferences.jsonl --out runs/first

math.md (7): `L = −E log σ(β (log-ratio of the chosen − log-ratio of the rejected))`, or any loss of the table in
`objectives`. Where it departs from the paper: a prompt is read once for all its answers (trees), AdamW is the
default optimiser, and the reference's log-probs are scored once and kept on disk.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likelier.config import named, named_data
from likelier.manifest import as_json
from likelier.models.loading import load_model
from likelier.scoring.limits import require_context
from likelier.training.config import DpoConfig
from likelier.training.folder import RunFolder
from likelier.training.loop import OnStep, Training
from likelier.training.plan import Plan
from likelier.training.policy import load_policy, with_rate
from likelier.training.preparation import load_data, need_of, resolve_loss
from likelier.training.processes import (
    deterministic,
    keep_freed_memory,
    named_shortage,
    require_single_process,
)
from likelier.training.run import Run
from likelier.training.samples import read_sample_prompts, require_room
from likelier.training.trackers import require_tracker


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
    inputs = _Inputs(model, data, reference, eval_data, tokenizer, loss)
    values = {"out": out, "beta": beta, "reference": named(reference), **config}
    settings = DpoConfig.build(
        {
            **{key: value for key, value in values.items() if value is not None},
            "model": named(model),
            "data": named_data(data),
            "eval_data": named_data(eval_data),
            "loss": named(loss),
        }
    )
    return train(settings, inputs, on_step=on_step, say=lambda text: None, quiet=True)


def main(config: DpoConfig) -> int:
    """The command: the same function, with words on stderr and the result on stdout."""
    inputs = _Inputs(config.model, config.data, config.reference, config.eval_data, None, config.loss)
    run = train(config, inputs, on_step=None, say=lambda text: print(text, file=sys.stderr), quiet=False)
    print(as_json(run.result) if config.json_ else run.report())
    return 1 if run.stopped in ("Ctrl-C", "SIGTERM") else 0


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What the configuration can only name: models, rows and functions in memory."""

    model: Any
    data: Any
    reference: Any
    eval_data: Any
    tokenizer: Any
    loss: Any


def train(
    config: DpoConfig, inputs: _Inputs, *, on_step: OnStep | None, say: Callable[[str], None], quiet: bool
) -> Run:
    """The stage: prepare, then step after step until the plan is done."""
    require_single_process("dpo")
    loss = resolve_loss(config, inputs.loss, given=config.model_fields_set)
    # What may be wrong is found before anything is loaded or scored.
    prompts = [] if config.sample_prompts is None else read_sample_prompts(config.sample_prompts)
    require_tracker(config.track)
    with contextlib.ExitStack() as stack:
        stack.enter_context(named_shortage())
        folder = None
        if config.out is not None and not config.dry_run:
            folder = stack.enter_context(
                RunFolder(config.out, resume=config.resume, overwrite=config.overwrite)
            )
            if config.resume and folder.finished is not None:
                say(f"{config.out} is finished; nothing is left to do")
                done = load_model(config.out / "model", trust_remote_code=config.trust_remote_code)
                return Run(
                    *(done.model, done.tokenizer, folder.lines(), folder.lines("samples.jsonl")),
                    folder=config.out,
                )
        stack.enter_context(deterministic())
        policy = load_policy(config, inputs.model, inputs.tokenizer, say=say)
        stack.callback(policy.give_back)
        require_room(prompts, policy)
        config = with_rate(config, policy, say=say)
        data = load_data(
            config, inputs.data, inputs.eval_data, policy.tokenizer, need=need_of(loss.objective)
        )
        require_context(policy.model, [*data.train, *data.evaluation], name=policy.name)
        plan = Plan.of(config, data)
        for note in data.notes:
            say(note)
        training = Training(
            *(config, loss, policy, data, plan, folder),
            prompts=prompts,
            on_step=on_step,
            say=say,
            quiet=quiet,
        )
        training.describe()
        if config.dry_run:
            return training.finished("dry run")
        keep_freed_memory()
        training.score_reference(inputs.reference)
        return training.run()
