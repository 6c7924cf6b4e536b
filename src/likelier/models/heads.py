"""What a reward model is, whoever made it: a sequence classifier of transformers with one label, over a decoder."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)


def value_head(model: Any) -> nn.Linear | None:
    """The output of a reward model: the linear layer of a classifier of one label over a decoder; else None.

    >>> from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification
    >>> sizes = dict(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    >>> value_head(LlamaForSequenceClassification(LlamaConfig(**sizes, num_labels=1)))
    Linear(in_features=16, out_features=1, bias=False)
    >>> value_head(LlamaForCausalLM(LlamaConfig(**sizes))) is None
    True
    """
    if not type(model).__name__.endswith("ForSequenceClassification") or not _fits(model.config):
        return None
    heads = [layer for layer in model.children() if isinstance(layer, nn.Linear) and layer.out_features == 1]
    return heads[0] if len(heads) == 1 else None


def is_reward_config(config: PretrainedConfig) -> bool:
    """Whether a folder with this configuration holds a reward model."""
    named = config.architectures or []
    return any(name.endswith("ForSequenceClassification") for name in named) and _fits(config)


def _fits(config: PretrainedConfig) -> bool:
    """One label, and a model that reads from left to right: its last state has seen all."""
    kind = config.model_type
    both_ways = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    decoder = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not both_ways
    return config.num_labels == 1 and decoder and not config.is_encoder_decoder
