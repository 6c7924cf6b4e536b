"""What a model is, by content: a hash of its weights and of the settings that enter the forward."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig

_CHUNK_BYTES = 1 << 26

_NOT_IN_THE_FORWARD = (
    "architectures", "auto_map", "begin_suppress_tokens", "dtype", "finetuning_task", "id2label",
    "initializer_factor", "initializer_range", "label2id", "output_attentions", "output_hidden_states",
    "output_router_logits", "prefix", "pretraining_tp", "problem_type", "return_dict", "router_aux_loss_coef",
    "suppress_tokens", "task_specific_params", "tokenizer_class", "torch_dtype", "transformers_version",
    "use_cache",
)  # fmt: skip
_NOT_IN_THE_FORWARD_ENDINGS = (
    "_token_id",
    "_token_ids",
    "dropout",
    "pdrop",
    "jitter_noise",
    "layerdrop",
    "_std",
)


def weights_digest(model: nn.Module) -> bytes:
    """SHA-256 over names, shapes, dtypes and bytes of all parameters and buffers, as loaded; and adapters' scales.

    Independent of path, device and the order of registration; a tied weight counts under each of its names.

    >>> from torch import nn
    >>> layer = nn.Linear(2, 2)
    >>> before = weights_digest(layer)
    >>> _ = layer.weight.data[0, 0].add_(1)
    >>> before == weights_digest(layer), len(before)
    (False, 32)
    """
    total = hashlib.sha256()
    tensors = _tensors(model)
    # SHA-256 has instructions of its own on most processors, and hashing releases the interpreter's lock.
    with ThreadPoolExecutor(max_workers=4) as pool:
        digests = dict(
            zip(_distinct(tensors), pool.map(_tensor_digest, _distinct(tensors).values()), strict=True)
        )
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
        total.update(digests[_place(tensor)])
    for name, module in model.named_modules():
        # peft keeps α/r beside the weights: without it two adapters that differ in α alone would be one.
        if isinstance(scales := getattr(module, "scaling", None), dict):
            total.update(f"{name}\0{sorted(scales.items())}\0".encode())
    return total.digest()


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Buffers that are not saved (rotary frequencies), and what quantised layers save, are in it too."""
    found = {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    found.update(model.named_buffers(remove_duplicate=False))
    return found


def _place(tensor: torch.Tensor) -> tuple[object, ...]:
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())


def _distinct(tensors: dict[str, torch.Tensor]) -> dict[tuple[object, ...], torch.Tensor]:
    return {_place(tensor): tensor for _, tensor in sorted(tensors.items())}


def _tensor_digest(tensor: torch.Tensor) -> bytes:
    digest = hashlib.sha256()
    flat = (
        tensor.detach().contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else tensor.new_empty(0)
    )
    for chunk in torch.split(flat, _CHUNK_BYTES):
        digest.update(chunk.cpu().numpy().data)
    return digest.digest()


def forward_config_digest(config: PretrainedConfig) -> bytes:
    """SHA-256 over the settings that change the forward; names, paths, dtypes, dropout and token ids do not.

    >>> from transformers import LlamaConfig
    >>> start = forward_config_digest(LlamaConfig())
    >>> start == forward_config_digest(LlamaConfig(use_cache=False, eos_token_id=7))
    True
    >>> start == forward_config_digest(LlamaConfig(rms_norm_eps=1e-3))
    False
    """
    settings = dict(_forward_settings(config.to_dict()))
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).digest()


def _forward_settings(settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if name.startswith("_") or name in _NOT_IN_THE_FORWARD or name.endswith(_NOT_IN_THE_FORWARD_ENDINGS):
            continue
        yield (
            name,
            dict(_forward_settings(value)) if name.endswith("_config") and isinstance(value, dict) else value,
        )
