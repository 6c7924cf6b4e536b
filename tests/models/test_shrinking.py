"""The small copy shows every kind of layer and attends as the big model does."""

from __future__ import annotations

import pytest
import torch
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM

from likelier.models.shrinking import shrunken
from likelier.scoring.equality import choose_way
from tests.models.families import FAMILIES, tiny

IDS = torch.arange(3, 27)[None]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_shrunken(family: str) -> None:
    model = tiny(family)
    small = shrunken(model)
    assert type(small) is type(model)
    assert not small.training
    assert all(parameter.dtype == torch.float32 for parameter in small.parameters())
    logits = small(input_ids=IDS).logits
    assert torch.isfinite(logits).all()
    assert logits.std() > 0.5
    # Something in the prompt shows in the last position's logits, well above rounding.
    changed = IDS.clone()
    changed[0, -4] = 99
    assert (small(input_ids=changed).logits - logits)[0, -1].abs().max() > 0.05
    # And nothing leaks to the left.
    assert torch.allclose(small(input_ids=changed).logits[0, :-4], logits[0, :-4], atol=1e-5)


def full_size(family: str, **settings: object) -> torch.nn.Module:
    """The architecture at full size, without weights."""
    config = AutoConfig.for_model(family, **settings)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    ("family", "settings", "layer_types"),
    [
        ("gemma3_text", {}, ["sliding_attention", "full_attention"]),
        ("gemma2", {}, ["sliding_attention", "full_attention"]),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4096, "num_hidden_layers": 32}, None),
        ("qwen3", {}, ["full_attention", "full_attention"]),
    ],
)
def test_full_size_keeps_each_layer_type(
    family: str, settings: dict[str, object], layer_types: list[str] | None
) -> None:
    big = full_size(family, **settings)
    small = shrunken(big)
    assert set(small.config.layer_types) == set(big.config.layer_types)
    if layer_types:
        assert small.config.layer_types == layer_types
    assert small.num_parameters() < 200_000
    if "sliding_attention" in small.config.layer_types:
        assert small.config.sliding_window == 8


def test_layers_that_differ_by_position_are_kept() -> None:
    """DeepSeek's first layers are dense, the others mixtures: told by position, not by a list of types."""
    small = shrunken(full_size("deepseek_v3", num_hidden_layers=12))
    kinds = [type(layer.mlp).__name__ for layer in small.model.layers]
    assert kinds == ["DeepseekV3MLP", "DeepseekV3MLP", "DeepseekV3MLP", "DeepseekV3MoE"]
    assert small.num_parameters() < 500_000


def test_layers_without_rotary_positions_are_kept() -> None:
    small = shrunken(full_size("smollm3", pad_token_id=0))
    assert sorted(bool(layer.self_attn.use_rope) for layer in small.model.layers) == [False, True]


def test_longrope_is_shrunken_with_its_frequencies() -> None:
    rope = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0 + i / 48 for i in range(48)],
        "long_factor": [2.0 + i for i in range(48)],
        "original_max_position_embeddings": 4096,
    }
    small = shrunken(
        full_size(
            "phi3", rope_parameters=rope, max_position_embeddings=131072, pad_token_id=0, num_hidden_layers=4
        )
    )
    assert small.config.hidden_size == 64
    assert small.model.rotary_emb.inv_freq.shape == (8,)


@pytest.mark.parametrize(("heads", "shared", "kept"), [(8, 8, 4), (8, 2, 2), (8, 1, 1)])
def test_how_heads_are_shared_is_kept(heads: int, shared: int, kept: int) -> None:
    small = shrunken(
        full_size("llama", num_attention_heads=heads, num_key_value_heads=shared, hidden_size=256)
    )
    assert (small.config.num_attention_heads, small.config.num_key_value_heads) == (4, kept)


def test_window_seed_and_attention_are_the_callers() -> None:
    model = tiny("mistral")
    assert shrunken(model, window=5).config.sliding_window == 5
    first, again, other = (shrunken(model, seed=seed).lm_head.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert shrunken(model, attention="eager").config._attn_implementation == "eager"


def test_a_registered_attention_function_is_used_and_may_need_more_than_a_plain_call() -> None:
    def needs_a_tree(*_: object, **__: object) -> None:
        raise LookupError("no tree")

    AttentionInterface.register("needs_a_tree", needs_a_tree)
    small = shrunken(tiny("llama"), attention="needs_a_tree")
    assert small.config.hidden_size == 64
    with pytest.raises(LookupError, match="no tree"):
        small(input_ids=IDS)


def test_the_model_itself_and_the_random_state_are_left_alone() -> None:
    model = tiny("gemma2")
    before, state = model.config.to_dict(), torch.get_rng_state()
    shrunken(model)
    assert model.config.to_dict() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_over_a_few_letters_is_checked_on_more() -> None:
    """The checks write with tokens up to 60: a vocabulary of three once sent every such model through plain rows."""
    model = tiny("gpt2", vocab_size=3, bos_token_id=None, eos_token_id=2, pad_token_id=None)
    assert shrunken(model).config.vocab_size == 128
    assert choose_way(model).way == "tree"
