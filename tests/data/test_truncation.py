"""Too long: one cut for the whole tree, turns before text, answers only when asked; all of it counted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from likelier.data.encoding import encode
from likelier.data.tokens import Tokenization
from tests.conftest import CHATML
from tests.data.tiny_tokenizers import (
    ALTERNATING,
    byte_level,
    ids,
    metaspace,
    pair,
    single,
    trained,
    turns,
    user,
)

RAW = byte_level(None)
RAW_TOKENS = Tokenization(RAW)
BOS = Tokenization(metaspace())
CHAT = byte_level()


@settings(max_examples=80, deadline=None)
@given(
    prompt=st.text("abc ", min_size=1, max_size=40),
    lengths=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=3),
    max_length=st.integers(2, 40),
    with_bos=st.booleans(),
)
def test_the_prompt_is_cut_by_one_amount_for_the_tree(
    prompt: str, lengths: list[tuple[int, int]], max_length: int, with_bos: bool
) -> None:
    tokens = BOS if with_bos else RAW_TOKENS
    rows = [
        pair(prompt, "." * chosen, "!" * rejected, row=row) for row, (chosen, rejected) in enumerate(lengths)
    ]
    whole = encode(rows, tokens)
    cut = encode(rows, tokens, max_length=max_length)
    assert len(cut.trees) <= 1
    assert len(cut.refused) == sum(fault.kind == "too long" for fault in cut.refused)
    answers = {tuple(node.tokens) for tree in whole.trees for node in tree.nodes[1:]}
    for tree in cut.trees:
        longest = max(len(ids(tree, branch)) for branch in range(len(tree.branches)))
        assert longest <= max_length
        assert {tuple(node.tokens) for node in tree.nodes[1:]} <= answers, "no answer is touched"
        before, after = whole.trees[0].nodes[0].tokens.tolist(), tree.nodes[0].tokens.tolist()
        bos = before[: len(tokens.bos)]
        assert after[: len(bos)] == bos
        assert before[len(bos) :][len(before) - len(after) :] == after[len(bos) :], "its start goes"
        assert len(after) == len(before) or longest == max_length, "no more than needed"
        kept = {record for source in tree.sources for record, _ in source}
        assert cut.counts["prompt tokens lost"] == (len(before) - len(after)) * len(kept)


def test_an_answer_that_is_too_long_is_refused_or_cut_from_the_right_without_an_end() -> None:
    rows = [pair("abc", "." * 30, " b", row=1), pair("abc", " c", " b", row=2)]
    refused = encode(rows, RAW, max_length=8)
    assert [fault.row for fault in refused.refused] == [1]
    assert "`chosen`" in refused.refused[0].message
    assert "--cut-answers" in refused.refused[0].message
    assert refused.trees[0].sources[0] == ((1, 0),)
    cut = encode(rows[:1], RAW, max_length=8, cut_answers=True)
    text = trained(cut.trees[0], RAW)
    assert text.strip(".") == ""
    assert len(ids(cut.trees[0])) == 8
    assert cut.counts["answers cut"] == 1
    assert cut.counts["answer tokens lost"] > 0
    assert trained(cut.trees[0], RAW, 1) == " b<|im_end|>"


def test_answers_that_become_equal_when_cut_are_refused() -> None:
    row = pair("abc", "." * 30 + " a", "." * 30 + " b")
    encoded = encode([row], RAW, max_length=4, cut_answers=True)
    assert [fault.kind for fault in encoded.refused] == ["identical"]


LONG = [{"role": "system", "content": "kind"}, *turns("one " * 9, "two", "three " * 9, "four", "five")]


def prompt_text(max_length: int, template: str = CHATML) -> str:
    tokenizer = byte_level(template)
    tree = encode([pair(LONG, "best", "way")], tokenizer, max_length=max_length).trees[0]
    assert len(ids(tree)) <= max_length
    return str(tokenizer.decode(tree.nodes[0].tokens))


def test_oldest_whole_turns_go_first_and_the_system_turn_stays() -> None:
    full = prompt_text(1000)
    assert full.count("<|im_start|>") == 7
    length = len(ids(encode([pair(LONG, "best", "way")], CHAT).trees[0]))
    shorter = prompt_text(length - 1)
    expected = CHAT.apply_chat_template([LONG[0], *LONG[3:]], tokenize=False, add_generation_prompt=True)
    assert shorter == expected
    tiny = prompt_text(len(CHAT(expected)["input_ids"]) - 10)
    assert tiny == CHAT.apply_chat_template([LONG[0], LONG[5]], tokenize=False, add_generation_prompt=True)


def test_a_template_that_wants_a_user_turn_first_is_obeyed() -> None:
    rows = [pair(LONG[1:], "best", "way")]
    tokenizer = byte_level(ALTERNATING + CHATML)
    whole = len(ids(encode(rows, tokenizer).trees[0]))
    encoded = encode(rows, tokenizer, max_length=whole - 1)
    assert tokenizer.decode(encoded.trees[0].nodes[0].tokens).startswith("<|im_start|>user\nthree")


def test_then_the_start_of_the_last_turns_text_goes_inside_the_templates_frame() -> None:
    prompt = [{"role": "system", "content": "kind"}, *user("a b c d e f g h i j k l m n o p q r s t")]
    whole = len(ids(encode([pair(prompt, "best", "way")], CHAT).trees[0]))
    encoded = encode([pair(prompt, "best", "way")], CHAT, max_length=whole - 20)
    text = CHAT.decode(encoded.trees[0].nodes[0].tokens)
    assert text.startswith("<|im_start|>system\nkind<|im_end|>\n<|im_start|>user\n")
    assert text.endswith(" s t<|im_end|>\n<|im_start|>assistant\n")
    assert " b c" not in text
    assert encoded.counts["prompt tokens lost"] == 20
    assert encoded.counts["prompts cut (rows)"] == 1


def test_what_the_frame_leaves_no_room_for_is_refused() -> None:
    encoded = encode([pair(user("a"), "best", "way")], CHAT, max_length=6)
    assert [fault.kind for fault in encoded.refused] == ["too long"]


def test_rows_that_fit_stay_where_the_prompt_cannot_be_cut() -> None:
    prompt = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    template = CHATML.replace("message['content']", "message['content'] | string")
    tokenizer = byte_level(template)
    rows = [single(prompt, "b", row=1), single(prompt, "b" * 50, row=2)]
    short = len(ids(encode(rows[:1], tokenizer, need="best").trees[0]))
    encoded = encode(rows, tokenizer, need="best", max_length=short)
    assert [fault.row for fault in encoded.refused] == [2]
    assert encoded.trees[0].sources == (((0, 0),),)


@pytest.mark.parametrize("max_length", [12, 20])
def test_a_multi_turn_answer_cut_before_its_first_reply_is_refused(max_length: int) -> None:
    answer = [*user("x" * 40), *turns("", "ok")[1:]]
    encoded = encode([single(user("a"), answer)], CHAT, need="best", max_length=max_length, cut_answers=True)
    assert not encoded.trees
    assert encoded.refused[0].kind in ("nothing to score", "too long")
