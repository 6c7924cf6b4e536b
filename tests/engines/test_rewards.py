"""Rewards by name."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForSequenceClassification

from likelier.engines.rewards import resolve_reward
from likelier.errors import ModelError, UsageError, WorkError
from tests.models.families import tiny


def test_vader_scores_sentiment() -> None:
    reward = resolve_reward("vader")
    good, bad, flat = reward([""] * 3, ["What a wonderful, lovely film!", "A horrible waste.", "A chair."])
    assert 0.5 < good <= 1
    assert -1 <= bad < -0.4
    assert flat == 0.0


def test_length_counts_words() -> None:
    assert resolve_reward("length")(["", ""], ["one  two\nthree", ""]) == [3.0, 0.0]


def test_a_regular_expression_matches_or_not() -> None:
    assert resolve_reward("regex:^a:b$")(["", ""], ["a:b", "ab"]) == [1.0, 0.0]


def test_a_function_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_reward_of_words.py").write_text(
        "def shouts(prompt, completion):\n    return completion.isupper() and prompt == 'x'\n"
        "def breaks(prompt, completion):\n    return float('nan')\n"
    )
    monkeypatch.chdir(tmp_path)
    assert resolve_reward("my_reward_of_words:shouts")(["x", "x"], ["HEY", "hey"]) == [1.0, 0.0]
    with pytest.raises(WorkError, match="my_reward_of_words:breaks` gave nan for answer 0, not a finite"):
        resolve_reward("my_reward_of_words:breaks")(["x"], ["y"])
    with pytest.raises(UsageError, match="has no function `shout`; did you mean `shouts`"):
        resolve_reward("my_reward_of_words:shout")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vadr", "unknown reward `vadr`; did you mean `vader`"),
        ("", "unknown reward"),
        ("regex:", "unknown reward"),
        ("regex:(", "not a regular expression"),
        ("no_such_module_here:f", "no module `no_such_module_here`"),
        ("math:pi", "has no function `pi`"),
    ],
)
def test_names_that_mean_nothing(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        resolve_reward(name)


def classifier_folder(folder: Path, tokenizer: Any, *, labels: int, chat: bool = True) -> Path:
    """A tiny random Llama that classifies."""
    torch.manual_seed(labels)
    config = tiny("llama", vocab_size=len(tokenizer), max_position_embeddings=64).config
    config.num_labels, config.pad_token_id = labels, 0
    model = LlamaForSequenceClassification(config)
    if labels == 2:
        model.config.id2label = {0: "BAD", 1: "GOOD"}
    model.save_pretrained(folder)
    ours = copy.copy(tokenizer)
    ours.chat_template = tokenizer.chat_template if chat else None
    ours.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_a_classifier_in_a_folder(labels: int, tmp_path: Path, tokenizer: Any) -> None:
    folder = classifier_folder(tmp_path / "judge", tokenizer, labels=labels)
    reward = resolve_reward(str(folder))
    scores = reward(["The cat", "The cat"], [" sat.", " ran away from the rain."])
    model = LlamaForSequenceClassification.from_pretrained(folder)
    for text, score in zip(("The cat sat.", "The cat ran away from the rain."), scores, strict=True):
        (logits,) = model(torch.tensor([tokenizer(text)["input_ids"]])).logits.tolist()
        total = sum(map(math.exp, logits))
        assert score == pytest.approx(logits[0] if labels == 1 else math.exp(logits[-1]) / total, rel=1e-5)
    assert scores[0] != scores[1]
    meanings = {1: "the score of a reward model", 2: "a classifier gives the label GOOD"}
    assert meanings.get(labels, "LABEL_2") in reward.meaning


@pytest.mark.parametrize("chat", [True, False])
def test_a_classifier_reads_a_chat_by_its_template_if_it_has_one(
    chat: bool, tmp_path: Path, tokenizer: Any
) -> None:
    reward = resolve_reward(str(classifier_folder(tmp_path / "judge", tokenizer, labels=1, chat=chat)))
    first, second = ([{"role": "user", "content": text}] for text in ("Hi", "Go away"))
    assert (reward([first], ["x"]) != reward([second], ["x"])) is chat


def test_models_that_do_not_judge(tmp_path: Path, tiny_llama: Path, tokenizer: Any) -> None:
    with pytest.raises(UsageError, match="is a LlamaForCausalLM, which does not classify"):
        resolve_reward(str(tiny_llama))
    with pytest.raises(ModelError, match="no model at"):
        resolve_reward("./nowhere/at/all")
    folder = classifier_folder(tmp_path / "judge", tokenizer, labels=1)
    with pytest.raises(ModelError, match="and the classifier reads 64"):
        resolve_reward(str(folder))(["x"], ["rain " * 100])


def test_a_classifier_without_its_head_is_no_random_judge(tmp_path: Path, tokenizer: Any) -> None:
    from safetensors.torch import load_file, save_file

    folder = classifier_folder(tmp_path / "judge", tokenizer, labels=1)
    weights = load_file(folder / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"the weights lack score\.weight"):
        resolve_reward(str(folder))
