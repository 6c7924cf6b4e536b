"""The command line: one command per stage; parse, call, print.

A stage's flags are the fields of its configuration, so there is nothing to keep in step. torch and everything
heavy is imported when a stage runs: `likelier --help` answers at once.
"""

from __future__ import annotations

import errno
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from likelier import __version__
from likelier.errors import LikelierError, UsageError, is_out_of_memory
from likelier.flags import flag, kind_of
from likelier.usage import help_of, overview

if TYPE_CHECKING:
    from likelier.config import StageConfig


class Stage(NamedTuple):
    """Where a command's configuration and its function live."""

    summary: str
    config: str
    run: str


STAGES: dict[str, Stage] = {
    "check": Stage(
        "look at preference data before it costs anything",
        "likelier.stages.check_config:CheckConfig",
        "likelier.stages.check:main",
    ),
    "score": Stage(
        "log-probs of answers, and rewards against a reference",
        "likelier.stages.score_config:ScoreConfig",
        "likelier.stages.score:main",
    ),
    "sample": Stage(
        "answers to prompts, from a model here or behind a server",
        "likelier.stages.sample_config:SampleConfig",
        "likelier.stages.sample:main",
    ),
    "sft": Stage(
        "train a model on answers to imitate",
        "likelier.training.config:SftConfig",
        "likelier.stages.sft:main",
    ),
    "label": Stage(
        "preferences between answers: by a reward, a judge or people",
        "likelier.stages.label_config:LabelConfig",
        "likelier.stages.label:main",
    ),
    "reward": Stage(
        "train a reward model on preferences",
        "likelier.training.config:RewardConfig",
        "likelier.stages.reward:main",
    ),
    "dpo": Stage(
        "train a model on preferences",
        "likelier.training.config:DpoConfig",
        "likelier.stages.dpo:main",
    ),
    "ppo": Stage(
        "train a model on a reward of its own answers",
        "likelier.training.ppo_config:PpoConfig",
        "likelier.stages.ppo:main",
    ),
    "evaluate": Stage(
        "runs against each other: reward over KL, win rates, and rewards on preferences",
        "likelier.stages.evaluate_config:EvaluateConfig",
        "likelier.stages.evaluate:main",
    ),
    "report": Stage(
        "runs side by side on one page, from their folders alone",
        "likelier.stages.report_config:ReportConfig",
        "likelier.stages.report:main",
    ),
    "theory": Stage(
        "what the theory states, computed exactly in small worlds",
        "likelier.stages.theory_config:TheoryConfig",
        "likelier.stages.theory:main",
    ),
    "demo": Stage(
        "a real model changed by preferences, and by how much, on one page",
        "likelier.stages.demo_config:DemoConfig",
        "likelier.stages.demo:main",
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code: 0 done, 1 the work failed or found faults, 2 usage or data."""
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        return _run(words)
    except LikelierError as error:
        if debug:
            raise
        print(f"likelier: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        if debug:
            raise
        print("likelier: interrupted", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of our output has gone: `likelier score … | head`.
        sys.stderr.close()
        return 1
    except (MemoryError, OSError, RuntimeError) as error:
        if debug or not (isinstance(error, OSError) or is_out_of_memory(error)):
            raise
        print(f"likelier: {_machine_fault(error)} (--debug shows where)", file=sys.stderr)
        return 1


def parse(stage: str, words: list[str]) -> StageConfig:
    """The configuration of `stage` from its flags and its `--config` file; flags win.

    >>> parse("dpo", ["--data", "a.jsonl", "--beta", "0.5"]).beta
    0.5
    """
    from likelier.config import read_yaml

    config_class = _load(STAGES[stage].config)
    given, file = _flags(stage, words, config_class)
    return config_class.build({**(_keys(read_yaml(Path(file)), config_class) if file else {}), **given})  # type: ignore[no-any-return]


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview({name: stage.summary for name, stage in STAGES.items()}))
        return 0
    if words[0] in ("-V", "--version"):
        print(f"likelier {__version__}")
        return 0
    stage = words[0]
    if stage not in STAGES:
        from likelier.config import nearest

        raise UsageError(f"unknown command `{stage}`{nearest(stage, STAGES)}; `likelier --help` lists them")
    if any(word in ("-h", "--help") for word in words[1:]):
        print(help_of(stage, STAGES[stage].summary, _load(STAGES[stage].config), words[1:]))
        return 0
    config = parse(stage, words[1:])
    return int(_load(STAGES[stage].run)(config))


def _flags(
    stage: str, words: list[str], config_class: type[StageConfig]
) -> tuple[dict[str, Any], str | None]:
    """What the words say, by field, and the `--config` file.

    >>> from likelier.stages.label_config import LabelConfig
    >>> _flags("label", ["a.jsonl", "--with=reward"], LabelConfig)
    ({'samples': 'a.jsonl', 'with_': 'reward'}, None)
    """
    flags = {flag(name): name for name in config_class.model_fields} | {"--config": "--config"}
    given: dict[str, Any] = {}
    value: Any
    rest = list(words)
    places = list(config_class.positional)
    while rest:
        if places and not rest[0].startswith("-"):
            # A word without a flag; a list takes all that come.
            name, word, value = places[0], flag(places[0]), rest.pop(0)
            kind = kind_of(config_class.model_fields[name].annotation)
            places = places if kind == "list" else places[1:]
        else:
            word, equals, attached = rest.pop(0).partition("=")
            name = flags.get(word) or _unknown(word, flags, stage)
            field = config_class.model_fields.get(name)
            kind = "value" if field is None else kind_of(field.annotation)
            read = _switch if kind == "switch" else _value
            value = read(word, attached if equals else None, rest)
        if kind == "list":
            given.setdefault(name, []).append(value)
        elif name in given:
            raise UsageError(f"{word} is given twice")
        else:
            given[name] = value
    return given, given.pop("--config", None)


def _unknown(word: str, flags: dict[str, str], stage: str) -> str:
    from likelier.config import nearest

    if not word.startswith("--"):
        raise UsageError(
            f"`{word}` is no flag; settings are given as --name value (see likelier {stage} --help)"
        )
    raise UsageError(f"unknown flag {word}{nearest(word, flags)} (see likelier {stage} --help)")


_TRUTH = {"true": True, "yes": True, "false": False, "no": False}


def _switch(word: str, attached: str | None, rest: list[str]) -> bool:
    """True for the flag alone; what follows it counts only where it is `true` or `false`."""
    if attached is None:
        attached = rest.pop(0) if rest and rest[0].lower() in _TRUTH else "true"
    if attached.lower() not in _TRUTH:
        raise UsageError(f"{word} is true or false, not {attached}")
    return _TRUTH[attached.lower()]


def _value(word: str, attached: str | None, rest: list[str]) -> str:
    if attached is None and rest and not (rest[0].startswith("--") and len(rest[0]) > 2):
        attached = rest.pop(0)
    if not attached:
        raise UsageError(f"{word} needs a value")
    return attached


def _keys(values: dict[str, Any], config_class: type[StageConfig]) -> dict[str, Any]:
    """File keys as fields (`as` is `as_`); a single value where a list is meant is a list of one."""
    fields = config_class.model_fields
    named = {(f"{key}_" if f"{key}_" in fields else key): value for key, value in values.items()}
    return {
        key: [value]
        if key in fields and kind_of(fields[key].annotation) == "list" and isinstance(value, str)
        else value
        for key, value in named.items()
    }


def _load(address: str) -> Any:
    module, name = address.split(":")
    return getattr(importlib.import_module(module), name)


def _machine_fault(error: BaseException) -> str:
    """Memory, disk and rights, in one line with the remedy."""
    if is_out_of_memory(error) or not isinstance(error, OSError):
        return "out of memory: lower --max-tokens where there is one, or take a smaller model"
    where = error.filename or "the output"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: {where} could not be written; free space there and run again"
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return f"no permission for {where}: choose another place, or change its rights"
    return " ".join(str(error).split())
