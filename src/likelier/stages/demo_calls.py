"""Stages called as their commands are, and the commands."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from likelier.flags import flag
from likelier.stages.demo_story import Story


class Calls:
    """Calls stages and keeps, for whoever wants to do the same by hand, the command of each."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.commands: list[str] = []

    def call(self, stage: str, function: Callable[..., Any], *words: str, **settings: Any) -> Any:
        """What `function` returns; `settings` are both its arguments and the command's flags."""
        self.commands.append(self.shown(stage, *words, **settings))
        return function(*words, **settings)

    def shown(self, stage: str, *words: str, **settings: Any) -> str:
        """The command alone, told but not run."""
        command = command_of(stage, *words, **settings)
        self.story.command(command)
        return command


def command_of(stage: str, *words: str, **settings: Any) -> str:
    """The command line of a stage.

    >>> command_of("label", "a b.jsonl", with_="reward", min_gap=0.5)
    "likelier label 'a b.jsonl' --with reward --min-gap 0.5"
    >>> command_of("score", skip_bad_rows=True)
    'likelier score --skip-bad-rows'
    """
    flags = []
    for name, value in settings.items():
        flags.append(flag(name))
        flags += [] if value is True else [str(value)]
    return shlex.join(["likelier", stage, *words, *flags])
