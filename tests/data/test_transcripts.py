"""The prompt of two transcripts: at the last shared marker, never inside a word, nothing lost."""

from __future__ import annotations

from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likelier.data.faults import RowError
from likelier.data.transcripts import ASSISTANT, split_conversations, split_transcripts

WORDS = st.text(alphabet="ab \n:", max_size=8)
TURN = st.builds(
    lambda marker, words: marker + words, st.sampled_from(["\n\nHuman:", "\n\nAssistant:"]), WORDS
)
TRANSCRIPT = st.lists(TURN, max_size=4).map("".join)


@given(shared=TRANSCRIPT, chosen=TRANSCRIPT, rejected=TRANSCRIPT)
def test_the_split_is_the_last_shared_marker_and_loses_nothing(
    shared: str, chosen: str, rejected: str
) -> None:
    sides = (shared + chosen, shared + rejected)
    common = "".join(
        left for left, _ in takewhile(lambda pair: pair[0] == pair[1], zip(*sides, strict=False))
    )
    if ASSISTANT not in common:
        with pytest.raises(RowError):
            split_transcripts(*sides)
        return
    prompt, *answers = split_transcripts(*sides)
    assert (prompt + answers[0], prompt + answers[1]) == sides
    assert prompt.endswith(ASSISTANT)
    assert ASSISTANT not in common[len(prompt) :]


def test_a_word_that_both_answers_begin_with_stays_in_the_answers() -> None:
    opening = "\n\nHuman: Hi\n\nAssistant:"
    split = split_transcripts(opening + " Understandable", opening + " Understand me")
    assert split == (opening, " Understandable", " Understand me")


def test_sides_that_part_before_the_last_turn_keep_their_turns() -> None:
    opening = "\n\nHuman: Hi\n\nAssistant:"
    chosen, rejected = " A\n\nHuman: more\n\nAssistant: B", " C"
    assert split_transcripts(opening + chosen, opening + rejected) == (opening, chosen, rejected)


def turns(text: str) -> list[dict[str, str]]:
    roles = {"u": "user", "a": "assistant", "s": "system"}
    return [{"role": roles[part[0]], "content": part} for part in text.split()]


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("u1 a1", "u1 a2", "u1"),
        ("s u1 a1 u2 a2", "s u1 a1 u2 a3", "s u1 a1 u2"),
        ("u1 a1 u2 a2", "u1 a1", "u1"),
        ("u1 a1 u2 a2", "u1 a1 u3 a2", "u1"),
        ("u1 a1", "u1 a1", "u1"),
        ("a1", "a2", ""),
    ],
)
def test_conversations_part_where_the_assistant_speaks(chosen: str, rejected: str, prompt: str) -> None:
    opening, *answers = split_conversations(turns(chosen), turns(rejected))
    assert opening == turns(prompt)
    assert [opening + answer for answer in answers] == [turns(chosen), turns(rejected)]


@pytest.mark.parametrize(("chosen", "rejected"), [("u1", "u1"), ("u1 a1", "u2 a1"), ("", "u1 a1")])
def test_conversations_without_a_common_opening_are_refused(chosen: str, rejected: str) -> None:
    with pytest.raises(RowError, match="share no opening"):
        split_conversations(turns(chosen), turns(rejected))
