"""What is asked: prompts, the tokens that a model reads of them, and whether there is room for an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from likelier.data.records import Content
from likelier.engines.mixing import parts_of
from likelier.errors import DataError, ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What is asked; `id` is part of the random numbers of its samples."""

    id: str
    content: Content


def encode_prompts(tokenizer: Any, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Token ids of each prompt: messages through the chat template and up to the answer's first token."""
    if len({prompt.id for prompt in prompts}) < len(prompts):
        raise DataError("two prompts share an id; ids must differ, since samples are drawn by them")
    encoded = []
    for prompt in prompts:
        if isinstance(prompt.content, str):
            tokens = tokenizer(prompt.content)["input_ids"]
        elif not getattr(tokenizer, "chat_template", None):
            raise ModelError(
                f"prompt {prompt.id!r} is a list of messages, and the model's tokenizer has no chat template: "
                "give prompts as plain text, or take a model that was trained to chat"
            )
        else:
            text = tokenizer.apply_chat_template(prompt.content, tokenize=False, add_generation_prompt=True)
            tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        if not tokens:
            raise DataError(f"prompt {prompt.id!r} is empty: give it text, or a tokenizer with a start token")
        encoded.append(list(tokens))
    return encoded


def check_context(
    model: Any, prompts: Sequence[Prompt], encoded: list[list[int]], max_new_tokens: int
) -> None:
    """Raises `ModelError` for a prompt that leaves no room for an answer."""
    contexts = [
        getattr(part.config.get_text_config(), "max_position_embeddings", None) for part in parts_of(model)
    ]
    context = min((one for one in contexts if one is not None), default=None)
    if context is None:
        return
    for prompt, tokens in zip(prompts, encoded, strict=True):
        if len(tokens) + max_new_tokens > context:
            raise ModelError(
                f"prompt {prompt.id!r} has {len(tokens)} tokens; with {max_new_tokens} new ones it exceeds "
                f"the model's context of {context}: shorten it, or lower --max-new-tokens"
            )
