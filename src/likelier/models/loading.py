"""Models and tokenizers from a folder, a hub name, a GGUF file, an adapter, or memory.

Weights are float32 unless asked otherwise, whatever the checkpoint's: optimisers need master weights. Remote
code is off unless asked. Weights that are missing, left over or of the wrong shape are errors here, not the
table that transformers prints before it goes on with random numbers.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from likelier.errors import ModelError
from likelier.models import gguf
from likelier.models.heads import is_reward_config, value_head
from likelier.models.quiet import quiet_transformers
from likelier.models.sources import Kind, Source, find_source, read_json

Quantization = Literal["4bit"]

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in evaluation mode, with its tokenizer and where they came from."""

    model: PreTrainedModel
    """Or a `PeftModel`, for an adapter."""
    tokenizer: PreTrainedTokenizerBase
    name: str
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wishes:
    """How a model shall be loaded; an adapter hands them to its base."""

    dtype: torch.dtype
    device: torch.device
    revision: str | None
    trust_remote_code: bool
    quantize: Quantization | None
    rewards: bool


def load_tokenizer(
    name: str | Path, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, hub name, GGUF file or adapter (its own, else its base model's).

    Raises:
        ModelError: nothing there, or no tokenizer in it.
    """
    source = find_source(name, revision=revision, weights=False, remote_code=trust_remote_code)
    return _tokenizer_of(source, trust_remote_code=trust_remote_code)


def load_model(
    name: str | Path | nn.Module,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    revision: str | None = None,
    trust_remote_code: bool = False,
    quantize: Quantization | None = None,
    rewards: bool = False,
) -> Loaded:
    """Load a causal language model, ready to score and to train.

    Args:
        name: a Hugging Face folder, a hub name, a `.gguf` file, an adapter's folder, `"smollm2"` for the
            embedded default, or a module in memory, which is used as it is on `device`.
        tokenizer: needed with a module in memory; elsewhere it replaces the stored one.
        dtype: of the weights, whatever the checkpoint's.
        revision: of a hub name.
        trust_remote_code: run the model's own Python files.
        quantize: `"4bit"` through bitsandbytes, for the frozen weights under LoRA.
        rewards: take a reward model too: a sequence classifier of one label over a decoder.

    Raises:
        ModelError: what is wrong with the name, the files or the architecture, and what to do.
    """
    if isinstance(name, nn.Module):
        return _in_memory(name, tokenizer, torch.device(device), rewards=rewards)
    wishes = _Wishes(
        dtype=dtype,
        device=torch.device(device),
        revision=revision,
        trust_remote_code=trust_remote_code,
        quantize=quantize,
        rewards=rewards,
    )
    if quantize is not None:
        _check_quantization()
    source = find_source(name, revision=revision, remote_code=trust_remote_code)
    model = _adapter(source, wishes) if source.kind == "adapter" else _base(source, wishes)
    if tokenizer is None:
        tokenizer = _tokenizer_of(source, trust_remote_code=trust_remote_code)
    return Loaded(model.eval(), tokenizer, source.name, source.kind)


def _in_memory(
    model: Any, tokenizer: PreTrainedTokenizerBase | None, device: torch.device, *, rewards: bool
) -> Loaded:
    if tokenizer is None:
        raise ModelError("a model in memory needs its tokenizer: pass `tokenizer=` beside it")
    if not isinstance(getattr(model, "config", None), PretrainedConfig):
        raise ModelError(
            f"a {type(model).__name__} is no transformers model or PeftModel: it has no configuration"
        )
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not rewards or value_head(inner) is None:
        _check_causal(inner.config, "the model in memory", trust_remote_code=True)
    name = getattr(inner.config, "_name_or_path", "") or type(inner).__name__
    quantized = getattr(inner, "is_quantized", False)
    return Loaded((model if quantized else model.to(device)).eval(), tokenizer, name, "memory")


def _base(source: Source, wishes: _Wishes) -> PreTrainedModel:
    """A full model of any kind but an adapter."""
    folder = gguf.converted(source.path) if source.kind == "gguf" else source.path
    if folder is None:
        model = gguf.convert(source.path)[0].to(wishes.device)
        for parameter in model.parameters():  # Buffers keep their precision, as when loaded from a folder.
            parameter.data = parameter.data.to(wishes.dtype)
    else:
        model = _from_folder(folder, source.name, wishes)
    model.config._name_or_path = source.name
    return model


def _from_folder(folder: Path, name: str, wishes: _Wishes) -> PreTrainedModel:
    options: dict[str, Any] = {"trust_remote_code": wishes.trust_remote_code}
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(folder, **options)
            family: Any = AutoModelForCausalLM
            if wishes.rewards and is_reward_config(config):
                family = AutoModelForSequenceClassification
            else:
                _check_causal(config, name, trust_remote_code=wishes.trust_remote_code)
            model, report = family.from_pretrained(
                folder,
                config=config,
                dtype=wishes.dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # So that the report names them.
                **options,
                **_quantization_options(wishes),
            )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError, LookupError) as error:
        raise _loading_error(error, name) from error
    _check_complete(report, name)
    return model if wishes.quantize else model.to(wishes.device)


def _loading_error(error: Exception, name: str) -> ModelError:
    """What transformers' exceptions mean, in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, SafetensorError) or "PytorchStreamReader" in text:
        return ModelError(f"the weights of {name} are damaged ({text}); copy or download them again")
    if "trust_remote_code" in text:
        return ModelError(f"{name} brings its own code, which is not run unless asked: --trust-remote-code")
    if "Error no file named" in text:
        return ModelError(f"{name} has a config.json but no weights (model.safetensors); copy them beside it")
    return ModelError(f"{name} cannot be loaded: {text[:300]}")


def _check_causal(config: PretrainedConfig, name: str, *, trust_remote_code: bool) -> None:
    """Refuse what is no left-to-right model of text, before any weight is read."""
    kind = config.model_type
    if hasattr(config, "vision_config") or hasattr(config, "audio_config"):
        raise ModelError(f"{name} ({kind}) is a model of images or sound; give a model of text alone")
    named = getattr(config, "architectures", None) or []
    causal = not named or any("CausalLM" in one or "LMHead" in one for one in named)
    known = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or trust_remote_code
    # BERT and its like have a causal class, but read both ways unless they are configured as decoders.
    encoder = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    if config.is_encoder_decoder or encoder or not known or not (causal or trust_remote_code):
        what = f"{kind}: {', '.join(named)}" if named else kind
        raise ModelError(f"{name} ({what}) is not a causal language model; give one that continues text")


def _check_complete(report: Any, name: str) -> None:
    """Every weight of the model came from the checkpoint, and the other way round."""
    found = report if isinstance(report, dict) else vars(report)
    mismatched = sorted(key for key, *_ in found["mismatched_keys"])
    for keys, problem in (
        (mismatched, "have another shape than config.json says"),
        (sorted(found["missing_keys"]), "are missing"),
        (sorted(found["unexpected_keys"]), "are not of this architecture"),
    ):
        if keys:
            listed = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise ModelError(
                f"weights of {name} {problem}: {listed}; copy the whole checkpoint with its config.json"
            )


def _adapter(source: Source, wishes: _Wishes) -> PreTrainedModel:
    """Base model and adapter; the adapter's weights can be trained further."""
    from peft import PeftModel

    base_of = base_name(source.path)
    try:
        base = _base(find_source(base_of, remote_code=wishes.trust_remote_code), wishes)
    except ModelError as error:
        raise ModelError(f"the base model of the adapter {source.name} cannot be loaded: {error}") from error
    try:
        with quiet_transformers():
            return PeftModel.from_pretrained(base, source.path, is_trainable=True)
    except (OSError, ValueError, RuntimeError, SafetensorError, LookupError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"the adapter {source.name} does not fit its base {base_of}: {reason}") from error


def base_name(folder: Path) -> str:
    """The model that the adapter in a folder was made for.

    Raises:
        ModelError: its file does not say.
    """
    settings = folder / "adapter_config.json"
    name = read_json(settings).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise ModelError(f"{settings} names no base model; set its base_model_name_or_path")
    return name


def _tokenizer_of(source: Source, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    folder = gguf.converted(source.path) if source.kind == "gguf" else source.path
    if folder is None:
        return gguf.convert(source.path)[1]
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        base = base_name(source.path) if source.kind == "adapter" else None
        if base is None:
            raise ModelError(
                f"{source.name} has no tokenizer; save one there: tokenizer.save_pretrained(folder)"
            )
        return load_tokenizer(base, trust_remote_code=trust_remote_code)
    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # The readers of vocabularies raise whatever a damaged file leads to.
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"the tokenizer of {source.name} cannot be read ({reason}); copy its files again"
        ) from error


def _check_quantization() -> None:
    if not torch.cuda.is_available():
        raise ModelError(
            "--quantize 4bit needs bitsandbytes on an NVIDIA device, and none is here; leave it out"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError("--quantize 4bit needs the package bitsandbytes: pip install 'likelier[quantize]'")


def _quantization_options(wishes: _Wishes) -> dict[str, Any]:
    if wishes.quantize is None:
        return {}
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": settings, "device_map": {"": wishes.device}}
