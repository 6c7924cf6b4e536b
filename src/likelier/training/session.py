"""A run from its settings to its result: the folder, the model, the data, the plan, and the loop over it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from likelier.config import named, named_data
from likelier.manifest import as_json
from likelier.scoring.limits import require_context
from likelier.training.config import SamplingConfig, TrainingConfig
from likelier.training.folder import RunFolder
from likelier.training.loop import Training
from likelier.training.method import Method
from likelier.training.on_step import OnStep
from likelier.training.plan import Plan
from likelier.training.policy import load_policy, with_rate
from likelier.training.processes import (
    deterministic,
    keep_freed_memory,
    named_shortage,
    require_single_process,
)
from likelier.training.run import Run
from likelier.training.samples import read_sample_prompts, require_room
from likelier.training.trackers import require_tracker

Settings = TypeVar("Settings", bound=TrainingConfig)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the configuration can only name: a model and rows in memory."""

    model: Any
    data: Any
    eval_data: Any = None
    tokenizer: Any = None


def settings_of(config: type[Settings], inputs: Inputs, **values: Any) -> Settings:
    """The settings of a call from Python: inputs by their names, and of `values` what is given.

    Raises:
        UsageError: a setting that there is not, or that cannot be.
    """
    return config.build(
        {
            **{name: value for name, value in values.items() if value is not None},
            "model": named(inputs.model),
            "data": named_data(inputs.data),
            "eval_data": named_data(inputs.eval_data),
        }
    )


def train(
    config: TrainingConfig,
    method: Method,
    inputs: Inputs,
    *,
    on_step: OnStep | None,
    say: Callable[[str], None],
    quiet: bool,
) -> Run:
    """Prepare, then step after step until the plan is done."""
    require_single_process(method.stage)
    # What may be wrong is found before anything is loaded or scored.
    sampling = config.sample_prompts if isinstance(config, SamplingConfig) else None
    prompts = [] if sampling is None else read_sample_prompts(sampling)
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
                return _finished(config, method, folder)
        stack.enter_context(deterministic())
        policy = load_policy(
            config, inputs.model, inputs.tokenizer, say=say, load=method.load, prepare=method.prepare
        )
        stack.callback(policy.give_back)
        require_room(prompts, policy)
        config = with_rate(config, policy, say=say)
        data = method.read(config, inputs.data, inputs.eval_data, policy.tokenizer)
        grown = method.grown([*data.train, *data.evaluation])
        require_context(policy.model, grown, name=policy.name)
        method.begin(policy)
        plan = Plan.of(config, data)
        for note in data.notes:
            say(note)
        training = Training(
            *(config, method, policy, data, plan, folder),
            prompts=prompts,
            on_step=on_step,
            say=say,
            quiet=quiet,
        )
        training.describe()
        if config.dry_run:
            return training.finished("dry run")
        keep_freed_memory()
        training.score_reference()
        return training.run()


def command(config: TrainingConfig, method: Method, inputs: Inputs) -> int:
    """The same from the command line: words on stderr, the result on stdout; returns the exit code."""
    run = train(
        *(config, method, inputs),
        on_step=None,
        say=lambda text: print(text, file=sys.stderr),
        quiet=False,
    )
    print(as_json(run.result) if config.json_ else run.report())
    return 1 if run.stopped in ("Ctrl-C", "SIGTERM") else 0


def _finished(config: TrainingConfig, method: Method, folder: RunFolder) -> Run:
    """A run that was done before, as it lies in its folder."""
    done = method.load(folder.path / "model", trust_remote_code=config.trust_remote_code)
    return Run(
        *(done.model, done.tokenizer, folder.lines(), folder.lines("samples.jsonl")),
        folder=folder.path,
        unit=method.unit,
        found=method.report,
    )
