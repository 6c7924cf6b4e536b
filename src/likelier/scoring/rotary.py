"""Rotary frequencies that depend on the longest position of the whole call (longrope, dynamic NTK)."""

from __future__ import annotations

from transformers import PretrainedConfig, PreTrainedModel


def forget_longest(causal: PreTrainedModel) -> None:
    """Undo dynamic rotary frequencies, which would stay those of the longest row that was ever read."""
    for module in causal.modules():
        found = getattr(module, "rope_type", {})
        kinds = (
            {"": found} if isinstance(found, str) else {f"{layer}_": kind for layer, kind in found.items()}
        )
        for prefix in (prefix for prefix, kind in kinds.items() if kind == "dynamic"):
            frequencies = getattr(module, f"{prefix}original_inv_freq").to(causal.device)
            module.register_buffer(f"{prefix}inv_freq", frequencies, persistent=False)
            setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)


def rotary_limit(config: PretrainedConfig) -> int | None:
    """The length past which rotary frequencies depend on the call's longest position; None if never."""
    rope = getattr(config, "rope_parameters", None) or {}
    layers = rope.values() if rope and all(isinstance(v, dict) for v in rope.values()) else [rope]
    if not any(layer.get("rope_type") in ("dynamic", "longrope") for layer in layers):
        return None
    named = [layer.get("original_max_position_embeddings") for layer in layers]
    return int(min([n for n in named if n] or [config.max_position_embeddings]))
