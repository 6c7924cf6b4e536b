"""Models loaded here as judges: log-odds against plain forwards, verdicts as they are written."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from likelier.engines import local_judges
from likelier.engines.judges import Said, odds_gap
from likelier.engines.local_judges import LogOddsJudge, WritingJudge
from likelier.engines.protocol import Failure

QUESTIONS = ["Which is better, rice or rain?", "A cat or a mat, which one? " * 3, "Good?"]


def asked(judge: Any, questions: list[str]) -> list[Any]:
    found = dict(judge.ask(questions))
    judge.close()
    return [found[index] for index in range(len(questions))]


@pytest.mark.parametrize("chat", [True, False])
def test_log_odds_are_those_of_plain_forwards(
    chat: bool, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64: one row of prompt, `Verdict:` and each letter, read by transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    if not chat:
        tokenizer.chat_template = None
    folder = tmp_path / "judge"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    monkeypatch.setattr(local_judges, "READ", 2)
    judge = LogOddsJudge(str(folder), precision="float64")
    assert judge._scorer.way == "tree"
    for question, said in zip(QUESTIONS, asked(judge, QUESTIONS), strict=True):
        start = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\nVerdict:"
        text = start if chat else f"{question}\n\nVerdict:"
        for letter, logp in zip((" A", " B"), said.logps, strict=True):
            ids = tokenizer(text + letter, add_special_tokens=False)["input_ids"]
            before = len(tokenizer(text, add_special_tokens=False)["input_ids"])
            with torch.no_grad():
                logps = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            expected = sum(float(logps[place - 1, ids[place]]) for place in range(before, len(ids)))
            assert logp == pytest.approx(expected, abs=1e-11)
        assert said.prompt_tokens == before
        first, second = map(math.exp, said.logps)
        assert odds_gap(said.logps) == pytest.approx((first - second) / (first + second), rel=1e-12)


def test_the_model_is_given_back_as_it_was(tiny_llama: Path) -> None:
    from likelier.models.loading import load_model

    loaded = load_model(tiny_llama)
    before = loaded.model.config._attn_implementation
    asked(LogOddsJudge(loaded.model, tokenizer=loaded.tokenizer), QUESTIONS[:1])
    assert loaded.model.config._attn_implementation == before


def test_answers_do_not_depend_on_what_is_asked_beside(tiny_llama: Path) -> None:
    for make in (
        lambda: LogOddsJudge(str(tiny_llama), precision="float32"),
        lambda: WritingJudge(str(tiny_llama), max_tokens=6, precision="float32"),
    ):
        together = asked(make(), QUESTIONS)
        alone = [asked(make(), [question])[0] for question in QUESTIONS]
        assert [(said.text, said.logps) for said in together] == [(said.text, said.logps) for said in alone]


def test_what_is_written_is_the_likeliest(tiny_llama: Path) -> None:
    (said,) = asked(WritingJudge(str(tiny_llama), max_tokens=5, precision="float32"), QUESTIONS[:1])
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    turns = [{"role": "user", "content": QUESTIONS[0]}]
    ids = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = model.generate(**ids, max_new_tokens=5, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert said.text == tokenizer.decode(out, skip_special_tokens=True)
    assert said.completion_tokens == len(out)
    assert said.prompt_tokens == ids["input_ids"].shape[1]


@pytest.mark.parametrize("judge", [LogOddsJudge, lambda name: WritingJudge(name, max_tokens=8)])
def test_a_question_longer_than_the_context_costs_itself_alone(judge: Any, tiny_llama: Path) -> None:
    long, short = asked(judge(str(tiny_llama)), ["rain " * 600, "rain?"])
    assert isinstance(long, Failure)
    assert long.reason == "longer than the judge's context"
    assert "for a context of 512" in long.detail
    assert isinstance(short, Said)


def test_identity_is_content(tiny_llama: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)

    def identity(name: str) -> str:
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        return WritingJudge(str(tmp_path / name), max_tokens=8, precision="float32").identity

    first = identity("a")
    assert identity("b") == first  # neither by path nor by name
    longer = WritingJudge(str(tmp_path / "a"), max_tokens=9, precision="float32").identity
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    heavier = identity("c")
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    assert len({first, longer, heavier, identity("d")}) == 4
