"""Two models are the same when their content is, whatever they are called."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig

from likelier.models.adapters import add_lora
from likelier.models.identity import forward_config_digest, weights_digest
from likelier.models.noise import silence_noise
from tests.models.families import tiny


def test_digest_is_of_names_shapes_dtypes_and_bytes() -> None:
    """Worked out here by hand for one tensor."""
    layer = torch.nn.Linear(2, 1, bias=False)
    inner = hashlib.sha256(layer.weight.detach().numpy().tobytes()).digest()
    assert weights_digest(layer) == hashlib.sha256(b"weight\0(1, 2)\0torch.float32\0" + inner).digest()


def test_a_saved_and_loaded_model_is_the_same(tmp_path: Path) -> None:
    model = tiny("gpt2", dtype=torch.float32)
    for place in ("one", "two"):
        model.save_pretrained(tmp_path / place)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / place)
        assert weights_digest(loaded) == weights_digest(model)
        assert forward_config_digest(loaded.config) == forward_config_digest(model.config)


def test_any_change_is_seen() -> None:
    digests = {weights_digest(tiny("llama", dtype=torch.float32))}
    model = tiny("llama", dtype=torch.float32)
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.view(-1)[-1] += 1e-3
        digests.add(weights_digest(model))
    model.model.rotary_emb.inv_freq[0] += 1e-3
    digests.add(weights_digest(model))
    digests.add(weights_digest(model.double()))
    digests.add(weights_digest(model.bfloat16()))
    assert len(digests) == len(list(model.parameters())) + 4


def test_swapped_and_reshaped_tensors_differ() -> None:
    class Two(torch.nn.Module):
        def __init__(self, first: torch.Tensor, second: torch.Tensor) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Parameter(first), torch.nn.Parameter(second)

    ones, zeros = torch.ones(2, 3), torch.zeros(2, 3)
    variants = [
        Two(ones, zeros),
        Two(zeros, ones),
        Two(ones.reshape(3, 2), zeros),
        Two(ones.t().clone().t(), zeros),
    ]
    digests = [weights_digest(variant) for variant in variants]
    assert len(set(digests[:3])) == 3
    assert digests[3] == digests[0]  # The same content in another memory layout.


def test_empty_scalar_and_tied_tensors() -> None:
    module = torch.nn.Module()
    module.register_buffer("empty", torch.zeros(0, 3))
    module.register_buffer("scalar", torch.tensor(3))
    assert len(weights_digest(module)) == 32
    tied = tiny("gpt2", dtype=torch.float32)
    before = weights_digest(tied)
    tied.lm_head.weight = torch.nn.Parameter(tied.lm_head.weight.detach().clone())
    assert weights_digest(tied) == before


def test_large_tensors_are_hashed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama", dtype=torch.float32)
    whole = weights_digest(model)
    monkeypatch.setattr("likelier.models.identity._CHUNK_BYTES", 1000)
    assert weights_digest(model) == whole


@pytest.mark.parametrize(
    "change",
    [
        {"rms_norm_eps": 1e-3},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        {"hidden_act": "gelu"},
        {"sliding_window": 7},
        {"num_attention_heads": 16},
    ],
)
def test_settings_that_change_the_forward_change_the_digest(change: dict[str, object]) -> None:
    assert forward_config_digest(MistralConfig(**change)) != forward_config_digest(MistralConfig())


def test_settings_that_do_not_change_the_forward_do_not_change_the_digest() -> None:
    same = LlamaConfig(
        attention_dropout=0.5,
        use_cache=False,
        eos_token_id=9,
        pad_token_id=3,
        initializer_range=0.5,
        dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
        name_or_path="/somewhere",
    )
    assert forward_config_digest(same) == forward_config_digest(LlamaConfig())
    assert forward_config_digest(GPT2Config(resid_pdrop=0.3)) == forward_config_digest(GPT2Config())


@pytest.mark.parametrize("family", ["gpt2", "mixtral", "gemma2"])
def test_silencing_does_not_change_the_digest(family: str) -> None:
    model = tiny(family)
    before = forward_config_digest(model.config), weights_digest(model)
    silence_noise(model)
    assert (forward_config_digest(model.config), weights_digest(model)) == before


def test_the_scale_of_an_adapter_counts() -> None:
    """α is no tensor: two adapters that differ in it alone are two models."""
    digests = {
        alpha: weights_digest(add_lora(tiny("llama"), rank=2, alpha=alpha, seed=0)) for alpha in (4.0, 8.0)
    }
    assert digests[4.0] != digests[8.0]
    assert digests[4.0] == weights_digest(add_lora(tiny("llama"), rank=2, alpha=4.0, seed=0))
