"""Raw text: boundaries, BOS, the end, sampled tokens, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from likelier.data.encoding import encode
from likelier.data.records import Completion, Record
from likelier.data.tokens import Tokenization
from likelier.errors import ModelError, UsageError
from tests.data.tiny_tokenizers import TOKENIZERS, byte_level, ids, metaspace, pair, single, trained, user

TEXT = st.text(st.sampled_from("abchet  \n.é日'!3"), max_size=30)
WITHOUT_BYTES = str.maketrans("é日3!'\n", "bchett")
BUILT = {name: build() for name, build in TOKENIZERS.items()}
TOKENIZATIONS = {name: Tokenization(tokenizer) for name, tokenizer in BUILT.items()}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_clean_boundary_gives_the_ids_of_the_joint_text(name: str) -> None:
    tokenizer = BUILT[name]
    tree, *_ = encode([pair("What is the best way", " to cook rice?", " to help me.")], tokenizer).trees
    eos = tokenizer.eos_token_id
    assert ids(tree, 0) == [*tokenizer("What is the best way to cook rice?")["input_ids"], eos]
    assert ids(tree, 1) == [*tokenizer("What is the best way to help me.")["input_ids"], eos]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(prompt=TEXT.map("a".__add__), answer=TEXT.filter(bool))
def test_the_text_comes_back_with_no_space_that_nobody_wrote(name: str, prompt: str, answer: str) -> None:
    if name == "unigram":  # It has no bytes to fall back to.
        prompt, answer = (text.translate(WITHOUT_BYTES) for text in (prompt, answer))
    encoded = encode([single(prompt, answer)], TOKENIZATIONS[name], need="completions")
    tree = encoded.trees[0]
    assert not tree.nodes[0].scored.any()
    assert tree.nodes[1].scored.all()
    text = BUILT[name].decode(ids(tree), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert text == prompt + answer
    joint = [*BUILT[name](prompt + answer)["input_ids"], BUILT[name].eos_token_id]
    assert (ids(tree) != joint) == (encoded.counts["boundary split"] == 1)


@pytest.mark.parametrize("name", sorted(TOKENIZERS.keys() - {"unigram"}))
def test_a_merge_across_the_boundary_is_split_and_counted(name: str) -> None:
    tokenizer = BUILT[name]
    encoded = encode([single("What is the be", "st way", row=7)], tokenizer, need="best")
    assert encoded.counts["boundary split"] == 1
    assert encoded.examples["boundary split"][0].startswith("d.jsonl, row 7")
    prompt = encoded.trees[0].nodes[0].tokens.tolist()
    assert prompt == tokenizer("What is the be")["input_ids"], "the prompt is what is read at inference"
    assert trained(encoded.trees[0], tokenizer).removesuffix(tokenizer.eos_token).strip() == "st way"


def test_bos_comes_once_even_where_the_text_has_it() -> None:
    tokenizer = metaspace()
    for prompt in ("Human:", "<s>Human:"):
        tree = encode([single(prompt, " please")], tokenizer, need="best").trees[0]
        assert ids(tree).count(tokenizer.bos_token_id) == 1
        assert ids(tree)[0] == tokenizer.bos_token_id


def test_eos_is_last_scored_and_not_doubled() -> None:
    tokenizer = byte_level()
    for answer in (" please", " please<|im_end|>"):
        node = encode([single("Human:", answer)], tokenizer, need="best").trees[0].nodes[1]
        assert node.tokens.tolist().count(tokenizer.eos_token_id) == 1
        assert node.tokens[-1] == tokenizer.eos_token_id
        assert node.scored[-1]


def test_an_answer_cut_when_sampled_gets_no_end() -> None:
    tokenizer = byte_level()
    encoded = encode([single("Human:", " please", finish="length")], tokenizer, need="best")
    assert trained(encoded.trees[0], tokenizer) == " please"
    assert encoded.counts["answer cut when sampled"] == 1


def test_no_eos_token_is_counted() -> None:
    tokenizer = byte_level()
    tokenizer.eos_token = None
    encoded = encode([single("Human:", " please")], tokenizer, need="best")
    assert encoded.counts["no end of turn"] == 1
    assert trained(encoded.trees[0], tokenizer) == " please"


def test_sampled_tokens_are_trained_on_as_they_are() -> None:
    tokenizer = byte_level()
    eos = tokenizer.eos_token_id
    letters = [tokenizer.convert_tokens_to_ids(letter) for letter in "best"]
    assert tokenizer(" best")["input_ids"] != letters
    for tokens, finish, expected in (
        (letters, "stop", [*letters, eos]),
        ([*letters, eos], "stop", [*letters, eos]),
        (letters, None, [*letters, eos]),
        (letters, "length", letters),
    ):
        tree = encode([single("a", "best", tokens=tokens, finish=finish)], tokenizer, need="best").trees[0]
        assert tree.nodes[1].tokens.tolist() == expected
        assert tree.nodes[1].scored.all()


@pytest.mark.parametrize(
    ("tokens", "said"), [([10**6], "beyond"), ([-1], "beyond"), ([65, 66], "decodes to")]
)
def test_tokens_of_another_tokenizer_are_refused(tokens: list[int], said: str) -> None:
    encoded = encode([single("a", "best", tokens=tokens)], byte_level(), need="best")
    assert not encoded.trees
    assert said in str(encoded.refused[0])


def test_an_empty_prompt_without_bos_leaves_the_first_token_unscored() -> None:
    encoded = encode([single("", "What is the best way")], byte_level(), need="best")
    assert encoded.trees[0].nodes[1].scored.tolist()[:2] == [False, True]
    assert encoded.counts["first token unscored"] == 1
    with_bos = encode([single("", "What is")], metaspace(), need="best")
    assert with_bos.trees[0].nodes[1].scored.all()
    assert ids(with_bos.trees[0])[:-1] == metaspace()("What is")["input_ids"]


def test_what_the_model_cannot_use_is_refused_with_its_place() -> None:
    rows = [
        pair("a\ud800", " b", " c", row=1),
        pair("a", " b", " b", row=2),
        pair("a", user("b"), " c", row=3),
        Record(file="d", row=4, id="4", prompt="a", completions=[Completion(content=" b")], label=True),
        single("", "a", row=5, finish="length"),
        pair("a", " b", " c", row=6),
    ]
    encoded = encode(rows, byte_level())
    kinds = {fault.row: fault.kind for fault in encoded.refused}
    assert kinds == {1: "surrogate", 2: "identical", 3: "mixed", 4: "unpaired", 5: "unpaired"}
    assert [tree.id for tree in encoded.trees] == ["6"]
    assert "surrogate at character 1" in str(encoded.refused[0])
    assert encode([rows[4]], byte_level(), need="best").refused[0].kind == "nothing to score"


def test_special_tokens_in_the_text_are_counted_and_become_tokens() -> None:
    tokenizer = byte_level()
    encoded = encode([pair("a <|im_start|> b", " c", " d"), pair("a", " c", " d")], tokenizer)
    assert encoded.counts["special token in text"] == 1
    assert tokenizer.convert_tokens_to_ids("<|im_start|>") in encoded.trees[0].nodes[0].tokens


def test_raw_text_beside_a_template_is_counted() -> None:
    assert encode([pair("a", " b", " c")], byte_level()).counts["raw text, chat template unused"] == 1
    assert not encode([pair("a", " b", " c")], byte_level(None)).counts


def test_usage_errors_are_named() -> None:
    with pytest.raises(UsageError, match="--max-length 1"):
        encode([], byte_level(), max_length=1)

    class Slow:
        name_or_path = "some/model"

    with pytest.raises(ModelError, match=r"some/model.*tokenizer\.json"):
        encode([], Slow())


def test_a_padding_truncating_tokenizer_neither_pads_nor_truncates() -> None:
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    tree = encode([pair("What is the best way", " to cook rice?", " b")], tokenizer).trees[0]
    assert trained(tree, tokenizer, 0) == " to cook rice?<|im_end|>"


def test_shared_tokenization_gives_the_same_trees() -> None:
    tokenizer: Any = byte_level()
    rows = [pair("a", " b", " c")]
    assert ids(encode(rows, Tokenization(tokenizer)).trees[0]) == ids(encode(rows, tokenizer).trees[0])
