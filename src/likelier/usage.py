"""What `--help` prints: the stages, and the settings of one."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from likelier.flags import flag, kind_of

if TYPE_CHECKING:
    from likelier.config import StageConfig

WIDEST = 34
"""Characters of a flag, above which its line is not aligned with the others."""


def overview(summaries: Mapping[str, str]) -> str:
    """The help of `likelier` itself: a line for each stage."""
    width = max(map(len, summaries))
    return "\n".join(
        [
            "likelier makes the answers people prefer likelier.",
            "",
            "usage: likelier STAGE [--config FILE.yaml] [--flag value …]",
            "",
            *(f"  {name:<{width}}  {summary}" for name, summary in summaries.items()),
            "",
            "`likelier STAGE --help` lists a stage's settings; --debug shows a traceback; --version.",
        ]
    )


def help_of(stage: str, summary: str, config: type[StageConfig], words: Sequence[str] = ()) -> str:
    """A stage's help: what is required and what is its own, then what it shares with others, under headings.

    >>> from likelier.stages.report_config import ReportConfig
    >>> print(help_of("report", "on one page", ReportConfig).splitlines()[2])
    usage: likelier report RUNS … [--config FILE.yaml] [--flag value …]
    """
    groups: dict[str, list[tuple[str, str]]] = {"": []}
    for name in _in_order(config, config.fields_for(words)):
        groups.setdefault(_heading(config, name), []).append(_line(config, name, words))
    width = min(WIDEST, max(len(named) for lines in groups.values() for named, _ in lines))
    usage = " ".join(
        ["usage: likelier", stage, *_places(config, words), "[--config FILE.yaml] [--flag value …]"]
    )
    told = [summary, "", usage]
    for heading, lines in groups.items():
        told += [
            "",
            *([f"{heading}:"] if heading else []),
            *(f"  {named:<{width}}  {text}" for named, text in lines),
        ]
    return "\n".join(told)


def _in_order(config: type[StageConfig], names: Sequence[str]) -> list[str]:
    """What has to be given first, then the stage's own settings, then its bases'."""
    bases = [base for base in config.__mro__ if "heading" in vars(base)]

    def place(name: str) -> tuple[bool, int]:
        base = _home(config, name)
        return not _needed(config, name), bases.index(base) if base in bases else -1

    return sorted(names, key=place)


def _home(config: type[StageConfig], name: str) -> type:
    """The base that brought a setting, whoever changed its default since."""
    return next(base for base in reversed(config.__mro__) if name in vars(base).get("__annotations__", {}))


def _heading(config: type[StageConfig], name: str) -> str:
    return "" if _needed(config, name) else vars(_home(config, name)).get("heading", "")


def _needed(config: type[StageConfig], name: str) -> bool:
    return config.model_fields[name].is_required() or name in config.positional


def _line(config: type[StageConfig], name: str, words: Sequence[str]) -> tuple[str, str]:
    """A flag with what it takes, and what it does with its default; `frontier: ` need not be said of the frontier."""
    field = config.model_fields[name]
    default = field.get_default(call_default_factory=True)
    shown = "" if default in (None, [], "", False) or field.is_required() else f" [{_as_given(default)}]"
    needed = " (required)" if field.is_required() else ""
    needed = " (or as a word without the flag)" if name in config.positional else needed
    does = (field.description or "").removeprefix(f"{words[0]}: " if words else "")
    return flag(name) + _placeholder(field.annotation), f"{does}{shown}{needed}"


def _as_given(default: Any) -> str:
    """A default as it would be typed.

    >>> _as_given([0.0, 0.25, 1.0]), _as_given(64)
    ('0,0.25,1', '64')
    """
    return ",".join(f"{part:g}" for part in default) if isinstance(default, list) else str(default)


def _places(config: type[StageConfig], words: Sequence[str]) -> list[str]:
    """How the usage line names the words without a flag: `WHAT RUNS …`, or what of them is settled."""
    settled = [name for name in config.positional if name not in config.fields_for(words)]
    places = []
    for name in config.positional:
        several = kind_of(config.model_fields[name].annotation) == "list"
        places.append(words[0] if name in settled else name.rstrip("_").upper() + (" …" if several else ""))
    return places


def _placeholder(annotation: Any) -> str:
    if annotation is bool:
        return ""
    options = [a for a in (annotation, *typing.get_args(annotation)) if typing.get_origin(a) is Literal]
    if options:
        return " " + "|".join(str(value) for value in typing.get_args(options[0]))
    names = {int: " N", float: " X", Path: " PATH"}
    inner = [a for a in (annotation, *typing.get_args(annotation)) if isinstance(a, type)]
    for found in [
        *inner,
        *(typing.get_args(a)[0] for a in typing.get_args(annotation) if typing.get_args(a)),
    ]:
        if found in names:
            return names[found]
    return " VALUE"
