"""PPO solves a small world whose optimum is known: math.md (4) and (5), every completion listed.

Three prompts, five letters, answers of up to three tokens (an answer that is cut is an outcome like any other), random
rewards. J is computed by enumeration from plain transformers; nothing of the training's own figures enters.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import likelier
from likelier.engines.noise import uniform
from tests.models.families import tiny
from tests.training.conftest import no_timing, own_cache

__all__ = ["no_timing", "own_cache"]

LETTERS, LONGEST, BETA = "abcde", 3, 0.3
PROMPTS = [{"id": letter, "prompt": letter} for letter in "abc"]
SETTINGS: dict[str, dict[str, Any]] = {
    "gae": {"value_weight": 0.5, "gae_lambda": 1.0},
    "rloo": {},
    "grpo": {},
}


def letters_tokenizer() -> Any:
    """A token for each letter, and one that ends an answer."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<end>": 0, **{letter: index for index, letter in enumerate(LETTERS, 1)}}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", pad_token="<end>")


def answers() -> list[list[int]]:
    """Every outcome: ended after none to two letters, or cut after three."""
    tokens = range(1, len(LETTERS) + 1)
    ended = [[*start, 0] for size in range(LONGEST) for start in itertools.product(tokens, repeat=size)]
    return ended + [list(whole) for whole in itertools.product(tokens, repeat=LONGEST)]


@torch.no_grad()
def logps(model: Any, tokenizer: Any) -> Tensor:
    """`[prompts, answers]` float64 by plain transformers."""
    rows = []
    for prompt in PROMPTS:
        before = tokenizer(prompt["prompt"]).input_ids
        full = torch.tensor([before + a + [0] * (LONGEST - len(a)) for a in answers()])
        steps = model(input_ids=full, use_cache=False).logits.double().log_softmax(-1)
        found = [
            sum(float(steps[row, len(before) - 1 + place, token]) for place, token in enumerate(answer))
            for row, answer in enumerate(answers())
        ]
        rows.append(found)
    return torch.tensor(rows, dtype=torch.float64)


def rewards_of(seed: int) -> Callable[[Any, str], float]:
    """A number from [−1, 1) for each prompt and text."""
    return lambda prompt, completion: 2.0 * uniform(seed, prompt, completion) - 1.0


def gap_closed(model: Any, start: Any, tokenizer: Any, reward: Callable[[Any, str], float]) -> float:
    """`(J − J_ref) / (J* − J_ref)`, prompts alike."""
    policy, held = logps(model, tokenizer), logps(start, tokenizer)
    torch.testing.assert_close(policy.exp().sum(1), torch.ones(len(PROMPTS), dtype=torch.float64))
    texts = [tokenizer.decode([token for token in answer if token]) for answer in answers()]
    rewards = torch.tensor(
        [[reward(prompt["prompt"], text) for text in texts] for prompt in PROMPTS], dtype=torch.float64
    )
    reached = (policy.exp() * (rewards - BETA * (policy - held))).sum(1).mean()
    least = (held.exp() * rewards).sum(1).mean()
    best = BETA * (held + rewards / BETA).logsumexp(1).mean()
    return float((reached - least) / (best - least))


def solved(advantage: str, seed: int) -> float:
    """The share of the gap that a run closes."""
    tokenizer = letters_tokenizer()
    start, model = (
        tiny("gpt2", seed=seed, dtype=torch.float32, vocab_size=len(LETTERS) + 1, n_positions=64)
        for _ in range(2)
    )
    reward = rewards_of(seed)
    likelier.ppo(
        *(model, PROMPTS, reward),
        tokenizer=tokenizer,
        advantage=advantage,
        beta=BETA,
        seed=seed,
        precision="float32",
        max_new_tokens=LONGEST,
        n=64,
        batch_size=192,
        epochs=60,
        rollout_epochs=4,
        learning_rate=3e-3,
        schedule="linear",
        warmup_steps=0,
        **SETTINGS[advantage],
    )
    return gap_closed(model, start, tokenizer, reward)


@pytest.mark.parametrize("advantage", ["gae", "rloo", "grpo"])
def test_it_closes_the_gap_to_the_optimum(advantage: str) -> None:
    assert solved(advantage, 0) >= 0.95


def test_nothing_is_closed_at_the_start() -> None:
    tokenizer = letters_tokenizer()
    start = tiny("gpt2", dtype=torch.float32, vocab_size=len(LETTERS) + 1, n_positions=64)
    assert gap_closed(start, start, tokenizer, rewards_of(0)) == pytest.approx(0.0, abs=1e-9)
