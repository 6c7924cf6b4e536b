"""Evaluation on held-out rows and prompts, with n and an interval for every figure.

    likelier evaluate preferences runs/reward runs/first --data preferences.jsonl --eval-share 0.1 --out runs/compared
    likelier evaluate frontier runs/first runs/ipo --prompts held-out.jsonl --reward vader --out runs/compared
    likelier evaluate winrate runs/first/model --against smollm2 --prompts held-out.jsonl --reward vader --out runs/won
    likelier evaluate temperature runs/first --prompts held-out.jsonl --baseline text --judge-model smollm2 --out t

Each kind stands in a file of its own (`evaluate_frontier.py` …), reads run folders, models and rows, and writes a
table, a picture, the whole result and words into `--out`. What is sampled is kept by content: nothing is drawn twice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from likelier.config import named, named_data, reward_name
from likelier.manifest import as_json
from likelier.stages.evaluate_config import EvaluateConfig
from likelier.stages.evaluate_output import Outcome, Say, check_folder


def evaluate(
    what: str,
    runs: str | Path | Sequence[str | Path] = (),
    data: Any = None,
    *,
    out: str | Path,
    prompts: Any = None,
    reward: str | Callable[..., Any] | None = None,
    chooser: str | Callable[..., Any] | None = None,
    judge_model: Any = None,
    tokenizer: Any = None,
    **config: Any,
) -> Any:
    """Evaluates `runs`; what is returned depends on the kind, and `out` holds all of it.

    Args:
        what: `"preferences"` (a `PreferenceEvaluation` by name), `"frontier"` (a `FrontierReport`), `"winrate"` or
            `"temperature"` (a `Win` for each, in lists).
        runs: run folders or models; for `winrate` also files of samples, for `preferences` also reward models,
            and none where a judge alone is asked about.
        data: of `preferences`: a path or hub name, rows, or a `datasets.Dataset`.
        out: a folder for the files.
        prompts: of the others: a path, rows with a `prompt`, or a `datasets.Dataset`.
        reward: a name, or `f(prompt, answer) -> number`, or `f(prompts, answers) -> numbers`.
        chooser: of best-of-N, as `reward`.
        judge_model: a name, a folder, or a module with its `tokenizer`.
        config: every other setting of `likelier evaluate`, by name.

    Raises:
        UsageError, DataError, ModelError: settings, data or models that cannot be used as given.
        WorkError: a reward that fails or is no finite number; a judge that says nothing of use.

    >>> evaluate("preferences", "runs/reward", "held_out.jsonl", out="runs/held-out")  # doctest: +SKIP
    """
    values = {
        "what": what,
        "runs": [str(run) for run in ([runs] if isinstance(runs, (str, Path)) else runs)],
        "out": Path(out),
        "data": named_data(data),
        "prompts": prompts if prompts is None or isinstance(prompts, (str, Path)) else "<rows>",
        "reward": reward_name(reward) if callable(reward) else reward,
        "chooser": reward_name(chooser) if callable(chooser) else chooser,
        "judge_model": named(judge_model),
    }
    given = {name: value for name, value in values.items() if value is not None and value != []}
    given |= {name: str(given[name]) for name in ("prompts",) if name in given}
    settings = EvaluateConfig.build(given | config)
    return _evaluated(
        settings, Inputs(data, prompts, reward, chooser, judge_model, tokenizer), lambda text: None
    ).found


def main(config: EvaluateConfig) -> int:
    """The command; its exit code is 1 where a judge failed to answer."""
    if config.dry_run:
        from likelier.stages.evaluate_dry_run import dry_run

        return dry_run(config, say=lambda text: print(text, file=sys.stderr, flush=True))
    inputs = Inputs(config.data, config.prompts, config.reward, config.chooser, config.judge_model, None)
    outcome = _evaluated(config, inputs, lambda text: print(text, file=sys.stderr, flush=True))
    if config.json_:
        print(as_json(outcome.result))
    else:
        print("\n".join([*outcome.words, f"written to {config.out}"]))
    return 1 if outcome.failures else 0


class Inputs(NamedTuple):
    """What the configuration can only name: rows, functions and models in memory."""

    data: Any
    prompts: Any
    reward: str | Callable[..., Any] | None
    chooser: str | Callable[..., Any] | None
    judge_model: Any
    tokenizer: Any


def _evaluated(config: EvaluateConfig, given: Inputs, say: Say) -> Outcome:
    check_folder(config)
    # Each is imported where it works: preferences need no sampler, and frontiers no judge.
    if config.what == "preferences":
        from likelier.stages.evaluate_preferences import preferences

        return preferences(config, given.data, given.judge_model, given.tokenizer, say=say)
    if config.what == "frontier":
        from likelier.stages.evaluate_frontier import frontier

        return frontier(config, given.prompts, given.reward or "", given.chooser, say=say)
    who = (given.reward, given.judge_model, given.tokenizer)
    if config.what == "winrate":
        from likelier.stages.evaluate_winrate import winrate

        return winrate(config, given.prompts, *who, say=say)
    from likelier.stages.evaluate_temperature import temperature

    return temperature(config, given.prompts, *who, chooser=given.chooser, say=say)
