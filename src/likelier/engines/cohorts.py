"""Samples of prompts of many lengths in one forward: products over all rows, attention cohort by cohort.

A cohort is a set of samples whose prompts have one padded width and that began together, so that their keys and
values fill one buffer. Matrix products do not care who a row belongs to and are cheapest over many; attention does,
and has each cohort's own shapes: a sample's bits are those that it has among its own kind alone.

The cohorts travel with the call, as an attribute of the attention mask, as trees do in `scoring/attention.py`.
Whether a model can be run so is decided by comparing numbers on a small copy of it, not by a list of names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from likelier.engines.decoding import Prefix, filled, read_prompts
from likelier.engines.mixing import parts_of
from likelier.errors import ModelError
from likelier.models.shrinking import shrunken
from likelier.scoring.parts import causal_model

ATTENTION = "likelier_cohorts"
_FAULTS = (ModelError, KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError)
"""What a model's code raises when handed an attention function or a mask that it was not written for."""


class Carrier:
    """The cohorts of one forward, as attention reads them."""

    def __init__(self, cohorts: Sequence[Prefix]) -> None:
        self.cohorts = cohorts
        self.calls = 0
        """Layers that called attention: all of them must."""
        self._masks: dict[tuple[int, int | None], Tensor] = {}

    def hidden(self, number: int, window: int | None) -> Tensor:
        """`[rows, 1, 1, keys]` bool: what the newest token of each row of a cohort does not see."""
        if (number, window) not in self._masks:
            hidden = ~self.cohorts[number].visible
            if window is not None:
                hidden[:, : max(0, hidden.shape[1] - window)] = True
            self._masks[number, window] = hidden[:, None, None]
        return self._masks[number, window]


def read_tokens(model: nn.Module, cohorts: Sequence[Prefix], tokens: Sequence[Tensor], *, rows: int) -> None:
    """Each cohort reads one more token per row, all in one forward; their `logits` are then those that follow.

    Args:
        model: with its attention set to `ATTENTION`.
        cohorts: `rows` rows at most, together.
        tokens: per cohort `[its rows]` int64.
        rows: on a CPU the forward is filled up to so many.
    """
    device = cohorts[0].visible.device
    fed = filled(torch.cat(list(tokens)).tolist(), rows, device)
    for cohort, own in zip(cohorts, tokens, strict=True):
        cohort.visible = torch.cat([cohort.visible, cohort.visible.new_ones(len(own), 1)], dim=1)
    positions = torch.cat([cohort.visible.sum(dim=1) - 1 for cohort in cohorts]).tolist()
    mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)
    carrier = mask.cohorts = Carrier(cohorts)  # type: ignore[attr-defined]
    logits: Tensor = model(
        input_ids=fed[:, None],
        attention_mask=mask,
        position_ids=filled(positions, rows, device)[:, None],
        use_cache=False,
        logits_to_keep=torch.arange(1, device=device),
    ).logits[:, 0]
    if carrier.calls != len(cohorts[0].layers):
        raise ModelError(f"{carrier.calls} of {len(cohorts[0].layers)} layers called attention")
    for cohort, own_logits in zip(
        cohorts, logits[: len(positions)].split(list(map(len, tokens))), strict=True
    ):
        cohort.logits = own_logits


