"""Reward models: a decoder with one linear output, read at an answer's last token; math.md (3).

In memory and on disk they are the sequence classifiers of transformers. Those read the last token that is not
padding, so the token that pads must not be one that ends an answer; and their head has no bias (`centring.py`).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from likelier.errors import ModelError
from likelier.models.adapters import is_adapted
from likelier.models.heads import value_head
from likelier.models.loading import Loaded, load_model
from likelier.models.quiet import quiet_transformers
from likelier.models.sources import find_source, read_json

READ_AT = "reward_read_at"
"""In the configuration of a reward model made here: other people's may be read elsewhere (at a last line break)."""
END_OF_TURN = "end of turn"
PAD = "<|pad|>"
"""The token that is added where a tokenizer has none to pad with."""


def load_start(name: Any, **how: Any) -> Loaded:
    """The reward model that training starts from: one as it is, or one made from a causal model.

    Args:
        name, how: as for `loading.load_model`.

    Raises:
        ModelError: what is wrong with the model, and what to do.
    """
    return as_reward_model(load_model(name, rewards=True, **how))


def load_reward_model(name: Any, **how: Any) -> Loaded:
    """A reward model that was trained, to score with.

    Args:
        name, how: as for `loading.load_model`.

    Raises:
        ModelError: it is none.
    """
    loaded = load_model(name, rewards=True, **how)
    if value_head(inner_model(loaded.model)) is None:
        raise ModelError(
            f"{loaded.name} is a model of text, no reward model: `likelier reward --model {loaded.name}` makes one,"
            " and its model/ folder is what scores"
        )
    return loaded


def made_here(name: str) -> bool:
    """Whether a folder or hub name holds a reward model of likelier's, which reads an answer at its end of turn.

    Raises:
        ModelError: nothing is there.
    """
    path = find_source(name).path / "config.json"
    return path.is_file() and read_json(path).get(READ_AT) == END_OF_TURN


def as_reward_model(loaded: Loaded) -> Loaded:
    """The reward model that training starts from: `loaded` itself if it is one, else its decoder with an output of 0.

    At 0 every value is 0, the first loss is log 2 whatever the data, and no random direction has to be unlearned;
    the head moves with the first update, the decoder with the second. A model in memory is copied, an adapter merged.

    Raises:
        ModelError: transformers has no sequence classifier for this architecture.
    """
    model: Any = loaded.model
    if loaded.kind == "memory":
        model = copy.deepcopy(model)
    if is_adapted(model):
        model = model.merge_and_unload(safe_merge=True)
    if value_head(model) is None:
        model = _with_head(model, loaded.name)
    setattr(model.config, READ_AT, END_OF_TURN)
    tokenizer = _with_padding(model, copy.deepcopy(loaded.tokenizer))
    return dataclasses.replace(loaded, model=model.eval(), tokenizer=tokenizer)


def inner_model(model: Any) -> Any:
    """The transformers model inside a PeftModel, or the model itself."""
    get_base = getattr(model, "get_base_model", None)
    return model if get_base is None else get_base()


def _with_head(model: Any, name: str) -> Any:
    """The classifier around `model`'s own decoder; nothing is copied."""
    config = model.config
    kind = config.get_text_config().model_type
    if config.model_type not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        raise ModelError(
            f"{name} ({kind}) cannot become a reward model: transformers has no sequence classifier for {kind};"
            f" some that it has: {', '.join(_families())}"
        )
    config.num_labels = 1
    config.id2label, config.label2id = {0: "reward"}, {"reward": 0}
    config.problem_type = "regression"  # So that pipelines hand the number on as it is.
    with quiet_transformers(), torch.device("meta"):
        classifier = AutoModelForSequenceClassification.from_config(copy.deepcopy(config))
    base, head = model.base_model, value_head(classifier)
    if head is None or type(base) is not type(classifier.base_model):
        raise ModelError(
            f"{name} ({kind}) cannot become a reward model: its sequence classifier is not its decoder with one"
            f" linear output; some that are: {', '.join(_families())}"
        )
    place = next(label for label, child in classifier.named_children() if child is head)
    weight = next(base.parameters())
    fresh = nn.Linear(head.in_features, 1, bias=False, device=weight.device, dtype=weight.dtype)
    nn.init.zeros_(fresh.weight)
    setattr(classifier, place, fresh)
    setattr(classifier, classifier.base_model_prefix, base)
    # One configuration for all of them: attention layers look into that of their decoder.
    classifier.config = config
    return classifier


def _with_padding(model: Any, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A pad token that ends no answer, known to model and tokenizer; an embedding is added only where there is no room.

    The numbers of all other tokens stay what they were.
    """
    tokenizer.pad_token = _pad_token(model, tokenizer)
    pad = tokenizer.pad_token_id
    embeddings = model.get_input_embeddings()
    if pad >= embeddings.weight.shape[0]:
        with quiet_transformers():
            embeddings = model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        nn.init.zeros_(embeddings.weight.data[pad:])
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        config.pad_token_id = pad
    if isinstance(embeddings, nn.Embedding) and embeddings.padding_idx is not None:
        embeddings.padding_idx = pad  # As when it is loaded again: the end of turn learns.
    tokenizer.padding_side = "right"
    return tokenizer


def _pad_token(model: Any, tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's own, or another that is there to pad, or a new one, which is added."""
    ends = {tokenizer.eos_token, *_end_tokens(model, tokenizer)}
    template = str(tokenizer.chat_template or "")
    # Special ones alone: `Pad` is a word as well.
    special = sorted(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    named = [token for token in special if token.strip("<|>[] ").lower() in _PAD_NAMES]
    for token in (tokenizer.pad_token, *named):
        if token is not None and token not in ends and token not in template:
            return str(token)
    tokenizer.add_special_tokens({"pad_token": PAD})
    return PAD


_PAD_NAMES = ("pad", "finetune_right_pad_id", "padding")


def _end_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """What the model's configuration says ends a text."""
    found = model.config.get_text_config().eos_token_id
    for token in found if isinstance(found, list) else [found]:
        if token is not None and token < len(tokenizer):
            yield str(tokenizer.convert_ids_to_tokens(token))


def _families() -> list[str]:
    """The best known of those that can."""
    return ["gemma2", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "phi3", "qwen2", "qwen3"]
