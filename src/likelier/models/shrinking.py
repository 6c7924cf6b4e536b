"""A tiny random copy of a model's architecture, with each kind of layer, for checks too dear at full size.

The copy has the fewest layers that still show each kind (window or not, mixture or dense, …), the smallest
widths that the architecture lets be built, and weights spread wide enough that a token which attends to the
wrong place moves the logits.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from likelier.errors import ModelError
from likelier.models.noise import silence_noise

_HEAD_DIM, _HEADS, _VOCAB, _POSITIONS = 16, 4, 128, 512
_WIDTHS: dict[str, int] = {
    "hidden_size": _HEADS * _HEAD_DIM,
    "word_embed_proj_dim": _HEADS * _HEAD_DIM,
    "intermediate_size": 96,
    "n_inner": 96,
    "ffn_dim": 96,
    "ffn_hidden_size": 96,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "head_dim": _HEAD_DIM,
    "query_pre_attn_scalar": _HEAD_DIM,
    "rotary_dim": _HEAD_DIM // 2,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "qk_head_dim": 24,
    "v_head_dim": 12,
    "state_size": 8,
    "time_step_rank": 8,
    "num_heads": 8,
    "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": _VOCAB,
    "mamba_n_heads": 8,
    "mamba_d_head": _HEAD_DIM,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
}
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_CHOSEN_EXPERTS = ("num_experts_per_tok", "num_experts_per_token", "moe_topk")
_WINDOWS = (
    "sliding_window",
    "window_size",
    "sliding_window_size",
    "attention_window_size",
    "attention_chunk_size",
)
_BUILD_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)

Kind = frozenset[tuple[object, ...]]


def shrunken(
    model: PreTrainedModel,
    *,
    attention: str | None = None,
    window: int = 8,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> PreTrainedModel:
    """A tiny random float32 model of the same class as `model`, with each of its kinds of layer.

    Args:
        model: any decoder of transformers; for a PeftModel give its base model.
        attention: the attention implementation (`"sdpa"`, a registered name …); None keeps the model's.
        window: sliding windows are cut to this many positions.
        seed: of the random weights; the same seed gives the same bits.
        device: where the copy is put.

    Noise is silenced and the model is in evaluation mode. Widths that the architecture refuses to change
    are kept; its layers and vocabulary stay small. Raises `ModelError` when nothing of it can be built.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> big = LlamaForCausalLM(LlamaConfig(hidden_size=256, intermediate_size=512, num_hidden_layers=9))
    >>> small = shrunken(big)
    >>> small.config.num_hidden_layers, small.config.hidden_size, small.config.vocab_size
    (2, 64, 128)
    """
    steps: list[Callable[[PretrainedConfig], None]] = [_narrow, _small_vocabulary, lambda config: None]
    wanted = attention or model.config._attn_implementation
    # A registered function may need more than a plain call gives it: the copy is built and tried without.
    built = wanted if wanted in ("eager", "sdpa") else "eager"
    refusals: list[str] = []
    for step in steps:
        config = copy.deepcopy(model.config)
        _clean(config.get_text_config(), window)
        step(config.get_text_config())
        try:
            small = _build(type(model), config, attention=built, seed=seed)
        except _BUILD_ERRORS as error:
            refusals.append(" ".join(str(error).split()))
            continue
        if wanted != built:
            small.set_attn_implementation(wanted)
        return small.to(device)
    raise ModelError(f"no small copy of {type(model).__name__} can be built: {refusals[-1]}")


def _build(
    family: type[PreTrainedModel], config: PretrainedConfig, *, attention: str, seed: int
) -> PreTrainedModel:
    """The shallowest model that shows every kind of layer, tried with a short forward."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        small = family._from_config(
            _shallow(family, config), attn_implementation=attention, dtype=torch.float32
        )
        _scatter(small)
    silence_noise(small)
    small.eval()
    with torch.no_grad():
        small(input_ids=torch.arange(3, 9)[None])
    return small


def _shallow(family: type[PreTrainedModel], config: PretrainedConfig) -> PretrainedConfig:
    """`config` with the first layer of each kind; where kinds go by position, a prefix; else all layers."""
    kinds = _layer_kinds(_skeleton(family, config), config)
    firsts = _firsts(kinds)
    for layers in (firsts, list(range(firsts[-1] + 1))) if firsts else ():
        candidate = _with_layers(config, layers)
        try:
            found = _layer_kinds(_skeleton(family, candidate), candidate)
        except _BUILD_ERRORS:
            continue
        if set(found) == set(kinds):
            return candidate
    return config


def _skeleton(family: type[PreTrainedModel], config: PretrainedConfig) -> PreTrainedModel:
    """The model without weights: its modules can be looked at for nothing."""
    plain = copy.deepcopy(config)
    if hasattr(plain, "quantization_config"):
        del plain.quantization_config
    with torch.device("meta"):
        return family._from_config(plain, attn_implementation="eager")