def cohort_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one new token per row over its cohort's buffer; ordinary sdpa where the mask carries none.

    Args:
        query: `[rows, heads, 1, D]`; key, value: `[rows, key heads, 1, D]`; rows past the cohorts' are filling.

    Returns:
        `[rows, 1, heads, Dv]`, and None where transformers expects weights.
    """
    carrier: Carrier | None = getattr(attention_mask, "cohorts", None)
    if carrier is None:
        return _ordinary(
            module, query, key, value, attention_mask, scaling, sliding_window, softcap, **kwargs
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    out = value.new_zeros(len(query), 1, query.shape[1], value.shape[-1])
    start, layer = 0, carrier.calls
    carrier.calls += 1
    for number, cohort in enumerate(carrier.cohorts):
        rows = slice(start, start + len(cohort.visible))
        keys, values = cohort.layers[layer].update(key[rows], value[rows])
        hidden = carrier.hidden(number, sliding_window)
        out[rows, 0] = _attend(query[rows, :, 0], keys, values, hidden, scale, softcap)
        start = rows.stop
    return out, None


def _attend(
    query: Tensor, keys: Tensor, values: Tensor, hidden: Tensor, scale: float, softcap: float | None
) -> Tensor:
    """`[rows, heads, D]`, `[rows, key heads, K, D]`, `[rows, key heads, K, Dv]` -> `[rows, heads, Dv]`.

    In plain products and not by sdpa: on two threads the bits of PyTorch's flash attention on a CPU depend on which
    thread a row falls to (docs/log.md), and so on who else is there. In half precision the weights are rounded as
    flash attention rounds them, before they are normed, so that the numbers are its numbers but for the last bits.
    """
    grouped = query.unflatten(1, (keys.shape[1], -1)).to(keys.dtype)
    scores = torch.matmul(grouped, keys.transpose(-1, -2)).mul_(scale)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    weights = scores.masked_fill_(hidden, float("-inf")).softmax(dim=-1)
    most = weights.amax(dim=-1, keepdim=True)
    rounded = (weights / most).to(query.dtype).to(weights.dtype)
    return torch.matmul(rounded, values).mul_(most).flatten(1, 2)


def _ordinary(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None,
    sliding_window: int | None,
    softcap: float | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What reads the prompts: one in a forward, so that its bits are its own whatever the threads do."""
    if softcap is not None:
        raise ValueError("soft-capped attention outside a cohort is not sdpa's")
    window = {} if sliding_window is None else {"sliding_window": sliding_window}
    found: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **window, **kwargs
    )
    return found


@contextmanager
def cohorts_in(model: Any) -> Iterator[None]:
    """Inside, attention is `ATTENTION`; afterwards what it was."""
    before = [(part, part.config._attn_implementation) for part in parts_of(model)]
    for part, _ in before:
        part.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        for part, own in before:
            part.set_attn_implementation(own)


@torch.inference_mode()
def takes_cohorts(model: Any) -> bool:
    """Whether a small copy of `model` gives the same logits in cohorts as on its own, past every window."""
    return all(_takes_cohorts(part) for part in parts_of(model))


def _takes_cohorts(model: Any) -> bool:
    if model.config._attn_implementation != "sdpa" or _frequencies_vary(model.config.get_text_config()):
        return False
    try:
        small = shrunken(causal_model(model))
        prompts = [list(range(3, 25)), list(range(7, 14))]  # of two widths, the first past the copy's window
        alone = [read_prompts(small, [prompt]).select(torch.tensor([0, 0]), room=3) for prompt in prompts]
        together = [
            read_prompts(small, [prompt]).select(torch.tensor([0, 0]), room=3, kept_in=torch.float32)
            for prompt in prompts
        ]
        fed = torch.tensor([[5, 9], [6, 11], [8, 4]])
        expected = [[each.append(token[:, None])[:, 0] for token in fed] for each in alone]
        small.set_attn_implementation(ATTENTION)
        for step, token in enumerate(fed):
            read_tokens(small, together, [token, token], rows=0)
            for cohort, logits in zip(together, expected, strict=True):
                torch.testing.assert_close(cohort.logits, logits[step], rtol=1e-5, atol=1e-5)
    except (*_FAULTS, AssertionError):
        return False
    return True


def _frequencies_vary(config: Any) -> bool:
    """Whether rotary frequencies depend on the longest position in the call, and so on who else is in it."""
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [scaling, *(value for value in scaling.values() if isinstance(value, dict))]
    return any(kind.get("rope_type") in ("dynamic", "longrope") for kind in kinds)


AttentionInterface.register(ATTENTION, cohort_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
