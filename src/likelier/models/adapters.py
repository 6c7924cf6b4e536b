"""LoRA through peft: few trained parameters over frozen weights, and the start still at hand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from likelier.errors import ModelError
from likelier.models.heads import value_head
from likelier.models.quiet import quiet_transformers


def is_adapted(model: nn.Module) -> bool:
    """Whether the model is a `PeftModel`."""
    return hasattr(model, "peft_config") and hasattr(model, "disable_adapter")


def add_lora(
    model: PreTrainedModel,
    *,
    rank: int,
    alpha: float | None = None,
    targets: Sequence[str] | None = None,
    seed: int,
) -> Any:
    """A `PeftModel` whose blocks' linear layers compute `x Wᵀ + (α/r) x Aᵀ Bᵀ`, with B = 0 at first.

    Args:
        model: the frozen base, changed in place by peft.
        rank: r, the inner width of A and B.
        alpha: α; twice the rank unless given.
        targets: names of layers (`"q_proj"` …); None takes every linear layer but the output head. The head of a
            reward model trains whole.
        seed: of A; the same seed gives the same bits. Dropout is 0.

    Raises:
        ModelError: the model has an adapter already, or has no layer of these names.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    if is_adapted(model):
        raise ModelError("the model has an adapter already; leave out --lora-rank to train that one further")
    head = value_head(model)
    settings = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=0.0,
        target_modules=list(targets) if targets is not None else "all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        exclude_modules=[name for name, module in model.named_modules() if module is head],
        # peft's own class for classifiers would train a copy of the head beside it.
        task_type=TaskType.CAUSAL_LM if head is None else None,
    )
    try:
        with quiet_transformers(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            adapted = get_peft_model(model, settings)
    except ValueError as error:
        raise ModelError(
            f"LoRA cannot be added ({_first_line(error)}); layers here: {_layer_names(model)}"
        ) from error
    if head is not None:
        head.requires_grad_(True)
    return adapted


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]


def _layer_names(model: nn.Module) -> str:
    names = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
    }
    return ", ".join(sorted(names)) or "no linear ones"


@contextlib.contextmanager
def adapter_off(model: Any) -> Iterator[None]:
    """Inside, the model computes as its base does."""
    with model.disable_adapter():
        yield


def adapter_is_start(model: Any, *, tokens: int = 32) -> bool:
    """Whether switching the adapter off changes no bit of the policy as it is now.

    True for the zero-initialised B of plain LoRA; not for an adapter that was trained, nor for PiSSA and
    OLoRA, which move part of the base's weights into the adapter. Shown by two forwards over `tokens` tokens
    spread over the vocabulary, not by the names of initialisations.
    """
    vocabulary = model.get_input_embeddings().weight.shape[0]
    device = model.get_input_embeddings().weight.device
    input_ids = torch.linspace(0, vocabulary - 1, tokens, device=device).long()[None]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            policy = model(input_ids=input_ids, use_cache=False).logits
            with adapter_off(model):
                start = model(input_ids=input_ids, use_cache=False).logits
    finally:
        model.train(training)
    return torch.equal(policy, start)