def _layer_kinds(model: nn.Module, config: PretrainedConfig) -> list[Kind]:
    """Per layer, what tells it from other kinds: module classes, switches, and which settings are absent."""
    depth = config.get_text_config().num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return [_kind(layer) for layer in module]
    return []


def _kind(layer: nn.Module) -> Kind:
    return frozenset((type(module).__name__, *_traits(module)) for module in layer.modules())


def _traits(module: nn.Module) -> tuple[tuple[str, object], ...]:
    """Names and switches as they are; of windows only whether there is one."""
    found: list[tuple[str, object]] = []
    for name, value in vars(module).items():
        if name.startswith("_") or name in ("training", "layer_idx", "layer_id"):
            continue
        if value is None or isinstance(value, (bool, str)) or (isinstance(value, int) and value in (0, 1)):
            found.append((name, value))
        elif name in _WINDOWS:
            found.append((name, "set"))
    return tuple(sorted(found, key=lambda trait: trait[0]))


def _firsts(kinds: list[Kind]) -> list[int]:
    """The index of the first layer of each kind; two layers of a single kind, to see them work together."""
    firsts = sorted({kind: index for index, kind in reversed(list(enumerate(kinds)))}.values())
    return list(range(min(2, len(kinds)))) if firsts == [0] else firsts


def _with_layers(config: PretrainedConfig, layers: list[int]) -> PretrainedConfig:
    """A copy of `config` with these layers only, every per-layer list cut with it."""
    smaller = copy.deepcopy(config)
    text = smaller.get_text_config()
    depth = text.num_hidden_layers
    for name, value in list(vars(text).items()):
        if isinstance(value, (list, tuple)) and len(value) == depth and not name.endswith("_token_id"):
            setattr(text, name, [value[layer] for layer in layers])
    text.num_hidden_layers = len(layers)
    return smaller


def _set_number(text: PretrainedConfig, name: str, value: int) -> None:
    """Set a number that the configuration holds under this name or the family's own; nothing is added."""
    own = text.attribute_map.get(name, name)
    if type(vars(text).get(own)) in (int, float):
        setattr(text, own, value)


def _clean(text: PretrainedConfig, window: int) -> None:
    """What holds at any width: windows cut, no quantisation, few learned positions."""
    for name in _WINDOWS:
        _set_number(text, name, window)
    if hasattr(text, "quantization_config"):
        del text.quantization_config
    if not getattr(text, "rope_parameters", None) and hasattr(text, "max_position_embeddings"):
        text.max_position_embeddings = min(text.max_position_embeddings, _POSITIONS)


def _small_vocabulary(text: PretrainedConfig) -> None:
    """A few tokens; more than the model's own where it has fewer than the checks write with."""
    text.vocab_size = size = _VOCAB
    for name, value in list(vars(text).items()):
        if name.endswith("_token_id") and isinstance(value, int):
            setattr(text, name, min(value, size - 1))
        elif name.endswith("_token_id") and isinstance(value, list):
            setattr(text, name, [min(token, size - 1) for token in value])


def _narrow(text: PretrainedConfig) -> None:
    """The smallest widths that keep how heads are shared (one each, groups, all) and experts chosen."""
    _small_vocabulary(text)
    heads = getattr(text, "num_attention_heads", 0)
    for name in ("num_key_value_heads", "num_kv_heads"):
        shared = getattr(text, name, None) or 1
        _set_number(text, name, _HEADS if shared == heads else min(shared, _HEADS // 2))
    _set_number(text, "num_attention_heads", _HEADS)
    for name, width in _WIDTHS.items():
        _set_number(text, name, width)
    if hasattr(text, "qk_rope_head_dim"):
        _set_number(text, "head_dim", _WIDTHS["qk_rope_head_dim"])
    for name in _EXPERTS:
        _set_number(text, name, min(getattr(text, name, None) or 0, 4))
    for name in _CHOSEN_EXPERTS:
        _set_number(text, name, min(getattr(text, name, None) or 0, 2))
    for name in ("n_group", "topk_group"):
        _set_number(text, name, 1)
    _narrow_rotary(text)


def _narrow_rotary(text: PretrainedConfig) -> None:
    """Per-frequency lists (longrope) are as long as half of the rotated part of a head."""
    rope: Any = getattr(text, "rope_parameters", None)
    for parameters in [rope, *rope.values()] if isinstance(rope, dict) else []:
        if isinstance(parameters, dict):
            frequencies = int(_HEAD_DIM * parameters.get("partial_rotary_factor", 1.0)) // 2
            for name in ("short_factor", "long_factor"):
                if name in parameters:
                    parameters[name] = parameters[name][:frequencies]


def _scatter(model: PreTrainedModel) -> None:
    """Random weights of unit gain; biases and norms are moved off their constants."""
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            parameter.data.normal_(std=1.4 / math.sqrt(parameter.shape[-1]))
        else:
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    model.tie_weights()
