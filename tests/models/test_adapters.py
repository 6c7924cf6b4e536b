"""LoRA: deterministic, exact at the start, and honest about starts that are not its base."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from likelier.errors import ModelError
from likelier.models.adapters import adapter_is_start, adapter_off, add_lora, is_adapted
from tests.models.families import tiny

IDS = torch.arange(3, 19)[None]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_neox"])
def test_every_linear_layer_of_the_blocks_and_not_the_head(family: str) -> None:
    model = tiny(family, dtype=torch.float32)
    start = model(input_ids=IDS).logits
    adapted = add_lora(model, rank=4, seed=0)
    names = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    layers = model.config.num_hidden_layers
    assert len(names) == 2 * layers * {"llama": 7, "gpt2": 4, "gemma2": 7, "gpt_neox": 4}[family]
    assert not any("lm_head" in name or "embed_out" in name for name in names)
    assert torch.equal(adapted(input_ids=IDS).logits, start)
    assert is_adapted(adapted)
    assert not is_adapted(model)


def weights_of(adapted: Any) -> list[torch.Tensor]:
    return [parameter for name, parameter in adapted.named_parameters() if "lora" in name]


def test_the_seed_decides_and_the_random_state_stays() -> None:
    state = torch.get_rng_state()
    one, two, other = (weights_of(add_lora(tiny("llama"), rank=2, seed=seed)) for seed in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_scale_is_two_unless_told_and_dropout_is_none() -> None:
    settings = add_lora(tiny("llama"), rank=8, seed=0).peft_config["default"]
    assert (settings.r, settings.lora_alpha, settings.lora_dropout) == (8, 16, 0.0)
    assert add_lora(tiny("llama"), rank=8, alpha=4, seed=0).peft_config["default"].lora_alpha == 4


def test_named_targets_and_their_misspelling() -> None:
    adapted = add_lora(tiny("llama"), rank=2, targets=["q_proj"], seed=0)
    assert {name.split(".")[-4] for name, p in adapted.named_parameters() if p.requires_grad} == {"q_proj"}
    with pytest.raises(ModelError, match=r"qproj.*layers here: .*q_proj"):
        add_lora(tiny("llama"), rank=2, targets=["qproj"], seed=0)


def test_a_second_adapter_is_refused() -> None:
    adapted = add_lora(tiny("llama"), rank=2, seed=0)
    with pytest.raises(ModelError, match="adapter already"):
        add_lora(adapted, rank=2, seed=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_adapter_off_is_the_start(dtype: torch.dtype) -> None:
    adapted = add_lora(tiny("llama", dtype=dtype), rank=4, seed=0)
    adapted.train()
    assert adapter_is_start(adapted)
    assert adapted.training


def test_a_trained_adapter_off_is_not_the_start() -> None:
    adapted = add_lora(tiny("llama", dtype=torch.float32), rank=4, seed=0)
    weight = next(p for name, p in adapted.named_parameters() if "lora_B" in name)
    weight.data[0, 0] = 0.5
    assert not adapter_is_start(adapted)
    with adapter_off(adapted):
        off = adapted(input_ids=IDS).logits
    assert torch.equal(off, tiny("llama", dtype=torch.float32)(input_ids=IDS).logits)
    assert not torch.equal(adapted(input_ids=IDS).logits, off)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", ["pissa", "olora"])
def test_initialisations_that_move_the_base_are_found_out(kind: str) -> None:
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=4, init_lora_weights=kind, target_modules="all-linear")
    adapted = get_peft_model(tiny("llama", dtype=torch.float32), settings)
    assert not adapter_is_start(adapted)
