"""Examples as people see them: marks around what trains, and nothing that a terminal would obey."""

from __future__ import annotations

from likelier.data.encoding import encode
from likelier.data.showing import plain_examples, rich_examples, spread
from tests.data.tiny_tokenizers import byte_level, metaspace, pair, single, turns, user


def test_trained_tokens_are_marked_and_others_are_not() -> None:
    tokenizer = byte_level()
    answer = turns("", "of course", "my garden", "rain")[1:]
    trees = encode([single(user("help"), answer)], tokenizer, need="best").trees
    trained = sum(len(tokenizer(text)["input_ids"]) for text in ("of course<|im_end|>", "rain<|im_end|>"))
    shown = plain_examples(trees, tokenizer)
    assert shown.endswith(
        "prompt, 13 tokens:\n<|im_start|>user\nhelp<|im_end|>\n<|im_start|>assistant\n\n"
        f"answer 1, {trained} tokens trained:\n⟦of course<|im_end|>⟧\n<|im_start|>user\nmy garden<|im_end|>\n"
        "<|im_start|>assistant\n⟦rain<|im_end|>⟧\n\n"
    )


def test_a_first_space_is_shown() -> None:
    tokenizer = metaspace()
    shown = plain_examples(encode([pair("Human:", " please", " help")], tokenizer).trees, tokenizer)
    assert "chosen, 4 tokens trained:\n⟦ please</s>⟧\nrejected" in shown


def test_terminals_get_colour_and_no_commands() -> None:
    tokenizer = byte_level(None)
    trees = encode([pair("\x1b[31mred [bold]", " ⟦\u202e", " ok")], tokenizer).trees
    text = rich_examples(trees, tokenizer)
    assert "\\x1b[31mred [bold]" in text.plain
    assert " \\u27e6\\u202e" in text.plain
    trained = [text.plain[span.start : span.end] for span in text.spans if "green" in str(span.style)]
    assert trained == ["⟦ \\u27e6\\u202e<|im_end|>⟧", "⟦ ok<|im_end|>⟧"]


def test_ten_of_many_are_shown() -> None:
    tokenizer = byte_level(None)
    trees = encode([pair(f"p{i}", " a", " b", row=i) for i in range(40)], tokenizer).trees
    assert plain_examples(trees, tokenizer).count("── example") == 10
    assert spread(40, 10)[-1] == 39
    assert spread(5, 1) == [0]
