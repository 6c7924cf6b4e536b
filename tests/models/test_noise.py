"""Dropout and jitter are off, and the saved configuration does not know."""

from __future__ import annotations

import pytest
import torch

from likelier.models.noise import silence_noise
from tests.models.families import tiny

IDS = torch.arange(3, 19)[None]

# peft asks for an attribute that transformers is about to rename; add_lora keeps it quiet.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "mixtral", "llama"])
def test_training_mode_is_deterministic(family: str) -> None:
    noisy = {"attention_dropout": 0.3} if family in ("llama", "mixtral") else {}
    model = tiny(family, dtype=torch.float32, **noisy).train()
    assert not torch.equal(model(input_ids=IDS).logits, model(input_ids=IDS).logits)
    silence_noise(model)
    assert torch.equal(model(input_ids=IDS).logits, model(input_ids=IDS).logits)
    assert torch.equal(model(input_ids=IDS).logits, model.eval()(input_ids=IDS).logits)


def test_router_loss_and_cache_are_off() -> None:
    model = tiny("mixtral", output_router_logits=True)
    silence_noise(model)
    assert model.config.output_router_logits is False
    assert model.config.router_jitter_noise == 0.0
    assert model.config.use_cache is False
    output = model(input_ids=IDS, labels=IDS)
    assert output.get("aux_loss") is None
    assert output.get("past_key_values") is None


def test_what_was_changed_comes_back_for_saving() -> None:
    model = tiny("gpt2")
    before = model.config.to_dict()
    silenced = silence_noise(model)
    quiet = model.config.to_dict()
    assert before["resid_pdrop"] == 0.1
    assert quiet["resid_pdrop"] == 0.0
    with silenced.restored():
        assert model.config.to_dict() == before
        assert model.transformer.drop.p == 0.1
    assert model.config.to_dict() == quiet
    assert model.transformer.drop.p == 0.0
    with pytest.raises(OSError, match="disk"), silenced.restored():
        raise OSError("disk")
    assert model.config.to_dict() == quiet


def test_silencing_twice_changes_nothing_more() -> None:
    model = tiny("gpt_neox")
    silence_noise(model)
    assert silence_noise(model).changes == []


def test_lora_dropout_is_off() -> None:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(tiny("llama"), LoraConfig(lora_dropout=0.5, target_modules="all-linear"))
    silence_noise(adapted)
    rates = [module.p for module in adapted.modules() if isinstance(module, torch.nn.Dropout)]
    assert rates
    assert set(rates) == {0.0}
