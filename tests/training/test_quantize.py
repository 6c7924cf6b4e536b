"""`--quantize 4bit`: what transformers is handed. That it then computes in 4 bits needs an NVIDIA device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from likelier.models import loading
from tests.training.support import pairs, train


def test_the_frozen_weights_are_asked_for_in_4_bits_and_the_adapter_trains(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    whole = loading.AutoModelForCausalLM.from_pretrained

    def noting(folder: Path, **options: Any) -> Any:
        asked.append({name: options.pop(name, None) for name in ("quantization_config", "device_map")})
        return whole(folder, **options)

    monkeypatch.setattr(loading, "_check_quantization", lambda: None)
    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", noting)
    run = train(str(tiny_llama), pairs(4), precision="float32", quantize="4bit", lora_rank=2)
    (options,) = asked
    settings = options["quantization_config"]
    assert (settings.load_in_4bit, settings.bnb_4bit_quant_type) == (True, "nf4")
    assert settings.bnb_4bit_compute_dtype == torch.bfloat16
    assert set(options["device_map"]) == {""}
    trained = {name for name, parameter in run.model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)


def test_nothing_is_asked_for_without_the_flag(tiny_llama: Path) -> None:
    wishes = loading._Wishes(
        dtype=torch.float32,
        device=torch.device("cpu"),
        revision=None,
        trust_remote_code=False,
        quantize=None,
        rewards=False,
    )
    assert loading._quantization_options(wishes) == {}
