"""True rewards: functions of a prompt and an answer's text, named as users write them after `--reward`."""

from __future__ import annotations

import importlib
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from likelier.config import nearest
from likelier.data.records import Content
from likelier.engines.classifiers import load_classifier
from likelier.errors import UsageError, WorkError

Score = Callable[[Content, str], float]
"""What a user's `module:function` is: `function(prompt, completion) -> float`."""


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward and the name it was asked for by."""

    name: str
    meaning: str
    """One line for reports: what a higher number means."""
    score: Score

    def __call__(self, prompts: Sequence[Content], completions: Sequence[str]) -> list[float]:
        """The reward of each completion; raises `WorkError` where one is no finite number."""
        pairs = zip(prompts, completions, strict=True)
        return [self._checked(prompt, completion, row) for row, (prompt, completion) in enumerate(pairs)]

    def _checked(self, prompt: Content, completion: str, row: int) -> float:
        value = self.score(prompt, completion)
        if isinstance(value, bool | int | float) and math.isfinite(value):
            return float(value)
        raise WorkError(
            f"reward `{self.name}` gave {value!r} for answer {row}, not a finite number: {completion!r:.60}"
        )


def resolve_reward(name: str) -> Reward:
    """The reward meant by `vader`, `length`, `regex:PATTERN`, `module:function`, or a classifier's name.

    A name is a classifier's where it is a folder, or has a slash in it as hub names have.

    Raises:
        UsageError: no such reward; the message names the nearest.
        ModelError: no classifier of that name.

    >>> resolve_reward("regex:(?i)thank").score("", "Thanks a lot")
    1.0
    >>> resolve_reward("length")(["", ""], ["one two", "three"])
    [2.0, 1.0]
    """
    if name == "vader":
        return Reward(name, "VADER sentiment of the answer, from −1 (negative) to +1 (positive)", _vader())
    if name == "length":
        return Reward(name, "words in the answer", lambda _, completion: float(len(completion.split())))
    kind, colon, rest = name.partition(":")
    if kind == "regex" and rest:
        return Reward(name, f"1 where the answer matches {rest}, else 0", _matches(name, rest))
    if colon and kind != "regex" and "/" not in name:
        return Reward(name, f"the function {name}", _imported(name))
    if kind != "regex" and ("/" in name or (name and Path(name).is_dir())):
        classifier = load_classifier(name)
        return Reward(name, classifier.meaning, classifier)
    raise UsageError(
        f"unknown reward `{name}`{nearest(name, ['vader', 'length'])}; "
        "known are vader, length, regex:PATTERN, module:function, or the folder or hub name of a classifier"
    )


def _vader() -> Score:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()
    return lambda _, completion: float(analyzer.polarity_scores(completion)["compound"])


def _matches(name: str, pattern: str) -> Score:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"reward `{name}` is not a regular expression: {error}") from None
    return lambda _, completion: float(compiled.search(completion) is not None)


def _imported(name: str) -> Score:
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    sys.path.append(here)  # a console script does not search the current folder, where users keep their own
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise UsageError(
            f"reward `{name}`: there is no module `{module_name}` in {here} or installed"
        ) from None
    finally:
        sys.path.remove(here)
    function = getattr(module, function_name, None)
    if not callable(function):
        hint = nearest(function_name, vars(module))
        raise UsageError(f"reward `{name}`: module `{module_name}` has no function `{function_name}`{hint}")
    score: Score = function
    return score
