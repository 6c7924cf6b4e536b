r"""Whole conversations on both sides of a preference: where the prompt ends and the answers begin.

In a transcript (Anthropic's HH: turns begin with "\n\nHuman:" and "\n\nAssistant:") the prompt ends at the
last assistant marker that both sides share, never inside a word. In lists of turns it ends at the last place
where both sides have had the same turns and the assistant speaks next. Prompt and answer are what was given.
"""

from __future__ import annotations

import re

from likelier.data.faults import RowError
from likelier.data.records import Message

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def split_transcripts(chosen: str, rejected: str) -> tuple[str, str, str]:
    r"""Prompt, chosen and rejected answer of two transcripts.

    >>> split_transcripts("\n\nHuman: Hi\n\nAssistant: Hello", "\n\nHuman: Hi\n\nAssistant: Help")
    ('\n\nHuman: Hi\n\nAssistant:', ' Hello', ' Help')
    """
    marker = chosen.rfind(ASSISTANT, 0, _common_length(chosen, rejected))
    if marker < 0:
        message = (
            "there is no `prompt`, and `chosen` and `rejected` share no opening up to an assistant's turn: "
            "give a `prompt` column (--columns prompt=NAME)"
        )
        raise RowError("prompt", "missing", message)
    end = marker + len(ASSISTANT)
    return chosen[:end], chosen[end:], rejected[end:]


def _common_length(left: str, right: str) -> int:
    """How many characters two texts share at their start; by halving, as comparing one by one is slow."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def is_transcript(prompt: str) -> bool:
    """Whether a prompt opens with a human's turn and leaves the word to the assistant."""
    return prompt.startswith(HUMAN) and prompt.endswith(ASSISTANT)


def transcript_turns(prompt: str) -> list[Message]:
    r"""The turns of a transcript's prompt.

    >>> transcript_turns("\n\nHuman: Hi\n\nAssistant:")
    [{'role': 'user', 'content': 'Hi'}]
    """
    return _turns(prompt.removesuffix(ASSISTANT))


def answer_turns(answer: str) -> list[Message]:
    r"""The turns of what follows a transcript's prompt.

    >>> answer_turns(" Hello\n\nHuman: Bye\n\nAssistant: Bye")[1]
    {'role': 'user', 'content': 'Bye'}
    """
    return _turns(ASSISTANT + answer)


def _turns(transcript: str) -> list[Message]:
    _, *parts = _TURN.split(transcript)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": _ROLES[speaker], "content": words.strip()} for speaker, words in pairs]


def split_conversations(
    chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    """Prompt, chosen and rejected answer of two conversations given as turns.

    >>> user = {"role": "user", "content": "?"}
    >>> yes, no = {"role": "assistant", "content": "y"}, {"role": "assistant", "content": "n"}
    >>> split_conversations([user, yes], [user, no])[0]
    [{'role': 'user', 'content': '?'}]
    """
    turns = zip(chosen, rejected, strict=False)
    end = next(
        (index for index, (left, right) in enumerate(turns) if left != right), min(len(chosen), len(rejected))
    )
    while end >= 0 and not (_speaks(chosen, end) and _speaks(rejected, end)):
        end -= 1
    if end < 0:
        opening = "`chosen` and `rejected` share no opening after which the assistant speaks in both"
        message = f"{opening}: give a `prompt`"
        raise RowError("prompt", "missing", message)
    return chosen[:end], chosen[end:], rejected[end:]


def _speaks(turns: list[Message], index: int) -> bool:
    return index < len(turns) and turns[index]["role"] == "assistant"
