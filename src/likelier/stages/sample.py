"""Answers to prompts, from a model here or behind a server: one line per prompt, each with its `n` completions.

    likelier sample --model smollm2 --prompts prompts.jsonl --n 4 --seed 0 --out samples.jsonl

A line is `{"id", "prompt", "completions": [{"text", "tokens", "logp", "finish"}], "model", "sampling"}`; `label` reads
it, and hands tokens and finish on to training. `tokens` is null where a stop string cut the text, and where a server
gives none; `logp` (under the sampler, of all tokens drawn) is null where a server gives none.

Each prompt's answers are on the disk when they are there: a run that is killed goes on with `--resume`, and its file
is that of a run never stopped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from likelier.config import named
from likelier.data.unfinished import partial_path
from likelier.engines.blueprints import NOTHING_DONE, blueprint
from likelier.engines.prompts import encode_prompts
from likelier.engines.sampling import SampledCompletion, SampledPrompt
from likelier.errors import UsageError
from likelier.stages.sample_config import SampleConfig
from likelier.stages.sample_engines import Engine, Local, Remote
from likelier.stages.sample_prompts import read_prompts
from likelier.stages.sample_work import Row, SampleWork, Say
from likelier.training.stored import mixed_with


def sample(
    model: Any, prompts: Any, *, out: str | Path | None = None, tokenizer: Any = None, **config: Any
) -> list[Row]:
    """Answers to every prompt; one dictionary per prompt, as they stand in the file.

    Args:
        model: a name, a folder, or a module with its `tokenizer`; with `engine="openai"` the server's name for it.
        prompts: a path, rows with a `prompt` and, if wanted, an `id`, or a `datasets.Dataset`.
        out: a file to write as well, which makes the work resumable.
        config: every other setting of `likelier sample`, by name.

    Raises:
        UsageError, DataError, ModelError: settings, prompts or models that cannot be used as given.
        WorkError: a server that left prompts unanswered.

    >>> sample("smollm2", [{"prompt": "2 + 2 ="}], n=1, max_new_tokens=2)[0]["completions"]  # doctest: +SKIP
    [{'text': ' 4', 'tokens': [216, 36], 'logp': -0.9, 'finish': 'length'}]
    """
    path = prompts if isinstance(prompts, (str, Path)) else "<rows>"
    values = {"model": named(model), "prompts": str(path), "out": None if out is None else Path(out)}
    settings = SampleConfig.build(values | config)
    return _sample(settings, model, prompts, tokenizer, lambda text: None).rows


def main(config: SampleConfig) -> int:
    """The command."""

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if config.dry_run:
        return _dry_run(config, say)
    work = _sample(config, config.model, config.prompts, None, say)
    if config.json_:
        print(json.dumps(work.summary()))
    elif config.out is None:
        for row in work.rows:
            print(json.dumps(row))
    return 0


def _dry_run(config: SampleConfig, say: Say) -> int:
    """What would be asked of whom, and what it costs at most."""
    if config.out is not None:
        _check_out(config, config.out)
    prompts = read_prompts(config, config.prompts, say)
    answers = len(prompts) * config.n
    most = answers * config.max_new_tokens
    found: dict[str, Any] = {"prompts": len(prompts), "answers": answers, "new_tokens_at_most": most}
    told = f"{answers:,} answers to {len(prompts):,} prompts, {most:,} new tokens at most"
    if config.engine == "openai":
        told += f", from {config.model} at {config.base_url}"
    else:
        model = blueprint(config.model, trust_remote_code=config.trust_remote_code)
        found["prompt_tokens"] = model.reads(prompts, max_new_tokens=config.max_new_tokens)
        read = found["prompt_tokens"] + most
        told += f" after {found['prompt_tokens']:,} of prompts; {model.costs(read)}"
        if config.strength is not None:
            mixed = blueprint(
                mixed_with(config.model, config.reference), trust_remote_code=config.trust_remote_code
            )
            told += f", mixed with {mixed.costs(read)}"
    say(told)
    print(json.dumps(found) if config.json_ else NOTHING_DONE)
    return 0


def sample_file(
    config: SampleConfig, model: Any, tokenizer: Any, *, on_progress: Callable[[int], None] | None = None
) -> list[SampledPrompt]:
    """The same with a model that is loaded; `config.model` is the name under which it stands in the file.

    Args:
        config: what is sampled, and how.
        model, tokenizer: loaded; the model's precision is used.
        on_progress: called with the number of answers that were just drawn.
    """
    prompts = read_prompts(config, config.prompts, lambda text: None)
    work = SampleWork(config, Local(config, model, tokenizer), prompts, lambda text: None)
    rows = work.run(on_progress or (lambda count: None)).rows
    return as_sampled(rows, encode_prompts(tokenizer, prompts))


def as_sampled(rows: Sequence[Row], prompt_tokens: Sequence[list[int]]) -> list[SampledPrompt]:
    """Rows as they stand in the file, and their prompts' tokens, as what was sampled."""
    return [
        SampledPrompt(
            id=row["id"],
            prompt=row["prompt"],
            prompt_tokens=tokens,
            completions=[SampledCompletion(**answer) for answer in row["completions"]],
        )
        for row, tokens in zip(rows, prompt_tokens, strict=True)
    ]


def _sample(config: SampleConfig, model: Any, data: Any, tokenizer: Any, say: Say) -> SampleWork:
    if config.out is not None:
        _check_out(config, config.out)
    prompts = read_prompts(config, data, say)
    engine: Engine = Remote(config) if config.engine == "openai" else Local.load(config, model, tokenizer)
    work = SampleWork(config, engine, prompts, say)
    return work.run(_in_tenths(say, len(prompts) * config.n))


def _check_out(config: SampleConfig, out: Path) -> None:
    """What is there is not lost, and a place that cannot be written is found before the model is read."""
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder; name a file in it")
    if out.exists() and Path(config.prompts).exists() and out.samefile(config.prompts):
        raise UsageError(f"--out {out} is the prompts' own file; write to another")
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"--out {out}: {above} is a file, not a folder; choose another place")
    if config.resume or config.overwrite:
        return
    if partial_path(out).exists():
        raise UsageError(
            f"{partial_path(out)} holds the answers of a run that was stopped: go on with --resume, or begin anew "
            "with --overwrite"
        )
    if out.is_file():
        raise UsageError(f"{out} exists: pass --overwrite, or choose another --out")


def _in_tenths(say: Say, total: int) -> Callable[[int], None]:
    """Says how far the answers are, ten times at most."""
    done = said = 0

    def on_progress(count: int) -> None:
        nonlocal done, said
        done += count
        if 10 * done // total > said:
            said = 10 * done // total
            say(f"{done} of {total} answers")

    return on_progress
