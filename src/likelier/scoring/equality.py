"""How trees reach a model is decided by comparing numbers, when it is loaded: not by a list of names.

A shrunken random copy with every kind of layer scores trees (two of them, one with three branches, lengths
past the sliding window, a trunk on a trunk) the fast way and as ordinary rows, in float32, gradients
included. Then one short tree goes through the real weights. The first way that agrees is taken: tree, then
mask (not on a CPU, where log-probs are the same bits in every pack); ordinary rows are what the others are compared
with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from likelier.data.trees import Node, Tree, tree_of
from likelier.errors import ModelError
from likelier.models.heads import value_head
from likelier.models.shrinking import shrunken
from likelier.scoring.forward import Way
from likelier.scoring.packing import make_pack, subtree
from likelier.scoring.parts import causal_model
from likelier.scoring.scorer import Scorer

_TOLERANCE = 1e-5
"""Relative, float32, on the copy: rounding moves its log-probs by 2e-7 and its gradients by 2e-6 (over thirty
families); the weakest leak met, recurrent_gemma's, by 3e-4."""
_WEIGHTS_TOLERANCE = 1e-4
"""The same on the model's own weights, which may be many more layers and wider."""
_MODEL_FAULTS = (
    KeyError,
    TypeError,
    ValueError,
    RuntimeError,
    AttributeError,
    IndexError,
    NotImplementedError,
)
"""What a model's code raises when handed an attention function or a mask that it was not written for."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The way trees reach a model, and whether the chunked head is its own."""

    way: Way
    own_head: bool
    why: str
    """In words, for the log: empty where the fast way was taken."""


def choose_way(model: nn.Module) -> Choice:
    """The fastest way that is exact for `model`.

    Raises:
        ModelError: not even ordinary rows can be scored.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
    ...                      num_attention_heads=2)
    >>> choose_way(LlamaForCausalLM(config)).way
    'tree'
    """
    with torch.enable_grad():
        return _choose(causal_model(model))


def _choose(causal: PreTrainedModel) -> Choice:
    reasons: list[str] = []
    try:
        small = shrunken(causal)
    except ModelError as error:
        return Choice("rows", False, f"no small copy could be made to check it on ({error})")
    expected = _ordinary(small)
    head = _try(lambda: _agrees(_scored(small, "rows", own_head=True), expected))
    if head is not None and value_head(small) is not None:
        raise ModelError(f"{type(causal).__name__} is no reward model as likelier reads them: {head}")
    for way in _FAST_WAYS:

        def check(way: Way = way) -> None:
            _agrees(_scored(small, way, own_head=head is None), expected)
            _agrees_on_weights(causal, way, own_head=head is None)

        fault = _try(check)
        if fault is None and not _keeps_bits(way, next(causal.parameters()).device):
            fault = "exact, but on a CPU its last bits are the pack's"
        if fault is None:
            return Choice(way, head is None, "; ".join(reasons))
        reasons.append(f"{_NAMES[way]}: {fault}")
    return Choice("rows", head is None, "; ".join(reasons))


def _keeps_bits(way: Way, device: torch.device) -> bool:
    """A mask's softmax and products are as wide as the pack: on a CPU a reference would not be the policy's bits."""
    return way != "mask" or device.type != "cpu"


_FAST_WAYS: tuple[Way, ...] = ("tree", "mask")
_NAMES = {"tree": "tree attention", "mask": "a dense mask"}


@dataclass(frozen=True, slots=True)
class _Numbers:
    logps: Tensor
    gradients: list[Tensor | None]
    of: str = "log-probs"


def _trees() -> list[Tree]:
    """Two trees with three and two branches, longer than the copy's window, and a trunk on a trunk."""
    tokens = np.random.default_rng(0).integers(3, 60, 200).astype(np.int32)
    ids: list[int] = tokens.tolist()
    first = tree_of(ids[:21], [ids[30:35], ids[40:52], ids[60:63]])
    trunk = replace(first.nodes[0], tokens=tokens[70:76], scored=np.zeros(6, np.bool_))
    second_trunk = Node(0, tokens[80:93], np.zeros(13, np.bool_))
    leaves = tuple(Node(1, tokens[a:b], np.ones(b - a, np.bool_)) for a, b in ((100, 111), (120, 124)))
    return [first, Tree("nested", (trunk, second_trunk, *leaves), (2, 3))]


