"""Tiny language models over a few letters, and their tables: what a sequence world is exported as.

GPT-2 is taken since all of its forward pass, layer norms too, can run in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch

from likelier.theory.sequences import END, Sequences
from likelier.theory.shapes import NextTokens
from likelier.theory.world import WorldError

WIDTH, HEADS, LAYERS = 32, 4, 2
POSITIONS = 64
"""More than any answer has: with a handful, a check of how trees reach the model would find no room."""
_SPREAD = 1.4
"""Standard deviation of a matrix's entries times √width: wider than usual, so that next tokens are not near uniform."""


def next_tokens_of(model: Any, sequences: Sequences, prompts: Sequence[str]) -> NextTokens:
    """The model's next-token log-probabilities after each prompt and prefix, by unpadded forward passes.

    Raises:
        WorldError: the model's vocabulary is not the alphabet with its end token.
    """
    width = model.config.vocab_size
    if width != len(sequences.vocabulary):
        raise WorldError(f"a model over {width} tokens for a world of {len(sequences.vocabulary)}")
    rows = [
        _last_logits(model, [sequences.tokens(prompt + prefix) for prefix in group])
        for prompt in prompts
        for group in _by_length(sequences)
    ]
    table: torch.Tensor = torch.cat(rows).unflatten(0, (len(prompts), len(sequences.prefixes)))
    return table.double().log_softmax(dim=-1)


def _last_logits(model: Any, rows: list[list[int]]) -> torch.Tensor:
    ids = torch.tensor(rows, device=model.device)
    with torch.no_grad():
        logits: torch.Tensor = model(
            input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False
        ).logits
    return logits[:, -1].cpu()


def _by_length(sequences: Sequences) -> list[list[str]]:
    """The prefixes, those of one length together."""
    return [
        [prefix for prefix in sequences.prefixes if len(prefix) == size] for size in range(sequences.length)
    ]


def random_model(sequences: Sequences, seed: int) -> Any:
    """A GPT-2 of two layers in float64 over the alphabet, drawn at random; the process's own numbers are left alone."""
    from transformers import GPT2Config, GPT2LMHeadModel

    end = len(sequences.letters)
    config = GPT2Config(
        vocab_size=end + 1,
        n_positions=POSITIONS,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        bos_token_id=None,
        eos_token_id=end,
        tie_word_embeddings=False,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config).double()
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.data.normal_(std=_SPREAD / WIDTH**0.5)
    return model.eval()


def letter_tokenizer(sequences: Sequences) -> Any:
    """One token a letter, in the order of the alphabet, and the end token last; nothing is put before a text.

    >>> letter_tokenizer(Sequences(letters="ab", length=2))("ba.")["input_ids"]
    [1, 0, 2]
    """
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(BPE(vocab={token: index for index, token in enumerate(sequences.vocabulary)}, merges=[]))
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END)


def prompt_texts(letters: str, count: int) -> tuple[str, ...]:
    """`count` strings over `letters`, all of one length, the shortest that gives so many.

    Otherwise one prompt with the beginning of an answer could be another prompt: a model knows no difference.

    Raises:
        WorldError: one letter has one string of each length.

    >>> prompt_texts("ab", 3)
    ('aa', 'ab', 'ba')
    """
    if count < 1 or (len(letters) == 1 and count > 1):
        raise WorldError(
            f"{count} prompts of one length over `{letters}`: there are not so many; add letters"
        )
    size = 1
    while len(letters) ** size < count:
        size += 1
    return tuple("".join(text) for text in product(letters, repeat=size))[:count]


def model_in(folder: str | Path) -> Any:
    """The model in a folder, in float64."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()


def save_quietly(model: Any, folder: Path) -> None:
    """The model as a folder; `save_pretrained` would draw a bar for its kilobytes."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
