"""`--dry-run` of sample, label and evaluate: its figures by hand, and against what the same command then does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForSequenceClassification

from likelier import cli
from likelier.engines import kept_answers, local_judges
from likelier.engines.blueprints import blueprint
from likelier.models.adapters import add_lora
from likelier.models.loading import Loaded
from likelier.models.reward_model import as_reward_model
from likelier.models.saving import save_model
from tests.engines.test_rewards import classifier_folder
from tests.models.families import tiny
from tests.stages.test_evaluate_frontier import here, trained
from tests.training.conftest import no_timing, own_cache
from tests.training.support import write_rows

__all__ = ["here", "no_timing", "own_cache", "trained"]

WIDTH, INNER, LAYERS, KEYS = 32, 48, 2, 16
"""Of the tiny Llama: its two key heads of four make keys and values half as wide."""
TEXTS = ["The cat", "What is the best way to cook rice?", "Please help me with my garden: rain, rain."]
ANSWERS = [
    [" sat.", " ran away from the rain.", " slept", " ate rice"],
    [" Boil it.", " Wash it, then boil it."],
]


def inner_parameters(*, biases: int = 0) -> int:
    """Of everything but the embedding and the head: queries, keys, values, output; gate, up, down; norms."""
    attention = 2 * WIDTH * WIDTH + 2 * WIDTH * KEYS + biases
    return LAYERS * (attention + 3 * WIDTH * INNER + 2 * WIDTH) + WIDTH


def llama_parameters(vocabulary: int) -> int:
    return 2 * vocabulary * WIDTH + inner_parameters()


def flop_in(said: str) -> list[str]:
    """Every figure of FLOP, as it is written."""
    return re.findall(r"about (\S+) FLOP", said)


def flop(parameters: int, tokens: int) -> str:
    return f"{2.0 * parameters * tokens:.2g}"


def dry(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """What a dry run prints, and what it says."""
    capsys.readouterr()
    assert cli.main([*words, "--dry-run", "--json"]) == 0
    said = capsys.readouterr()
    return json.loads(said.out), said.err


def lengths(tokenizer: Any, texts: list[str]) -> list[int]:
    """By the tokenizer's own core, not by what transformers wraps around it."""
    return [len(one.ids) for one in tokenizer.backend_tokenizer.encode_batch(texts)]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_parameters_by_hand(tmp_path: Path, tiny_llama: Path, tokenizer: Any) -> None:
    """A head tied to the embedding counts once; an adapter is counted as its base."""
    assert blueprint(tiny_llama).parameters == llama_parameters(len(tokenizer))
    qwen = tiny("qwen2", vocab_size=len(tokenizer), num_hidden_layers=LAYERS)
    qwen.save_pretrained(tmp_path / "tied")
    tokenizer.save_pretrained(tmp_path / "tied")
    tied = len(tokenizer) * WIDTH + inner_parameters(biases=WIDTH + 2 * KEYS)
    assert blueprint(tmp_path / "tied").parameters == tied
    classifier = classifier_folder(tmp_path / "judge", tokenizer, labels=3)
    of_three = len(tokenizer) * WIDTH + inner_parameters() + 3 * WIDTH
    assert blueprint(classifier, classifies=True).parameters == of_three
    adapted = add_lora(tiny("llama", vocab_size=len(tokenizer)), rank=2, seed=0)
    adapted.peft_config["default"].base_model_name_or_path = str(tiny_llama)
    adapted.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    assert blueprint(tmp_path / "adapter").parameters == llama_parameters(len(tokenizer))


def test_sample(tmp_path: Path, tiny_llama: Path, tokenizer: Any, capsys: Any) -> None:
    prompts = write_rows(
        tmp_path / "p.jsonl", [{"id": f"{n}", "prompt": text} for n, text in enumerate(TEXTS)]
    )
    words = ["sample", "--model", str(tiny_llama), "--prompts", str(prompts), "--n", "3"]
    words += ["--max-new-tokens", "5", "--out", str(tmp_path / "out.jsonl")]
    found, said = dry(words, capsys)
    read = sum(lengths(tokenizer, TEXTS))
    assert found == {"prompts": 3, "answers": 9, "new_tokens_at_most": 45, "prompt_tokens": read}
    assert flop_in(said) == [flop(llama_parameters(len(tokenizer)), read + 45)]
    assert not (tmp_path / "out.jsonl").exists()
    assert cli.main(words) == 0
    rows = lines_of(tmp_path / "out.jsonl")
    drawn = [answer for row in rows for answer in row["completions"]]
    assert (len(rows), len(drawn)) == (found["prompts"], found["answers"])
    assert sum(len(answer["tokens"]) for answer in drawn) <= found["new_tokens_at_most"]


