"""A tokenizer as promise 8 needs it: text that opens a row, text that continues one, the special ids.

A SentencePiece tokenizer writes a space before any text it is given, so a completion tokenised alone begins
with a space that nobody wrote. `continue_texts` therefore uses a copy of the tokenizer without that prefix:
in BPE and Unigram alike, what follows a clean boundary is segmented just as if it stood alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from likelier.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PROBE = "a"


class Tokenization:
    """Start and continuation tokenisation of one `transformers` tokenizer, in batches.

    Raises `ModelError` for a tokenizer without a `tokenizers` backend.
    """

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
            raise ModelError(f"{name}: the tokenizer is a slow one; convert it to tokenizer.json first")
        self.tokenizer = tokenizer
        self._start, self._continue = _start_and_continuation(backend)
        self.bos = _prefix(tokenizer)
        self.eos: int | None = tokenizer.eos_token_id
        self.has_template = bool(tokenizer.chat_template)
        self.vocabulary_size = len(tokenizer)
        self._special = _special_tokens(tokenizer)
        self._special_pattern = _pattern(self._special)

    @classmethod
    def of(cls, tokenizer: Any) -> Tokenization:
        """`tokenizer` itself where it is a `Tokenization` already: building one parses the vocabulary."""
        return tokenizer if isinstance(tokenizer, cls) else cls(tokenizer)

    def start_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts that open a row, without BOS."""
        return _encode(self._start, texts)

    def continue_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts that continue a row: no space is put before them."""
        return _encode(self._continue, texts)

    def starts_at(self, text: str, character: int) -> int | None:
        """Index of the token of `text` that begins at `character`; None where a token runs across it."""
        offsets = self._start.encode(text, add_special_tokens=False).offsets
        return next((index for index, (start, end) in enumerate(offsets) if start == character < end), None)

    def decode(self, tokens: Sequence[int], *, special: bool = True) -> str:
        """The text of `tokens`, spaces left as they are."""
        return str(
            self.tokenizer.decode(tokens, skip_special_tokens=not special, clean_up_tokenization_spaces=False)
        )

    def first_special(self, text: str) -> tuple[int, int] | None:
        """Where the first special token's name stands in `text`: (start, end), or None."""
        found = self._special_pattern.search(text) if self._special_pattern else None
        return found.span() if found else None


def _encode(backend: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]


def _start_and_continuation(backend: Tokenizer) -> tuple[Tokenizer, Tokenizer]:
    """Copies that pad and truncate nothing; the second puts no space before a text."""
    from tokenizers import Tokenizer

    start = Tokenizer.from_str(backend.to_str())
    start.no_padding()
    start.no_truncation()
    specification = json.loads(start.to_str())
    without = {step: _without_prefix(specification[step]) for step in ("normalizer", "pre_tokenizer")}
    if all(specification[step] == changed for step, changed in without.items()):
        return start, start
    return start, Tokenizer.from_str(json.dumps(specification | without))


def _without_prefix(step: dict[str, Any] | None) -> dict[str, Any] | None:
    """A normaliser or pre-tokeniser without the part that puts a space before the text."""
    if step is None or step["type"] == "Prepend":
        return None
    if step["type"] == "Sequence":
        key = "normalizers" if "normalizers" in step else "pretokenizers"
        kept = [inner for inner in map(_without_prefix, step[key]) if inner is not None]
        return {**step, key: kept}
    if step["type"] == "Metaspace":
        return {**step, "prepend_scheme": "never"}
    if step.get("add_prefix_space"):
        return {**step, "add_prefix_space": False}
    return step


def _prefix(tokenizer: Any) -> list[int]:
    """The ids that the tokenizer puts before raw text: BOS, mostly, or nothing."""
    plain = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    full = tokenizer(PROBE)["input_ids"]
    starts = range(len(full) - len(plain) + 1)
    return next((list(full[:i]) for i in starts if full[i : i + len(plain)] == plain), [])


def _special_tokens(tokenizer: Any) -> set[str]:
    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    return {*added, *tokenizer.all_special_tokens} - {""}


def _pattern(tokens: set[str]) -> re.Pattern[str] | None:
    longest_first = sorted(tokens, key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, longest_first))) if tokens else None
