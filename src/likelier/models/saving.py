"""A model written as a Hugging Face folder that every tool of the field loads, whole or not at all."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from likelier.models.adapters import is_adapted
from likelier.models.folders import written_folder
from likelier.models.noise import Silenced
from likelier.models.quiet import quiet_transformers


def save_model(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    *,
    card: str,
    dtype: torch.dtype | None = None,
    merge: bool = False,
    silenced: Silenced | None = None,
) -> Path:
    """Write weights (safetensors), configuration, tokenizer, chat template and model card; return the folder.

    Args:
        model: a transformers model, or a PeftModel, which is saved as its adapter unless merged.
        folder: replaced whole, once everything is on disk.
        card: the text of its README.md (`model_card`).
        dtype: of the stored weights; None keeps the model's. An adapter keeps its own.
        merge: store base and adapter as one full model; the model in memory stays as it is.
        silenced: what `silence_noise` changed, so that the stored configuration is the original one.

    Raises:
        WorkError: the disk is full or the folder cannot be written; an older folder is left as it was.
    """
    folder = Path(folder)
    with silenced.restored() if silenced else contextlib.nullcontext(), quiet_transformers():
        if merge and is_adapted(model):
            model = copy.deepcopy(model).merge_and_unload(safe_merge=True)
        with written_folder(folder) as beside:
            if is_adapted(model):
                model.save_pretrained(beside)
            else:
                _write_full(model, beside, dtype)
            tokenizer.save_pretrained(beside)
            readme = beside / "README.md"
            readme.write_text(card, encoding="utf-8")
            # safetensors lets nobody but the owner read its files; who may read the folder is the umask's to say.
            for weights in beside.glob("*.safetensors"):
                weights.chmod(readme.stat().st_mode)
    return folder


def _write_full(model: Any, folder: Path, dtype: torch.dtype | None) -> None:
    if dtype is None or dtype == model.dtype:
        model.save_pretrained(folder)
        return
    model.save_pretrained(folder, state_dict=_cast(model, dtype))
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["dtype"] = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _cast(model: nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The state in another dtype; tensors that were one stay one, so that tied weights are stored once."""
    cast: dict[tuple[int, torch.Size], torch.Tensor] = {}
    state: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tensor.shape)
        if place not in cast:
            cast[place] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        state[name] = cast[place]
    return state