def test_sample_of_chats_reads_the_template(
    tmp_path: Path, tiny_llama: Path, tokenizer: Any, capsys: Any
) -> None:
    """ChatML written out."""
    turns = [[{"role": "user", "content": text}] for text in TEXTS]
    prompts = write_rows(tmp_path / "p.jsonl", [{"prompt": one} for one in turns])
    found, _ = dry(["sample", "--model", str(tiny_llama), "--prompts", str(prompts)], capsys)
    written = [f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n" for text in TEXTS]
    assert found["prompt_tokens"] == sum(lengths(tokenizer, written))
    assert found["new_tokens_at_most"] == 3 * 4 * 64


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """Four answers to one prompt and two to another, no two of one length in words."""
    rows = [
        {"id": str(n), "prompt": TEXTS[n], "completions": [text + " so" * k for k, text in enumerate(own)]}
        for n, own in enumerate(ANSWERS)
    ]
    return write_rows(tmp_path / "samples.jsonl", rows)


@pytest.mark.parametrize(
    ("choice", "pairs"), [("ranking", 6 + 1), ("all", 6 + 1), ("adjacent", 3 + 1), ("best-worst", 1 + 1)]
)
def test_label_by_a_rule(choice: str, pairs: int, samples: Path, tmp_path: Path, capsys: Any) -> None:
    """Where no two scores are equal, a run makes as many pairs as were announced."""
    words = ["label", str(samples), "--with", "reward", "--reward", "length", "--pairs", choice]
    found, _ = dry(words, capsys)
    assert found == {"prompts": 2, "answers": 6, "pairs_at_most": pairs}
    assert cli.main([*words, "--out", str(tmp_path / "out.jsonl"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pairs"] == pairs


@pytest.mark.parametrize("chat", [False, True])
def test_label_by_a_classifier(
    chat: bool, tmp_path: Path, tokenizer: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads every answer with its prompt; the tokens announced are those that its forward then gets."""
    folder = classifier_folder(tmp_path / "judge", tokenizer, labels=1)
    rows: list[dict[str, Any]] = [
        {"prompt": [{"role": "user", "content": text}] if chat else text, "completions": own}
        for text, own in zip(TEXTS, ANSWERS, strict=False)
    ]
    words = [
        "label",
        str(write_rows(tmp_path / "s.jsonl", rows)),
        "--with",
        "reward",
        "--reward",
        str(folder),
    ]
    found, said = dry(words, capsys)
    if chat:
        turns = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n"
        texts = [turns.format(TEXTS[n], answer) for n, own in enumerate(ANSWERS) for answer in own]
    else:
        texts = [TEXTS[n] + answer for n, own in enumerate(ANSWERS) for answer in own]
    assert found["tokens"] == sum(lengths(tokenizer, texts))
    parameters = len(tokenizer) * WIDTH + inner_parameters() + WIDTH
    assert flop_in(said) == [flop(parameters, found["tokens"])]
    read: list[int] = []
    forward = LlamaForSequenceClassification.forward

    def counted(self: Any, input_ids: torch.Tensor, **more: Any) -> Any:
        read.append(input_ids.numel())
        return forward(self, input_ids=input_ids, **more)

    monkeypatch.setattr(LlamaForSequenceClassification, "forward", counted)
    assert cli.main([*words, "--out", str(tmp_path / "out.jsonl")]) == 0
    assert (len(read), sum(read)) == (found["answers"], found["tokens"])


def test_label_by_a_reward_model(samples: Path, tmp_path: Path, tokenizer: Any, capsys: Any) -> None:
    """One made here reads a prompt once for all its answers, and each answer's end."""
    start = tiny("llama", dtype=torch.float32, vocab_size=len(tokenizer))
    made = as_reward_model(Loaded(start, tokenizer, "tiny", "memory"))
    save_model(made.model, made.tokenizer, tmp_path / "reward", card="")
    words = ["label", str(samples), "--with", "reward", "--reward", str(tmp_path / "reward")]
    found, said = dry(words, capsys)
    rows = lines_of(samples)
    answers = [answer for row in rows for answer in row["completions"]]
    read = sum(lengths(tokenizer, [row["prompt"] for row in rows])) + sum(lengths(tokenizer, answers)) + 6
    assert found == {"prompts": 2, "answers": 6, "pairs_at_most": 7, "tokens": read}
    parameters = len(made.tokenizer) * WIDTH + inner_parameters() + WIDTH
    assert flop_in(said) == [flop(parameters, read)]


@pytest.mark.parametrize("verdict", ["text", "log-odds"])
def test_label_by_a_judge_here(
    verdict: str,
    tmp_path: Path,
    patient_llama: Path,
    tokenizer: Any,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both orders of every pair, a row that is there twice once, through the judge's own template."""
    rows = [{"prompt": text, "completions": own} for text, own in zip(TEXTS, ANSWERS, strict=False)]
    samples = write_rows(tmp_path / "s.jsonl", [*rows, rows[1]])
    (tmp_path / "rubric.txt").write_text("{prompt}|{answer_a}|{answer_b}|{verdict}")
    words = [
        "label",
        str(samples),
        "--with",
        "judge",
        "--judge-model",
        str(patient_llama),
        "--verdict",
        verdict,
    ]
    words += ["--rubric", str(tmp_path / "rubric.txt"), "--precision", "float32"]
    words += [] if verdict == "log-odds" else ["--judge-max-tokens", "3"]
    found, said = dry(words, capsys)
    assert (found["prompts"], found["pairs"], found["questions_at_most"]) == (3, 6 + 1 + 1, 2 * (6 + 1))
    asked: list[str] = []
    read: list[int] = []
    written: list[int] = []
    judge = local_judges.LogOddsJudge if verdict == "log-odds" else local_judges.WritingJudge
    ask = judge.ask

    def counted(self: Any, questions: Any) -> Iterator[Any]:
        asked.extend(questions)
        for index, reply in ask(self, questions):
            read.append(reply.prompt_tokens)
            written.append(reply.completion_tokens)
            yield index, reply

    monkeypatch.setattr(judge, "ask", counted)
    cli.main([*words, "--out", str(tmp_path / "out.jsonl")])  # a random judge need not say anything
    assert len(asked) == len(read) == found["questions_at_most"]
    lead = "Verdict:" if verdict == "log-odds" else ""
    turns = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n" + lead
    by_hand = sum(lengths(tokenizer, [turns.format(one) for one in asked]))
    assert sum(read) == by_hand
    parameters = llama_parameters(len(tokenizer))
    if verdict == "log-odds":
        assert found["tokens"] == by_hand + sum(lengths(tokenizer, [" A", " B"])) * len(asked)
        assert flop_in(said) == [flop(parameters, found["tokens"])]
    else:
        assert (found["tokens"], found["new_tokens_at_most"]) == (by_hand, 3 * len(asked))
        assert flop_in(said) == [flop(parameters, by_hand + 3 * len(asked))]
        assert sum(written) <= found["new_tokens_at_most"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many answers every call of the sampler draws."""
    counts: list[int] = []
    function = kept_answers.sample_each

    def counted(model: Any, tokenizer: Any, prompts: Any, **settings: Any) -> Any:
        for number, answered in function(model, tokenizer, prompts, **settings):
            counts.append(len(answered.completions))
            yield number, answered

    monkeypatch.setattr(kept_answers, "sample_each", counted)
    return counts


SHORT = ["--max-new-tokens", "6", "--precision", "float32", "--out", "out", "--reward", "length"]


def read_of_prompts(tokenizer: Any) -> int:
    return sum(lengths(tokenizer, [row["prompt"] for row in lines_of(Path("prompts.jsonl"))]))


def test_frontier(here: Path, tokenizer: Any, drawn: list[int], capsys: Any) -> None:
    """Two policies a run, since the last checkpoint is the model; the reference draws for the largest N."""
    words = ["evaluate", "frontier", "full", "lora", "--prompts", "prompts.jsonl", "--n", "2", *SHORT]
    words += ["--best-of", "1,3", "--chooser", "length"]
    found, said = dry(words, capsys)
    answers = 5 * (2 * 2 * 2 + 3)
    read = read_of_prompts(tokenizer)
    one = read + 5 * 2 * 6
    # Each policy draws its answers and runs over them again; the reference draws, and runs over all of theirs.
    by_reference = (read + 5 * 3 * 6) + 4 * one
    assert found == {
        "prompts": 5,
        "policies": 4,
        "answers_at_most": answers,
        "tokens_at_most": 4 * 2 * one + by_reference,
    }
    parameters = llama_parameters(len(tokenizer))
    assert flop_in(said) == [flop(parameters, tokens) for tokens in (2 * 2 * one, 2 * 2 * one, by_reference)]
    assert cli.main(words) == 0
    assert sum(drawn) == answers


def test_frontier_with_the_dial(here: Path, tokenizer: Any, drawn: list[int], capsys: Any) -> None:
    """At 0.5 and 2 two ways draw; one of them, and the distances, read the reference too."""
    words = ["evaluate", "frontier", "full", "--prompts", "prompts.jsonl", "--n", "2", *SHORT]
    words += ["--dial", "--strengths", "0,0.5,1,2"]
    found, _ = dry(words, capsys)
    one = read_of_prompts(tokenizer) + 5 * 2 * 6
    by_policy = 6 * one + 6 * one + one
    by_reference = one + (6 * one + one) + 2 * one
    assert found["answers_at_most"] == 5 * 2 * (2 + 4 + 1)
    assert found["tokens_at_most"] == by_policy + by_reference
    assert cli.main(words) == 0
    assert sum(drawn) == found["answers_at_most"]


def test_temperature_and_winrate(here: Path, tokenizer: Any, drawn: list[int], capsys: Any) -> None:
    """At temperature 0 an answer is drawn once, whatever `--n`."""
    words = ["evaluate", "temperature", "full", "--prompts", "prompts.jsonl", "--n", "2", *SHORT]
    rows = lines_of(Path("prompts.jsonl"))
    write_rows(Path("prompts.jsonl"), [{**row, "human": "a text"} for row in rows])
    words += ["--baseline", "human", "--temperatures", "0,0.5,1"]
    found, _ = dry(words, capsys)
    read = read_of_prompts(tokenizer)
    answers = 5 * (1 + 2 + 2)
    tokens = 3 * read + answers * 6
    assert found == {"prompts": 5, "policies": 3, "answers_at_most": answers, "tokens_at_most": tokens}
    assert cli.main(words) == 0
    assert sum(drawn) == answers
    words = ["evaluate", "winrate", "full", "lora", "--prompts", "prompts.jsonl", "--reward", "length"]
    words += ["--out", "other", "--sampling-temperature", "0", "--n", "4", "--max-new-tokens", "5"]
    found, _ = dry([*words, "--precision", "float32"], capsys)
    assert (found["policies"], found["answers_at_most"]) == (2, 2 * 5)
    assert found["tokens_at_most"] == 2 * (read + 5 * 5)
    drawn.clear()
    assert cli.main([*words, "--precision", "float32"]) == 0
    assert sum(drawn) == found["answers_at_most"]


def test_preferences(tmp_path: Path, tiny_llama: Path, capsys: Any) -> None:
    rows = [
        {"prompt": "The cat", "chosen": " sat.", "rejected": " ran"},
        {"prompt": "A", "chosen": "b", "rejected": "cd"},
    ]
    data = write_rows(tmp_path / "data.jsonl", rows)
    words = ["evaluate", "preferences", str(tiny_llama), "--data", str(data), "--out", str(tmp_path / "out")]
    found, said = dry(words, capsys)
    assert found == {"rows": 2, "models": 1}
    assert f"2 rows ({5 + 4 + 1 + 2} characters of answers)" in said
