"""The rewards of an evaluation: by name or a function, and what they give each answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import Any

from likelier.engines.prompts import Prompt
from likelier.engines.rewards import Reward, names_a_model, resolve_reward, reward_of

Given = str | Callable[..., Any]


def check_reward(reward: Given | None) -> None:
    """Finds a misspelt name before anything is sampled; a model is not loaded, since it would stay in memory.

    Raises:
        UsageError: no such reward.
    """
    if isinstance(reward, str) and not names_a_model(reward):
        resolve_reward(reward)


def resolved(reward: Given, *, name: str | None) -> Reward:
    """Ready to score; `name` is a function's.

    Raises:
        UsageError, ModelError: no such reward, or a model that cannot be used.
    """
    return resolve_reward(reward) if isinstance(reward, str) else reward_of(name or "", reward)


def scores_of(
    reward: Reward, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]], *, who: str
) -> list[list[float]]:
    """`[prompts][answers]`; a reward that is no number is named by its prompt.

    Args:
        reward: what scores.
        prompts: what was asked.
        texts: `[prompts][answers]`.
        who: answered.

    Raises:
        WorkError: a reward that fails, or gives no finite number.
    """
    asked = [[prompt.content] * len(own) for prompt, own in zip(prompts, texts, strict=True)]
    places = [
        [f"prompt {prompt.id!r}, answer {number} of {who}" for number in range(1, len(own) + 1)]
        for prompt, own in zip(prompts, texts, strict=True)
    ]
    if reward.model is None:
        # A function that answers a whole list is asked prompt by prompt: of a wrong count the prompt is known.
        return [
            reward(contents, answers, places=named)
            for contents, answers, named in zip(asked, texts, places, strict=True)
        ]
    # A model packs what it reads together, and is looked through once.
    scores = iter(reward([*chain(*asked)], [*chain(*texts)], places=[*chain(*places)]))
    return [list(islice(scores, len(own))) for own in texts]
