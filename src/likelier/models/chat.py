"""A chat template for a model that has none: set on the tokenizer, and what it writes made known to the model.

Tokens that the template writes as `<|name|>` and the vocabulary lacks are added to it. The end of turn, which is
the first special token after an answer, becomes the end of sequence.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from likelier.config import nearest
from likelier.data.faults import RowError
from likelier.data.records import Record
from likelier.data.templates import Renderer
from likelier.data.tokens import Tokenization
from likelier.errors import ModelError, UsageError
from likelier.models.loading import Loaded

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_BUILT_IN = {"chatml": CHATML}
_SPECIAL = re.compile(r"<\|[^|<>\s'\"]+\|>")
_TALK = [{"role": role, "content": "a"} for role in ("system", "user", "assistant", "tool", "assistant")]


def with_template(loaded: Loaded, template: str, *, adapter: bool) -> Loaded:
    """`loaded` with a chat template, on a copy of its tokenizer; its embeddings grow where tokens are new.

    A new token starts as the mean of the pieces that its name was read as; the end of turn as the end of sequence
    was, which is what the model writes where an answer is over.

    Args:
        template: `"chatml"`, or the path of a Jinja file.
        adapter: whether an adapter is to be trained, whose embeddings stay as they are.

    Raises:
        UsageError: no such template, or one that cannot be used.
        ModelError: the tokenizer has another one, or an adapter would have to learn new tokens.
    """
    tokenizer = copy.deepcopy(loaded.tokenizer)
    text = _text(template, tokenizer)
    if tokenizer.chat_template:
        if tokenizer.chat_template == text:
            return loaded
        raise ModelError(
            f"{loaded.name} has a chat template of its own: leave out --template (to replace it, set the tokenizer's"
            " chat_template and save it with the model)"
        )
    tokenizer.chat_template = text
    new = _new_tokens(text, tokenizer)
    if new and adapter:
        raise ModelError(
            f"--template {template} writes tokens that {loaded.name} has not ({', '.join(new)}), and an adapter trains"
            " no embeddings: train fully (no --lora-rank), or give a template of tokens that it has"
        )
    pieces = [tokenizer(name, add_special_tokens=False)["input_ids"] for name in new]
    end_before = tokenizer.eos_token_id
    _add(tokenizer, new)
    end = _end_of_turn(tokenizer, template)
    if end in new and end_before is not None:
        pieces[new.index(end)] = [end_before]
    tokenizer.eos_token = end
    if new:
        _grow(loaded.model, tokenizer, new, pieces)
    _set_end(loaded.model, tokenizer.eos_token_id)
    return dataclasses.replace(loaded, tokenizer=tokenizer)


def stopping_at_turns(loaded: Loaded) -> Loaded:
    """`loaded`, whose `generate` also stops at its template's end of turn.

    Base models often bring a template and stop at the end of a text alone: taught to end their turns, they would go
    on. Where the template says no end of turn, or it is known, nothing changes.
    """
    settings = getattr(loaded.model, "generation_config", None)
    if not loaded.tokenizer.chat_template or settings is None:
        return loaded
    try:
        name = Renderer(Tokenization.of(loaded.tokenizer)).end_of_turn(_no_row(loaded.name))
    except RowError:  # Rows that meet the same are refused, with what it says.
        return loaded
    known = settings.eos_token_id
    stops = (
        [loaded.tokenizer.eos_token_id] if known is None else known if isinstance(known, list) else [known]
    )
    end = None if name is None else loaded.tokenizer.convert_tokens_to_ids(name)
    if end is not None and end not in stops:
        settings.eos_token_id = [token for token in (*stops, end) if token is not None]
    return loaded


def _no_row(name: str) -> Record:
    return Record(file=name, row=1, id="", prompt=[], completions=[])


def _text(template: str, tokenizer: Any) -> str:
    """The template's text, with BOS in front of the one built in where the tokenizer puts it before raw text."""
    if template in _BUILT_IN:
        bos = "{{ bos_token }}" if Tokenization.of(tokenizer).bos else ""
        return bos + _BUILT_IN[template]
    path = Path(template)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        known = f"`{'`, `'.join(_BUILT_IN)}`"
        raise UsageError(
            f"--template {template}: neither {known}{nearest(template, _BUILT_IN)} nor a file that can be read"
            f" ({reason})"
        ) from None


def _new_tokens(text: str, tokenizer: Any) -> list[str]:
    """What the template writes as `<|name|>` and the vocabulary lacks, in order."""
    written = text
    for turns in (_TALK, _TALK[1:3]):
        try:
            written += str(tokenizer.apply_chat_template(turns, tokenize=False))
            break
        except Exception:  # A template may refuse roles; whether it can be used at all is seen later.
            continue
    known = tokenizer.get_vocab()
    return [name for name in dict.fromkeys(_SPECIAL.findall(written)) if name not in known]


def _add(tokenizer: Any, names: Sequence[str]) -> None:
    from tokenizers import AddedToken

    tokenizer.add_tokens(
        [AddedToken(name, special=True, normalized=False) for name in names], special_tokens=True
    )


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """The special token that the template writes after an answer."""
    try:
        end = Renderer(Tokenization(tokenizer)).end_of_turn(_no_row(template))
    except RowError as error:
        raise UsageError(f"--template {template}: {error.message}") from None
    if end is None:
        raise UsageError(
            f"--template {template} writes no special token after an answer, so that no model could learn to stop:"
            " end the assistant's turn with {{ eos_token }}"
        )
    return end


@torch.no_grad()
def _grow(model: Any, tokenizer: Any, names: Sequence[str], pieces: Sequence[Sequence[int]]) -> None:
    """Rows for the new tokens in the embedding and the head, each the mean of its pieces' rows."""
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    head = model.get_output_embeddings()
    for weight in _distinct([model.get_input_embeddings().weight, head.weight, getattr(head, "bias", None)]):
        for name, parts in zip(names, pieces, strict=True):
            weight[tokenizer.convert_tokens_to_ids(name)] = weight[list(parts)].mean(0)


def _distinct(weights: Sequence[Tensor | None]) -> list[Tensor]:
    """Tied ones once."""
    return list({id(weight): weight for weight in weights if weight is not None}.values())


def _set_end(model: Any, end: int) -> None:
    """Where `generate` is to stop."""
    for settings in (model.config, getattr(model, "generation_config", None)):
        if settings is not None:
            settings.eos_token_id = end
