"""The parts of a transformers model that scoring has to do with, whatever adapter or head is around them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel


def causal_model(model: nn.Module) -> Any:
    """The transformers model inside `model`, adapters in place."""
    get_base = getattr(model, "get_base_model", None)
    return get_base() if get_base is not None else model


def decoder(causal: PreTrainedModel) -> nn.Module:
    """The part of the model below its output head."""
    base: nn.Module = causal.base_model
    return base if base is not causal else causal.get_decoder()  # type: ignore[operator]


@contextmanager
def read_states(base: nn.Module) -> Iterator[list[Tensor]]:
    """Final hidden states `[T, D]` of every forward of `base` in the context, beside whatever else is made of them."""
    found: list[Tensor] = []
    hook = base.register_forward_hook(lambda _, __, out: found.append(out.last_hidden_state[0]))
    try:
        yield found
    finally:
        hook.remove()


def set_attention(causal: PreTrainedModel, name: str) -> None:
    """Have every attention layer call the function registered as `name`."""
    causal.set_attn_implementation(name)
