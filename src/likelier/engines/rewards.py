"""True rewards: functions of a prompt and an answer's text, named as users write them after `--reward`."""

from __future__ import annotations

import importlib
import inspect
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likelier.config import nearest
from likelier.data.records import Content
from likelier.engines.classifiers import load_classifier
from likelier.engines.reward_models import MEANING, RewardModel
from likelier.errors import LikelierError, UsageError, WorkError
from likelier.models.identity import forward_config_digest, weights_digest
from likelier.models.reward_model import made_here

Score = Callable[[Content, str], float]
"""What a user's `module:function` is: `function(prompt, completion) -> float`, or a `ScoreAll`."""
ScoreAll = Callable[[list[Content], list[str]], Sequence[float]]
"""A user's function whose first parameter is called `prompts` gets all of a call at once, as lists."""


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward and the name it was asked for by."""

    name: str
    meaning: str
    """One line for reports: what a higher number means."""
    score: Score
    score_all: ScoreAll | None = None
    """In place of `score`, where one answer at a time is not how it is made."""
    model: Any = None
    """The module that scores, of a reward that is a model."""

    @property
    def content(self) -> str | None:
        """A hash of a model's weights and settings; None for a reward that is no model."""
        if self.model is None:
            return None
        return (weights_digest(self.model) + forward_config_digest(self.model.config)).hex()

    def __call__(
        self, prompts: Sequence[Content], completions: Sequence[str], *, places: Sequence[str] = ()
    ) -> list[float]:
        """The reward of each completion.

        Args:
            prompts, completions: one each per answer.
            places: what a message calls each answer; `answer 0` and so on unless given.

        Raises:
            WorkError: a reward that is no finite number, or a function that fails.
        """
        if not completions:
            return []
        named = list(places) or [f"answer {index}" for index in range(len(completions))]
        if self.score_all is not None:
            together = self.score_all
            values = self._called(
                lambda p, c: list(together(p, c)),
                list(prompts),
                list(completions),
                f"{named[0]} and those after it",
            )
            if len(values) != len(completions):
                raise WorkError(
                    f"reward `{self.name}` gave {len(values)} numbers for {len(completions)} answers,"
                    f" {named[0]} to {named[-1]}"
                )
        else:
            asked = zip(prompts, completions, named, strict=True)
            values = [self._called(self.score, *one) for one in asked]
        return [self._checked(*one) for one in zip(values, completions, named, strict=True)]

    def _called(self, function: Callable[..., Any], prompt: Any, completion: Any, place: str) -> Any:
        try:
            return function(prompt, completion)
        except LikelierError:
            raise
        except Exception as error:  # a user's function may raise anything
            told = f"{type(error).__name__}: {' '.join(str(error).split()):.200}"
            raise WorkError(
                f"reward `{self.name}` failed for {place} ({told}); --debug shows where"
            ) from error

    def _checked(self, value: Any, completion: str, place: str) -> float:
        try:
            number = math.nan if isinstance(value, str | bytes) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
        raise WorkError(
            f"reward `{self.name}` gave {value!r} for {place}, not a finite number: {completion!r:.60}"
        )


def names_a_model(reward: str) -> bool:
    """Whether a reward's name is that of a classifier or a reward model, in a folder or on the hub.

    >>> names_a_model("who/what"), names_a_model("regex:a/b"), names_a_model("vader")
    (True, False, False)
    """
    return not reward.startswith("regex:") and ("/" in reward or (bool(reward) and Path(reward).is_dir()))


def resolve_reward(name: str) -> Reward:
    """The reward meant by `vader`, `length`, `json`, `regex:PATTERN`, `module:function`, or a classifier's name.

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
    if name == "json":
        return Reward(name, "1 where the answer is valid JSON, else 0", _is_json)
    kind, colon, rest = name.partition(":")
    if kind == "regex" and rest:
        return Reward(name, f"1 where the answer matches {rest}, else 0", _matches(name, rest))
    if colon and kind != "regex" and "/" not in name:
        return reward_of(name, _imported(name))
    if names_a_model(name):
        if made_here(name):
            model = RewardModel(name)
            return Reward(name, MEANING, model, model.all, model=model.loaded.model)
        classifier = load_classifier(name)
        return Reward(name, classifier.meaning, classifier, model=classifier.model)
    raise UsageError(
        f"unknown reward `{name}`{nearest(name, ['vader', 'length', 'json'])}; "
        "known are vader, length, json, regex:PATTERN, module:function, or the folder or hub name of a classifier"
    )


def reward_of(name: str, function: Callable[..., Any]) -> Reward:
    """A user's function as a reward; one whose first parameter is called `prompts` gets lists.

    >>> reward_of("f", lambda prompts, answers: [len(answer) for answer in answers])(["", ""], ["ab", "c"])
    [2.0, 1.0]
    """
    return Reward(name, f"the function {name}", function, function if _takes_lists(function) else None)


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


def _is_json(_: Content, completion: str) -> float:
    """As the standard has it: NaN and Infinity are none, white space around it is."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(completion, parse_constant=refuse)
    except (ValueError, RecursionError):
        return 0.0
    return 1.0


def _takes_lists(function: Any) -> bool:
    try:
        return next(iter(inspect.signature(function).parameters), "") == "prompts"
    except (TypeError, ValueError):  # built-in functions may have no signature
        return False


def _imported(name: str) -> Any:
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
    return function
