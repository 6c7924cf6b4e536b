"""A sequence world that is a real model: a tiny GPT-2 over a few letters, its tokenizer, its prompts and preferences.

The reference is the model itself: its next-token distributions, by plain forward passes in float64, are the table of
the world, and the reward is a table too. So Z, π* and every expectation are known, while `likelier dpo`, `score`,
`sample` and the rest work on the folder as on any other.

    world = model_world(0)
    world.write(folder)                    # model/, prompts.jsonl, preferences.jsonl, world_reward.py
    run = likelier.dpo(folder / "model", folder / "preferences.jsonl", precision="float64", beta=0.5, …)
    place(world.world, world.policy_of(run.model))
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from likelier.theory.letter_models import (
    letter_tokenizer,
    model_in,
    next_tokens_of,
    prompt_texts,
    random_model,
    save_quietly,
)
from likelier.theory.sequences import END, Sequences, sequence_policy, sequence_world
from likelier.theory.shapes import Cells
from likelier.theory.world import World, WorldError


@dataclass(frozen=True, kw_only=True)
class ModelWorld:
    """A world with the model that is its reference."""

    sequences: Sequences
    world: World
    model: Any
    """A `transformers` model in float64; its table is `world.log_reference`."""
    tokenizer: Any

    def policy_of(self, model: Any) -> Cells:
        """`log π(y|x)` of every answer under a model: a module over this tokenizer, or the folder of one.

        Raises:
            WorldError: the model's vocabulary is not the world's.
        """
        loaded = model_in(model) if isinstance(model, (str, Path)) else model
        return sequence_policy(self.sequences, next_tokens_of(loaded, self.sequences, self.world.prompts))

    def preferences(self) -> list[dict[str, Any]]:
        """Rows whose weights make of a data set the population: every pair both ways round, in its probability.

        `weight` is `P(x) · 2 π_ref(y|x) π_ref(y'|x) · σ(r(x,y) − r(x,y'))`: the prompt, two independent answers of the
        reference that differ, and the label, (1).
        """
        rows = []
        for index, prompt in enumerate(self.world.prompts):
            weights = float(self.world.prompt_weights[index]) * self._labelled(index)
            for chosen, rejected in product(range(len(self.sequences.completions)), repeat=2):
                if chosen != rejected:
                    rows.append(self._row(prompt, chosen, rejected, float(weights[chosen, rejected])))
        return rows

    def prompts(self) -> list[dict[str, Any]]:
        """Rows of prompts, for sampling and PPO."""
        return [{"id": prompt, "prompt": prompt} for prompt in self.world.prompts]

    def reward(self, prompt: str, completion: str) -> float:
        """r(x, y) of an answer's text, written with or without the end token; what a stage takes for a reward.

        Raises:
            WorldError: the world has no such prompt or answer.
        """
        try:
            row = self.world.prompts.index(prompt)
            column = self.sequences.completions.index(self.sequences.completion_of(completion))
        except ValueError:
            raise WorldError(f"the world has no answer `{completion}` to `{prompt}`") from None
        return float(self.world.reward[row, column])

    def write(self, folder: Path) -> None:
        """Writes `model/`, `prompts.jsonl`, `preferences.jsonl`, and `world_reward.py` with the reward as a table."""
        folder.mkdir(parents=True, exist_ok=True)
        save_quietly(self.model, folder / "model")
        self.tokenizer.save_pretrained(folder / "model")
        for name, rows in (("prompts", self.prompts()), ("preferences", self.preferences())):
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        (folder / "world_reward.py").write_text(self._reward_module(), encoding="utf-8")

    def _labelled(self, index: int) -> torch.Tensor:
        """P(chosen, rejected | x), `[chosen, rejected]`."""
        reference, reward = self.world.log_reference[index], self.world.reward[index]
        label = logsigmoid(reward[:, None] - reward[None, :])
        return 2.0 * (reference[:, None] + reference[None, :] + label).exp()

    def _row(self, prompt: str, chosen: int, rejected: int, weight: float) -> dict[str, Any]:
        answers = {
            side: self.sequences.completions[at] for side, at in (("chosen", chosen), ("rejected", rejected))
        }
        return {
            "id": prompt,
            "prompt": prompt,
            **answers,
            "tokens": {side: self.sequences.tokens(text) for side, text in answers.items()},
            "finish": {
                side: "length" if self.sequences.is_cut(text) else "stop" for side, text in answers.items()
            },
            "weight": weight,
        }

    def _reward_module(self) -> str:
        rewards = {
            prompt: dict(zip(self.sequences.completions, row, strict=True))
            for prompt, row in zip(self.world.prompts, self.world.reward.tolist(), strict=True)
        }
        table = json.dumps(rewards, indent=4)
        return _REWARD_MODULE.format(end=json.dumps(END), length=self.sequences.length, table=table)


_REWARD_MODULE = '''"""The reward of this world as a table: `--reward world_reward:reward`, run in this folder."""

END, LENGTH = {end}, {length}
REWARDS = {table}


def reward(prompt, completion):
    text = completion.removesuffix(END)
    return REWARDS[prompt][text if len(text) == LENGTH else text + END]
'''


def model_world(
    seed: int,
    *,
    letters: str = "ab",
    length: int = 3,
    prompts: int = 2,
    scale: float = 1.0,
    reward: Cells | None = None,
) -> ModelWorld:
    """A world whose reference is a random model, with normal rewards of standard deviation `scale` unless given.

    Prompts are strings over the same letters (`prompt_texts`).

    Raises:
        WorldError: more prompts than one letter has strings of a length; alphabets and rewards that cannot be.

    >>> world = model_world(0, length=2)
    >>> world.world.prompts, world.world.reward.shape
    (('a', 'b'), torch.Size([2, 7]))
    >>> world.reward("a", "b") == float(world.world.reward[0, 2])  # the answer b, ended
    True
    """
    sequences = Sequences(letters=letters, length=length)
    texts = prompt_texts(letters, prompts)
    model = random_model(sequences, seed)
    if reward is None:
        generator = torch.Generator().manual_seed(seed)
        shape = (prompts, len(sequences.completions))
        reward = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    log_next = next_tokens_of(model, sequences, texts)
    world = sequence_world(sequences, log_next, reward, prompts=texts)
    return ModelWorld(sequences=sequences, world=world, model=model, tokenizer=letter_tokenizer(sequences))