def _ordinary(model: PreTrainedModel) -> _Numbers:
    """The numbers of `model` as transformers runs it, one branch at a time."""
    logps = []
    rewards = value_head(model) is not None
    if rewards:
        # The one row of a call is not padded, whatever its tokens.
        model.config.pad_token_id = model.config.get_text_config().pad_token_id = None
    soft_capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None)
    if soft_capped is not None:
        model.set_attn_implementation("eager")
    for tree in _trees():
        for branch in range(len(tree.branches)):
            row = make_pack([subtree(tree, [branch])])
            logits = model(input_ids=row.input_ids, use_cache=False).logits
            if rewards:
                logps.append(logits[0])
                continue
            logits = logits[0, row.predictors]
            logps.append(logits.float().log_softmax(-1).gather(1, row.targets[:, None])[:, 0])
    return _with_gradients(model, torch.cat(logps))


def _scored(model: PreTrainedModel, way: Way, *, own_head: bool) -> _Numbers:
    """The numbers of `model` by a scorer, both trees in one pack."""
    with Scorer(model, dtype=torch.float32, way=way, own_head=own_head) as scorer:
        pack = make_pack(_trees())
        found = scorer.token_logps(pack) if scorer.value_head is None else scorer.branch_values(pack).float()
        numbers = _with_gradients(model, found)
        layers = model.config.get_text_config().num_hidden_layers
        if way == "tree" and scorer.forward.attention_calls != layers:
            raise ValueError(f"{scorer.forward.attention_calls} of {layers} layers called it")
        return numbers


def _with_gradients(model: nn.Module, logps: Tensor) -> _Numbers:
    weights = torch.linspace(-1, 1, len(logps))
    parameters = list(model.parameters())
    gradients = torch.autograd.grad((logps * weights).sum(), parameters, allow_unused=True)
    detached: list[Tensor | None] = [None if g is None else g.detach() for g in gradients]
    return _Numbers(logps.detach(), detached, "log-probs" if value_head(model) is None else "values")


def _agrees(ours: _Numbers, expected: _Numbers) -> None:
    """Raises `ValueError` where the numbers differ by more than rounding."""
    error = _relative(ours.logps, expected.logps)
    if not error < _TOLERANCE:
        raise ValueError(f"{ours.of} differ by {error:.1e}")
    pairs = [(g, e) for g, e in zip(ours.gradients, expected.gradients, strict=True) if e is not None]
    flat = [torch.cat([(torch.zeros_like(e) if g is None else g).flatten() for g, e in pairs])]
    error = _relative(flat[0], torch.cat([e.flatten() for _, e in pairs]))
    if not error < 10 * _TOLERANCE:
        raise ValueError(f"gradients differ by {error:.1e}")


@torch.no_grad()
def _agrees_on_weights(causal: PreTrainedModel, way: Way, *, own_head: bool) -> None:
    """One short tree through the real weights, in their own precision, against ordinary rows."""
    vocabulary = causal.get_input_embeddings().weight.shape[0]
    tokens: list[int] = np.random.default_rng(1).integers(0, vocabulary, 12).tolist()
    pack = make_pack([tree_of(tokens[:5], [tokens[5:9], tokens[9:]])])
    dtype = next(causal.parameters()).dtype
    found: list[Tensor] = []
    for each, head in (("rows", False), (way, own_head)):
        with Scorer(causal, dtype=dtype, way=each, own_head=head) as scorer:  # type: ignore[arg-type]
            # Of a reward model the states: its head may still be 0.
            read = scorer.token_logps if scorer.value_head is None else scorer.end_states
            found.append(read(pack).double())
    of = "log-probs" if value_head(causal) is None else "states"
    tolerance = _WEIGHTS_TOLERANCE if dtype in (torch.float32, torch.float64) else 0.02
    error = _relative(found[1], found[0])
    if not error < tolerance:
        raise ValueError(f"on the model's own weights {of} differ by {error:.1e}")


def _relative(ours: Tensor, expected: Tensor) -> float:
    return float((ours - expected).norm() / expected.norm().clamp(min=1e-30))


def _try(check: Callable[[], None]) -> str | None:
    """The reason that `check` failed, or None."""
    try:
        check()
    except _MODEL_FAULTS as error:
        return str(error).strip().split("\n")[0][:200] or type(error).__name__
    return None
