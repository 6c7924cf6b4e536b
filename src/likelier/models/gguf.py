"""GGUF files: dequantised once into a Hugging Face folder in the cache, keyed by the file's content.

transformers reads a GGUF but such a model refuses to be saved until it is rebuilt from its plain
configuration; and the reading takes a quarter of a minute even for a small model. Both are settled by keeping
the converted folder, in float32, which holds every dequantised weight exactly.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from likelier.errors import ModelError, UsageError, WorkError
from likelier.models.folders import written_folder
from likelier.models.quiet import quiet_transformers
from likelier.models.sources import cache_folder

_LAYOUT = "1"
"""Of the converted folder; another number is another key."""


def converted(path: Path) -> Path | None:
    """The folder that `path` was converted to, now or earlier; None where nothing can be cached.

    Raises:
        ModelError: the file is damaged or of an architecture that transformers does not read from GGUF.
    """
    try:
        folder = cache_folder() / "gguf" / _content_key(path)
        if (folder / "config.json").is_file():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        model, tokenizer = convert(path)
        with written_folder(folder, keep_existing=True) as beside, quiet_transformers():
            model.save_pretrained(beside)
            tokenizer.save_pretrained(beside)
    except (UsageError, WorkError, OSError):
        return None
    return folder


def convert(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The dequantised model in float32, as if it had never been quantised, and its tokenizer."""
    try:
        with quiet_transformers():
            read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except Exception as error:  # The readers raise whatever a damaged byte leads to; all of it is said.
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{path} cannot be read as a GGUF model ({reason}); download it again or convert it"
        ) from error
    return _rebuilt(read), tokenizer


def _rebuilt(read: PreTrainedModel) -> PreTrainedModel:
    """The same weights in a model whose configuration knows of no quantisation."""
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        plain: PreTrainedModel = type(read)(config)
    plain.load_state_dict(read.state_dict(), assign=True)
    plain.tie_weights()
    for (_, empty), (name, full) in zip(plain.named_buffers(), read.named_buffers(), strict=True):
        if empty.is_meta:
            module, _, leaf = name.rpartition(".")
            setattr(plain.get_submodule(module), leaf, full)
    plain.generation_config = read.generation_config
    return plain.eval()


def _content_key(path: Path) -> str:
    import transformers

    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return f"{digest.hexdigest()[:32]}-{_LAYOUT}-transformers-{transformers.__version__}"
