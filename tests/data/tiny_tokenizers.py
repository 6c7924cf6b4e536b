"""Tokenizers of the kinds in use, trained on a few lines, and templates with the habits of real ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from likelier.data.records import Completion, Content, Record
from likelier.data.trees import Tree
from tests.conftest import CHATML, LINES, build_tokenizer

LLAMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'system' %}<<SYS>>{{ m['content'] }}<</SYS>>"
    "{% else %} {{ m['content'] }} </s>{% endif %}{% endfor %}"
)
TRIMMING = CHATML.replace("message['content']", "message['content'] | trim")
NO_END = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
# Thinking is dropped from every turn but the last, which always has some (Qwen 3).
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}"
    "{% set text = m['content'].split('</think>')[-1].lstrip('\n') %}"
    "{% if loop.last %}<think>\n{{ m['content'].split('</think>')[0].split('<think>')[-1].strip('\n')"
    " if '</think>' in m['content'] else '' }}\n</think>\n\n{% endif %}{{ text }}"
    "{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The generation prompt opens a thought that the full rendering does not have (DeepSeek R1).
OPENING_THOUGHT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'].split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
# A whole conversation closes with one more token (Phi 3).
CLOSING = CHATML + "{% if not add_generation_prompt %}<|endoftext|>{% endif %}"
# The generation prompt is a special token, after which some tokenizers put a space (Mistral).
SPECIAL_LAST = "{% for m in messages %}{{ m['content'] }}</s>{% endfor %}"
ALTERNATING = (
    "{% if messages[0]['role'] != 'user' %}{{ raise_exception('a user turn comes first') }}{% endif %}"
)


def byte_level(template: str | None = CHATML) -> Any:
    """Byte-level BPE without BOS, as GPT-2's kin and SmolLM2's have it."""
    tokenizer = build_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@lru_cache
def _metaspace_core(kind: str) -> str:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    if kind == "unigram":
        core = Tokenizer(models.Unigram())
        trainer: Any = trainers.UnigramTrainer(
            vocab_size=400, special_tokens=specials[:3], unk_token="<unk>", show_progress=False
        )
    else:
        core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=specials, show_progress=False)
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    core.train_from_iterator([*LINES, "abcdefghijklmnopqrstuvwxyz [INST] [/INST] <<SYS>> \n \n\n"], trainer)
    if kind == "legacy":
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        core.pre_tokenizer = None
    elif kind == "first":
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    strip = decoders.Strip(" ", 1, 0)
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip]
    )
    return str(core.to_str())


def metaspace(kind: str = "first", template: str | None = LLAMA) -> Any:
    """A SentencePiece-like tokenizer (`first`, `always`, `legacy` or `unigram`) that puts BOS first."""
    import json

    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    data = json.loads(_metaspace_core(kind))
    data["added_tokens"] = data["added_tokens"][:3]
    core = Tokenizer.from_str(json.dumps(data))
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=template
    )


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "byte_level": byte_level,
    "first": lambda: metaspace("first"),
    "always": lambda: metaspace("always"),
    "legacy": lambda: metaspace("legacy"),
    "unigram": lambda: metaspace("unigram"),
}


def pair(prompt: Content, chosen: Content, rejected: Content, *, row: int = 1, **more: Any) -> Record:
    """A preference row."""
    answers = [Completion(content=chosen), Completion(content=rejected)]
    more = {"ranking": [[0], [1]]} | more
    return Record(file="d.jsonl", row=row, id=str(row), prompt=prompt, completions=answers, **more)


def single(prompt: Content, answer: Content, *, row: int = 1, **more: Any) -> Record:
    """An SFT row; `more` may give the answer's `tokens` and `finish`."""
    answers = [Completion(content=answer, **more)]
    return Record(file="d.jsonl", row=row, id=str(row), prompt=prompt, completions=answers, ranking=[[0]])


def user(text: str) -> list[dict[str, Any]]:
    """A prompt of one user turn."""
    return [{"role": "user", "content": text}]


def turns(*contents: str) -> list[dict[str, Any]]:
    """User and assistant in turn, the user first."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]


def ids(tree: Tree, branch: int = 0) -> list[int]:
    """Prompt and branch as one list of ids."""
    return [int(t) for node in tree.path(tree.branches[branch]) for t in tree.nodes[node].tokens]


def trained(tree: Tree, tokenizer: Any, branch: int = 0) -> str:
    """The text of the scored tokens of a branch."""
    node = tree.nodes[tree.branches[branch]]
    return str(tokenizer.decode(node.tokens[node.scored]))
