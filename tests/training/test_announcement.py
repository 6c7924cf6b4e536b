"""What is said before step 0, and the warning that it would be in vain."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from likelier.data.trees import Comparison, tree_of
from likelier.models.adapters import add_lora
from likelier.training.announcement import Outlook, cannot_move, duration, paragraph
from tests.models.families import tiny
from tests.training.test_memory import llama

TREES = [tree_of([1] * 5, [[1, 2], [3]], comparisons=(Comparison(0, 1),))] * 3
MEMORY = {
    "weights": 540_000_000,
    "gradients": 540_000_000,
    "optimizer": 1_080_000_000,
    "working_copies": 270_000_000,
    "head": 170_000_000,
    "fixed": 2_600_000_000,
    "per_token": 600_000,
}


def outlook(model: nn.Module, *, lora_rank: int | None = None) -> Outlook:
    return Outlook(
        steps=12,
        unit="pairs",
        batch_size=64,
        epochs=2,
        trees=TREES,
        model=model,
        lora_rank=lora_rank,
        reference="the policy before its first update",
        precision="bfloat16",
        way="tree",
        max_tokens=2048,
        work=1e13,
        rate=2e11,
        seconds=200.0,
        memory=MEMORY,
    )


def test_the_paragraph_says_what_is_done_to_what_and_what_it_takes() -> None:
    said = paragraph(outlook(llama()))
    assert "\n" not in said
    for part in (
        "12 steps of 64 pairs, 2 epochs of 3 pairs in 3 trees",
        "reads 24 tokens and scores 9 of them",
        "Full training of 0.181 M parameters, against the policy before its first update",
        "bfloat16, tree attention",
        "about 3 min (1e+13 FLOP at 25% of the 200 GFLOP/s",
        "3.8 GB of memory (weights 0.54 GB",
        "activations 1.2 GB",
    ):
        assert part in said


def test_the_paragraph_names_what_an_adapter_trains() -> None:
    said = paragraph(outlook(add_lora(llama(), rank=2, seed=0), lora_rank=2))
    assert "LoRA of rank 2: " in said
    assert "Full" not in said


def layer(dtype: torch.dtype = torch.float32, *, on_grid: bool = False) -> nn.Linear:
    """576 inputs, weights of size 0.15, as in a small model; on bfloat16 numbers if asked."""
    made = nn.Linear(576, 576, bias=False)
    nn.init.normal_(made.weight, std=0.15, generator=torch.Generator().manual_seed(0))
    if on_grid:
        made.weight.data = made.weight.data.bfloat16().float()
    return made.to(dtype)


def test_settings_of_real_runs_pass() -> None:
    assert cannot_move(layer(), learning_rates=[1e-6] * 2500, dtype=torch.float32) is None
    assert cannot_move(layer(), learning_rates=[2e-5] * 22, dtype=torch.float32) is None
    assert cannot_move(layer(), learning_rates=[2e-5] * 22, dtype=torch.bfloat16) is None
    assert cannot_move(tiny("gpt2"), learning_rates=[1e-4] * 100, dtype=torch.float32) is None


def test_too_few_updates_times_too_small_a_rate_are_warned_of_with_numbers_and_a_rate_that_would_do() -> None:
    said = cannot_move(layer(), learning_rates=[1e-7] * 6, dtype=torch.float32)
    assert said is not None
    assert "6 updates at a mean learning rate of 1e-07 move a weight by at most 6e-07" in said
    assert "at most 0.0001 of itself" in said
    rate = float(said.split("(try ")[1].split(")")[0])
    assert cannot_move(layer(), learning_rates=[rate] * 6, dtype=torch.float32) is None


def test_what_bfloat16_rounds_away_is_told_from_what_is_small() -> None:
    """Weights on bfloat16 numbers stay there until half a spacing is passed; the same weights off them do not."""
    rates = [1e-6] * 6
    said = cannot_move(layer(on_grid=True), learning_rates=rates, dtype=torch.bfloat16)
    assert said is not None
    assert "bfloat16 rounds most of that away (its numbers lie 0.00098 apart there)" in said
    assert cannot_move(layer(), learning_rates=rates, dtype=torch.bfloat16) is None
    assert cannot_move(layer(on_grid=True), learning_rates=rates, dtype=torch.float32) is None


def test_weights_that_are_kept_in_bfloat16_lose_each_update() -> None:
    many = [1e-6] * 100_000
    said = cannot_move(layer(torch.bfloat16), learning_rates=many, dtype=torch.bfloat16)
    assert said is not None
    assert "bfloat16 rounds most of that away" in said


def test_an_adapter_is_judged_by_what_it_adds() -> None:
    model = add_lora(llama(), rank=8, seed=0)
    assert cannot_move(model, learning_rates=[1e-3] * 50, dtype=torch.float32) is None
    assert cannot_move(model, learning_rates=[1e-8] * 50, dtype=torch.float32) is not None


def test_nothing_to_train_and_no_step_say_nothing() -> None:
    frozen = layer().requires_grad_(False)
    assert cannot_move(frozen, learning_rates=[1e-9], dtype=torch.float32) is None
    assert cannot_move(layer(), learning_rates=[], dtype=torch.float32) is None


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (89, "89 s"), (91, "2 min"), (3600, "1 h 0 min")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
