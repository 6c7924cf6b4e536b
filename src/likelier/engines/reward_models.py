"""A reward model made here as a reward of texts: the prompt is read once for all its answers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from likelier.data.encoding import encode
from likelier.data.records import Completion, Content, Record
from likelier.data.trees import Tree
from likelier.errors import DataError
from likelier.models.reward_model import load_reward_model
from likelier.scoring.precision import default_device
from likelier.scoring.reference import in_tenths
from likelier.scoring.whole import score_trees

MEANING = "the score of a reward model"
_MAX_TOKENS = 2048
_SOON = 5.0
"""Seconds within which nobody asks how far it is: a rollout of PPO is scored at every step."""


class RewardModel:
    """Scores `(prompt, completion)` in float32; a score is the same whatever is scored beside it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.loaded = load_reward_model(name, device=default_device())

    def __call__(self, prompt: Content, completion: str) -> float:
        """The score of one answer."""
        return self.all([prompt], [completion])[0]

    def all(self, prompts: Sequence[Content], completions: Sequence[str]) -> list[float]:
        """The scores of many.

        Raises:
            DataError: an answer that is no text, or too long for the model.
        """
        trees = read_by_reward_model(self.name, self.loaded.tokenizer, prompts, completions)
        told = in_tenths(partial(print, file=sys.stderr), self.loaded.name, after=_SOON)
        values = score_trees(
            self.loaded,
            trees,
            precision="float32",
            max_tokens=_MAX_TOKENS,
            on_progress=told,
        )
        found = [0.0] * len(completions)
        for tree, own in zip(trees, values, strict=True):
            for branch, places in enumerate(tree.sources):
                for record, _ in places:
                    found[record] = own[branch]
        return found


def read_by_reward_model(
    name: str, tokenizer: Any, prompts: Sequence[Content], completions: Sequence[str]
) -> list[Tree]:
    """The trees that a reward model reads: the answers to a prompt are branches of one.

    Raises:
        DataError: an answer that is no text, or too long for the model.
    """
    records = [
        Record(
            file=f"--reward {name}",
            row=row,
            id=str(row),
            prompt=prompt,
            completions=[Completion(content=_continuing(prompt, completion))],
        )
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True), 1)
    ]
    encoded = encode(records, tokenizer, need="completions", allow_template_edits=True)
    if encoded.refused:
        raise DataError(f"{len(encoded.refused)} answers cannot be scored; the first: {encoded.refused[0]}")
    return encoded.trees


def _continuing(prompt: Content, completion: str) -> Content:
    """An answer to a conversation is a turn, one to raw text is raw text."""
    return completion if isinstance(prompt, str) else [{"role": "assistant", "content": completion}]
