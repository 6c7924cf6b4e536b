"""FLOP against torch's own counter, rates against a clock, memory against what torch allocates and saves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from likelier.data.trees import Node, Tree, tree_of
from likelier.models.adapters import add_lora
from likelier.training import estimate
from likelier.training.estimate import flops, matrices, product_rate
from tests.models.families import tiny


def llama(**more: Any) -> LlamaForCausalLM:
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    return LlamaForCausalLM(
        LlamaConfig(**{**shape, "num_attention_heads": 4, "num_key_value_heads": 2, **more})
    )


def scored_row(length: int) -> Tree:
    """One row whose every token is scored but the first, as an ordinary forward reads it."""
    return tree_of([1], [[2] * (length - 1)])


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "phi3", "olmo2"])
def test_forward_is_what_torch_counts_on_an_ordinary_row(family: str) -> None:
    """torch counts attention over the full square, and the head on every position."""
    model, length = tiny(family, dtype=torch.float32), 16
    model.config._attn_implementation = "eager"
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.ones(1, length, dtype=torch.long))
    counted = counter.get_flop_counts()["Global"]
    head = 2 * model.get_output_embeddings().weight.numel()
    ours = flops(model, [scored_row(length)], training=False) + head
    attention = estimate._attention_flops(model, [scored_row(length)])
    square = attention if family == "phi3" else attention * 2 * length / (length + 1)
    products = sum(
        count
        for name, count in counted.items()
        if getattr(name, "__name__", str(name)).split(".")[0] != "bmm"
    )
    small = 0.01 * products  # rotary frequencies
    assert products == pytest.approx(ours - attention, abs=small)
    if family != "phi3":  # a sliding window: fewer keys seen than torch multiplies
        assert sum(counted.values()) == pytest.approx(ours - attention + square, abs=small)


def test_training_is_three_forwards_and_two_thirds_of_it_where_weights_are_frozen() -> None:
    model, trees = llama(), [scored_row(10)]
    forward, full = (flops(model, trees, training=flag) for flag in (False, True))
    assert full == 3 * forward
    attention = 3 * estimate._attention_flops(model, trees)
    model.requires_grad_(False)
    frozen = flops(model, trees, training=True)
    assert frozen - attention == pytest.approx((full - attention) * 2 / 3)


def test_an_adapter_adds_its_own_products_and_freezes_the_rest() -> None:
    model, trees = llama(), [scored_row(10)]
    base = flops(model, trees, training=False)
    adapted = add_lora(model, rank=4, seed=0)
    extra = flops(adapted, trees, training=False) - base
    lora = sum(p.numel() for name, p in adapted.named_parameters() if "lora_" in name)
    assert extra == 2 * 10 * lora
    assert sum(m.size for m in matrices(adapted) if m.trained) == lora


def test_a_shared_trunk_is_read_once_and_the_head_only_where_scored() -> None:
    model = llama()
    one, other = tree_of([1] * 30, [[2] * 5]), tree_of([1] * 30, [[3] * 7])
    both = tree_of([1] * 30, [[2] * 5, [3] * 7])
    saved = flops(model, [one, other], training=False) - flops(model, [both], training=False)
    blocks = sum(matrix.size for matrix in matrices(model) if not matrix.is_head)
    trunk_attention = 30 * 31 // 2 * 2 * 4 * 2 * 8 * 2
    assert saved == 2 * 30 * blocks + trunk_attention
    assert flops(model, [], training=True) == 0


def test_a_trunk_that_hangs_on_a_trunk_sees_all_above_it() -> None:
    def node(parent: int, length: int, scored: bool) -> Node:
        import numpy as np

        return Node(parent, np.ones(length, np.int32), np.full(length, scored))

    deep = Tree("0", (node(-1, 3, False), node(0, 4, False), node(1, 5, True)), (2,))
    flat = tree_of([1] * 7, [[1] * 5])
    assert flops(llama(), [deep], training=True) == flops(llama(), [flat], training=True)


def test_a_window_bounds_the_keys_that_are_seen() -> None:
    """Position by position."""
    for window in (None, 1, 4, 100):
        by_hand = sum(min(p + 1, window or 99) for p in range(10)) + sum(
            min(p + 1, window or 99) for p in range(6, 11)
        )
        tree = tree_of([1] * 6, [[1] * 4, [1] * 5])
        assert estimate._keys_seen([tree], window) == by_hand


def test_experts_count_by_their_share() -> None:
    model = tiny("mixtral", dtype=torch.float32)
    experts = [matrix for matrix in matrices(model) if matrix.used < 1]
    assert {matrix.used for matrix in experts} == {0.5}
    assert sum(m.size for m in experts) == sum(p.numel() for p in model.parameters() if p.dim() == 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rate_is_that_of_a_product_timed_by_hand(dtype: torch.dtype) -> None:
    """Within the noise of a shared machine: a factor of four."""
    import time

    model = llama(hidden_size=256, intermediate_size=512)
    rate = product_rate(model, rows=256, dtype=dtype, seconds=0.2)
    x, weight = torch.randn(256, 256, dtype=dtype), torch.randn(512, 256, dtype=dtype)
    best = float("inf")
    for _ in range(20):
        begun = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        best = min(best, time.perf_counter() - begun)
    by_hand = 2 * 256 * 256 * 512 / best
    assert by_hand / 4 < rate < by_hand * 4


def test_timing_uses_up_no_random_number_and_leaves_no_gradient() -> None:
    model = llama()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    product_rate(model, rows=64, dtype=torch.float32, seconds=0.01)
    assert torch.equal(torch.rand(3), expected)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_without_products_is_refused() -> None:
    with pytest.raises(ValueError, match="no linear layer"):
        product_rate(torch.nn.LayerNorm(3), rows=4, dtype=torch.float32)
