"""Where an answer ends: at a token that ends turns, at a stop string in its text, or at its length limit.

A stop string is looked for in the text, since it may lie across tokens or end inside one. The text is cut before
it; then text and tokens say different things, and the tokens are not handed on: training on them would teach the
stop string and what stood beside it, and re-tokenising the text is the only reading of what was kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from likelier.errors import UsageError

_LOOK_BACK = 8
"""Tokens decoded again beside those that a stop string may span: a character may take several."""


class Stopping:
    """What ends an answer, for one tokenizer.

    Args:
        tokenizer: decodes tokens.
        tokens: those that end an answer; they are no part of its text.
        strings: stop strings, none of them empty.

    Raises:
        UsageError: an empty stop string.
    """

    def __init__(self, tokenizer: Any, tokens: frozenset[int], strings: Sequence[str] = ()) -> None:
        if not all(strings):
            raise UsageError(
                "--stop needs text: an empty stop string would end every answer before it begins"
            )
        self.tokens = tokens
        self.strings = tuple(strings)
        self._tokenizer = tokenizer
        # A token adds at least a byte, and a character has four at most.
        self._window = 4 * max(map(len, self.strings), default=0) + _LOOK_BACK

    def ended(self, drawn: list[int]) -> bool:
        """Whether the answer ends with the last of its tokens so far."""
        return drawn[-1] in self.tokens or (
            bool(self.strings) and self._place(self._text(drawn[-self._window :])) is not None
        )

    def finished(self, drawn: list[int]) -> tuple[str, str, bool]:
        """Text and finish of a whole answer, and whether its text is that of its tokens."""
        stopped = drawn[-1] in self.tokens
        text = self._text(drawn[:-1] if stopped else drawn)
        place = self._place(text) if self.strings else None
        if place is not None:
            return text[:place], "stop", False
        return text, "stop" if stopped else "length", True

    def _text(self, drawn: list[int]) -> str:
        return str(self._tokenizer.decode(drawn, clean_up_tokenization_spaces=False))

    def _place(self, text: str) -> int | None:
        """Where the first stop string begins."""
        found = [place for string in self.strings if (place := text.find(string)) >= 0]
        return min(found, default=None)


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer: those of the generation configuration and the tokenizer's own."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in (*listed, tokenizer.eos_token_id) if token is not None)
