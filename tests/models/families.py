"""Tiny random models of many architectures, for every test that must hold across families.

Weights are spread wider than at a real initialisation, and norms and biases are not constant, so that a
token which attends to the wrong place shows in the logits.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCAB, HIDDEN, HEADS, WINDOW = 128, 32, 4, 8

_TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_PLAIN = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "max_position_embeddings": 256,
    **_TOKENS,
}
_GROUPED = {**_PLAIN, "num_key_value_heads": 2}
_ALTERNATING = {
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "sliding_window": WINDOW,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
}
_GPT = {"vocab_size": VOCAB, "n_embd": HIDDEN, "n_layer": 2, "n_head": HEADS, "n_positions": 256, **_TOKENS}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _GROUPED,
    "mistral": {**_GROUPED, "sliding_window": WINDOW, "head_dim": 8},
    "qwen2": {
        **_GROUPED,
        "num_hidden_layers": 4,
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "max_window_layers": 2,
        "tie_word_embeddings": True,
    },
    "qwen3": {**_GROUPED, "head_dim": 16},
    "gemma2": {**_GROUPED, **_ALTERNATING},
    "gemma3_text": {**_GROUPED, **_ALTERNATING},
    "phi3": {**_GROUPED, "sliding_window": WINDOW},
    "gpt2": _GPT,
    "gpt_neox": {**_PLAIN, "hidden_dropout": 0.1, "attention_dropout": 0.1},
    "olmo2": _GROUPED,
    "mixtral": {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "router_jitter_noise": 0.1},
    "bloom": {"vocab_size": VOCAB, "hidden_size": HIDDEN, "n_layer": 2, "n_head": HEADS, **_TOKENS},
    "falcon": {
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        **_TOKENS,
    },
    "gptj": {**_GPT, "rotary_dim": 4},
    "codegen": {**_GPT, "n_ctx": 256, "rotary_dim": 4},
    "mamba": {
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "state_size": 8,
        "use_mambapy": False,
        **_TOKENS,
    },
    "deepseek_v3": {
        **_PLAIN,
        "num_key_value_heads": HEADS,
        "moe_intermediate_size": 16,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 12,
    },
}
"""Configuration of each family's tiny model; windows are 8 where the family has them."""

TREE_FAMILIES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "phi3",
    "gpt2",
    "gpt_neox",
    "olmo2",
)
"""Families that a replaced attention function serves exactly; so are the mixtures in `FAMILIES`."""


def tiny(
    family: str, *, seed: int = 0, dtype: torch.dtype = torch.float64, **changes: Any
) -> PreTrainedModel:
    """A random model of `family` in evaluation mode; `changes` go over its configuration."""
    config = AutoConfig.for_model(family, **{**FAMILIES[family], **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Grouped matrix products have no float64 on a CPU, so experts run one by one.
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, experts_implementation="eager")
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.data.normal_(std=1.4 / HIDDEN**0.5)
            else:
                parameter.data.add_(0.2 * torch.randn_like(parameter))
        if model.get_output_embeddings() is not None:
            model.tie_weights()
    return model.to(dtype).eval()
