"""A loaded model read one token at a time: the prompt once, then its samples in blocks of equal shape.

On a CPU the bits of a matrix product depend on its number of rows, and those of attention on the padded
width. So that a sample depends on its own prompt alone, every forward there has a shape of its own making:
one prompt, padded on the left to a width that follows from its length, and `rows` samples, filled up with
copies where there are fewer. (Elsewhere prompts of one width are read together, and nothing is filled up.)
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, CacheLayerMixin

from likelier.engines.mixing import num_layers, parts_of
from likelier.errors import ModelError

PROMPTS = 8
"""Prompts in one forward, where it is not a CPU's."""
HEAD_ROWS = 8
"""Rows that the output head reads of a prompt: below eight its bits in float32 depend on their number."""
WIDTH = 16
"""Prompts are padded to a multiple of this."""


class BufferLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values in a buffer that is allocated once: no copy of the past at every token."""

    is_sliding = False

    def __init__(self, capacity: int, kept_in: torch.dtype | None = None) -> None:
        super().__init__()
        self.capacity = capacity
        self.kept_in = kept_in
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocates for `capacity` tokens, with the shapes of the first states, in their precision or another."""
        self.dtype, self.device = self.kept_in or key_states.dtype, key_states.device
        rows, heads, _, dim = key_states.shape
        self.keys = key_states.new_empty(rows, heads, self.capacity, dim, dtype=self.dtype)
        self.values = value_states.new_empty(
            rows, heads, self.capacity, value_states.shape[-1], dtype=self.dtype
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Appends the states [rows, heads, new tokens, dim] and returns all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[-2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that the next `query_length` tokens see."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self.length

    def get_max_length(self) -> int:
        """Tokens that fit."""
        return self.capacity

    def expanded(self, rows: Tensor, capacity: int, kept_in: torch.dtype | None) -> BufferLayer:
        """A copy with the given rows of this one (repeats allowed) and room for `capacity` tokens."""
        layer = BufferLayer(capacity, kept_in or self.kept_in)
        keys = self.keys[:, :, : self.length].index_select(0, rows)
        layer.update(keys, self.values[:, :, : self.length].index_select(0, rows))
        return layer


@dataclass(slots=True)
class Prefix:
    """Prompts that the model has read, padded on the left to one width."""

    model: nn.Module
    layers: list[BufferLayer]
    visible: Tensor
    """[prompts, width] bool: False where padding stands."""
    logits: Tensor
    """[prompts, vocabulary]: of the first token after each prompt."""

    def select(self, rows: Tensor, *, room: int, kept_in: torch.dtype | None = None) -> Prefix:
        """The prompts at `rows` [int64], repeats allowed, each with room for `room` more tokens.

        Keys and values are kept in the precision `kept_in`; by default as they are.
        """
        capacity = self.visible.shape[1] + room
        layers = [layer.expanded(rows, capacity, kept_in) for layer in self.layers]
        return Prefix(self.model, layers, self.visible[rows], self.logits[rows])

    def append(self, tokens: Tensor) -> Tensor:
        """Reads `tokens` [rows, new]; returns the logits that follow each, [rows, new, vocabulary]."""
        self.visible = torch.cat([self.visible, self.visible.new_ones(tokens.shape)], dim=1)
        return _forward(self.model, tokens, self.visible, self.layers, slice_start=0)


def width_of(length: int) -> int:
    """The padded width of a prompt: at least one padding token, so that attention always goes by its mask.

    >>> width_of(15), width_of(16)
    (16, 32)
    """
    return (length // WIDTH + 1) * WIDTH


def read_prompts(model: nn.Module, prompts: Sequence[Sequence[int]]) -> Prefix:
    """Runs prompts of one `width_of` through the model, `PROMPTS` at a time."""
    size = 1 if next(model.parameters()).device.type == "cpu" else PROMPTS
    parts = [_read_block(model, prompts[start : start + size]) for start in range(0, len(prompts), size)]
    layers = []
    for same_layer in zip(*(part.layers for part in parts), strict=True):
        layer = BufferLayer(same_layer[0].length)
        layer.update(
            torch.cat([part.keys for part in same_layer]), torch.cat([part.values for part in same_layer])
        )
        layers.append(layer)
    visible = torch.cat([part.visible for part in parts])
    return Prefix(model, layers, visible, torch.cat([part.logits for part in parts]))


def filled(rows: list[int], size: int, device: torch.device) -> Tensor:
    """Row numbers as a tensor, on a CPU filled up to `size` with copies of the first."""
    fill = max(size - len(rows), 0) if device.type == "cpu" else 0
    return torch.tensor(rows + rows[:1] * fill, device=device)


def generation_copy(model: nn.Module) -> nn.Module:
    """A copy to sample from: on a CPU that multiplies bfloat16, with weights in it; elsewhere as they are."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    fast = on_cpu and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return lowered(model, torch.bfloat16 if fast else None, copied=True)


def lowered(model: nn.Module, dtype: torch.dtype | None, *, copied: bool) -> nn.Module:
    """`model`, or a copy of it, with weights in `dtype` (None: as they are), not to be trained.

    Buffers (rotary frequencies) keep their precision; tied weights stay tied.
    """
    fast = (copy.deepcopy(model) if copied else model).eval().requires_grad_(False)
    for parameter in fast.parameters():
        parameter.data = parameter.data.to(dtype or parameter.dtype)
    return fast


def check_can_decode(model: Any) -> None:
    """Raises `ModelError` for a model whose state is more than keys and values."""
    for part in parts_of(model):
        kinds = set(getattr(part.config.get_text_config(), "layer_types", None) or ["full_attention"])
        strange = sorted(kinds - {"full_attention", "sliding_attention", "chunked_attention"})
        if strange or getattr(part, "_is_stateful", False):
            kind = strange[0] if strange else "recurrent state"
            raise ModelError(
                f"{type(part).__name__} cannot be sampled from here: it has {kind} layers; "
                "serve it behind an OpenAI-compatible address instead"
            )


def _read_block(model: nn.Module, prompts: Sequence[Sequence[int]]) -> Prefix:
    device = next(model.parameters()).device
    width = width_of(len(prompts[0]))
    tokens = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    padding = torch.tensor([width - len(prompt) for prompt in prompts], device=device)
    visible = torch.arange(width, device=device) >= padding[:, None]
    layers = [BufferLayer(width) for _ in range(num_layers(model))]
    logits = _forward(model, tokens, visible, layers, slice_start=width - HEAD_ROWS)[:, -1]
    return Prefix(model, layers, visible, logits)


def _forward(
    model: nn.Module, tokens: Tensor, visible: Tensor, layers: list[BufferLayer], *, slice_start: int
) -> Tensor:
    """Logits of `tokens` from the one at `slice_start` on."""
    positions = visible.long().cumsum(dim=1).sub_(1).clamp_(min=0)[:, -tokens.shape[1] :]
    logits: Tensor = model(
        input_ids=tokens,
        attention_mask=visible,
        position_ids=positions,
        past_key_values=Cache(layers=layers),
        use_cache=True,
        # An index copies rows; a slice would leave gaps, and the head's weight be copied per prompt.
        logits_to_keep=torch.arange(slice_start, tokens.shape[1], device=tokens.device),
    ).logits
    return logits
