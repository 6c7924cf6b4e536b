"""The model card's front matter is what the hub reads, whatever the names hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from likelier.models.cards import model_card


def test_front_matter_tables_and_settings(tmp_path: Path) -> None:
    text = model_card(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        method="DPO",
        data={"pairs.jsonl": "abc123"},
        settings={"beta": 0.1, "out": tmp_path, "targets": ("q", "v"), "nested": {"x": None}},
        results=[
            {"measure": "accuracy", "before": 0.5, "after": 0.61234, "n": 200},
            {"measure": "a | b\nc", "after": 1.0},
        ],
    )
    card = ModelCard(text)
    assert card.data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert card.data.library_name == "transformers"
    assert card.data.tags == ["likelier", "dpo"]
    assert "| measure | before | after | n |" in text
    assert "| accuracy | 0.5 | 0.6123 | 200 |" in text
    assert "| a \\| b c |  | 1 |  |" in text
    assert "| pairs.jsonl | abc123 |" in text
    settings = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert settings == {"beta": 0.1, "out": str(tmp_path), "targets": ["q", "v"], "nested": {"x": None}}


@pytest.mark.parametrize("base", ["/models/x.gguf", "a: b\n---\n", "./run/model", "C:\\models\\x"])
def test_a_local_base_is_named_in_the_text_alone(base: str) -> None:
    card = ModelCard(model_card(base, method="SFT", data={}, settings={}, adapter=True))
    assert card.data.base_model is None
    assert card.data.library_name == "peft"
    assert card.data.tags == ["likelier", "sft"]
