"""`likelier sft`: its loss against plain transformers, what trains, what is refused, and what it leaves behind."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from transformers import AutoModelForCausalLM

import likelier
from likelier import cli
from likelier.errors import DataError, UsageError, WorkError
from likelier.models.loading import load_tokenizer
from likelier.stats import ratio_interval
from likelier.training.config import SftConfig
from likelier.training.imitation import gradient
from tests.scoring.truth import gradient_error
from tests.training.conftest import no_timing, own_cache
from tests.training.support import (
    gradients,
    model_of,
    pairs,
    phrase,
    scorer_of,
    timeless,
    trees_of,
    weights_of,
    write_rows,
)

__all__ = ["no_timing", "own_cache"]


def answers(count: int = 8, *, seed: int = 0, **more: Any) -> list[dict[str, Any]]:
    """Prompts with an answer to imitate, of different lengths."""
    rng = np.random.default_rng(seed)
    return [
        {
            "id": f"row {seed}.{index}",
            "prompt": f"{index}: {phrase(rng, 2, 9)}?",
            "completion": f" {phrase(rng, 1, 12)}.",
            **more,
        }
        for index in range(count)
    ]


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


TALK = [
    turn("system", "be kind"),
    turn("user", "rain?"),
    turn("assistant", "yes, long"),
    turn("user", "rice?"),
    turn("assistant", "no"),
    turn("user", "please"),
    turn("assistant", "a good garden is short"),
]


def imitate(model: Any, rows: Any, tokenizer: Any = None, **config: Any) -> likelier.Run:
    """`likelier.sft` in float64 at a rate that moves a tiny model, unless told."""
    settings = {"precision": "float64", "learning_rate": 1e-3, "batch_size": 64, **config}
    return likelier.sft(model, rows, tokenizer=tokenizer, **settings)


def losses(model: Any, tokens: list[int], scored: list[bool]) -> Tensor:
    """Cross-entropy of each scored token of one row, by transformers' logits and torch's own function."""
    logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    each = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(tokens[1:]), reduction="none")
    return each[torch.tensor(scored[1:])]


def raw(tokenizer: Any, row: dict[str, Any]) -> tuple[list[int], list[bool]]:
    """A row of plain strings by hand: prompt, answer, end of turn."""
    prompt = tokenizer(row["prompt"], add_special_tokens=False).input_ids
    answer = [*tokenizer(row["completion"], add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    return prompt + answer, [False] * len(prompt) + [True] * len(answer)


def chat(tokenizer: Any, talk: list[dict[str, str]]) -> tuple[list[int], list[bool]]:
    """A conversation by hand, turn by turn in ChatML: what the assistant writes, and its end of turn, is scored."""
    tokens, scored = [], []
    for said in talk:
        own = said["role"] == "assistant"
        for text, counts in (
            (f"<|im_start|>{said['role']}\n", False),
            (f"{said['content']}<|im_end|>", own),
            ("\n", False),
        ):
            ids = tokenizer(text, add_special_tokens=False).input_ids
            tokens += ids
            scored += [counts] * len(ids)
    return tokens, scored


# The loss


def test_loss_and_gradient_are_plain_cross_entropy_per_token_over_separate_rows(tokenizer: Any) -> None:
    """Rows of very different lengths: a mean of means would be another number."""
    model = model_of(tokenizer, "gpt2")
    rows = answers(7)
    plain = [losses(model, *raw(tokenizer, row)) for row in rows]
    assert min(map(len, plain)) * 4 < max(map(len, plain))
    expected = torch.cat(plain).mean()
    assert abs(expected.item() - sum(own.mean().item() for own in plain) / len(plain)) > 1e-3
    model.zero_grad(set_to_none=True)
    expected.backward()
    truth = gradients(model)
    model.zero_grad(set_to_none=True)
    with scorer_of(model) as scorer:
        found = gradient(scorer, trees_of(rows, tokenizer, need="examples"))
    assert found.loss == pytest.approx(expected.item(), rel=1e-12)
    assert found.tokens == sum(map(len, plain))
    assert gradient_error(gradients(model), truth) < 1e-12
    run = imitate(model, rows, tokenizer)
    first = run.metrics[0]
    assert first["loss"] == pytest.approx(expected.item(), rel=1e-12)
    assert first["perplexity"] == pytest.approx(math.exp(expected.item()), rel=1e-12)
    assert (first["tokens"], first["examples_seen"]) == (sum(map(len, plain)), 7)


def test_neither_packs_nor_shared_prompts_enter_the_gradient(tokenizer: Any) -> None:
    """One pack, several, and trees that no forward holds; three answers of one prompt in one tree or in three."""
    model = model_of(tokenizer, "gpt2")
    rows = answers(5)
    rows += [
        {**rows[0], "completion": f" {text}"} for text in ("rice and rain", "kind", "the cat sat on a mat")
    ]
    trees = trees_of(rows, tokenizer, need="examples")
    apart = trees_of(rows, tokenizer, need="examples", group_prompts=False)
    assert (len(trees), len(apart)) == (5, 8)
    longest = max(tree.num_tokens for tree in trees)
    found = {}
    for name, these, max_tokens in (
        ("whole", trees, 10_000),
        ("apart", apart, 10_000),
        ("packs", trees, longest),
        ("parts", trees, longest * 2 // 3),
    ):
        model.zero_grad(set_to_none=True)
        with scorer_of(model, max_tokens=max_tokens) as scorer:
            found[name] = gradient(scorer, these), gradients(model)
    for figures, grads in found.values():
        assert figures.loss == pytest.approx(found["whole"][0].loss, rel=1e-12)
        assert figures.tokens == found["whole"][0].tokens
        assert gradient_error(grads, found["whole"][1]) < 1e-12


def test_weights_weigh_tokens(tokenizer: Any) -> None:
    model = model_of(tokenizer)
    rows = answers(3)
    rows[1]["weight"] = 3.0
    plain = [losses(model, *raw(tokenizer, row)).detach() for row in rows]
    total = sum(w * float(own.sum()) for w, own in zip((1, 3, 1), plain, strict=True))
    tokens = sum(w * len(own) for w, own in zip((1, 3, 1), plain, strict=True))
    held_out, first = imitate(model, rows, tokenizer, eval_data=rows, eval_every=1).metrics[:2]
    assert first["loss"] == held_out["eval/loss"] == pytest.approx(total / tokens, rel=1e-12)
    assert held_out["eval/tokens"] == first["tokens"] == sum(map(len, plain))


def test_every_turn_of_the_assistant_is_scored_once_in_one_tree(tokenizer: Any) -> None:
    model = model_of(tokenizer)
    (tree,) = trees_of([{"messages": TALK}], tokenizer, need="examples")
    tokens, scored = chat(tokenizer, TALK)
    read = [int(token) for node in tree.nodes for token in node.tokens]
    trained = [bool(flag) for node in tree.nodes for flag in node.scored]
    # What the template writes after the last end of turn is nobody's to read.
    assert (read, trained) == (tokens[: len(read)], scored[: len(read)])
    assert not any(scored[len(read) :])
    assert len(tree.branches) == 1
    expected = losses(model, tokens, scored)
    assert len(expected) == sum(scored)
    first = imitate(model, [{"messages": TALK}], tokenizer).metrics[0]
    assert first["loss"] == pytest.approx(expected.mean().item(), rel=1e-12)
    assert (first["tokens"], first["examples_seen"]) == (sum(scored), 1)


def test_plain_text_is_scored_from_its_first_token_that_can_be(tokenizer: Any) -> None:
    """Without BOS nothing comes before the first token: it is read alone, and that is said."""
    model = model_of(tokenizer)
    text = "the cat sat on a mat"
    tokens = [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    run = imitate(model, [{"text": text}], tokenizer)
    run_loss = losses(model_of(tokenizer), tokens, [True] * len(tokens)).mean()
    assert run.metrics[0]["loss"] == pytest.approx(run_loss.item(), rel=1e-12)
    assert run.metrics[0]["tokens"] == len(tokens) - 1
    assert any("first token unscored 1" in note for note in run.notes)


def test_texts_are_held_out_one_by_one(tokenizer: Any) -> None:
    """They have no prompt in common; once it was said that they all share one."""
    texts = [{"text": row["prompt"] + row["completion"]} for row in answers(10)]
    run = imitate(model_of(tokenizer), texts, tokenizer, eval_share=0.3)
    line = run.metrics[-1]
    assert (line["eval/examples"], line["eval/prompts"], run.metrics[0]["examples_seen"]) == (3, 3, 7)


# Preferences


def test_on_chosen_is_training_on_the_chosen_answers(tokenizer: Any) -> None:
    rows = pairs(6)
    chosen = [{"id": row["id"], "prompt": row["prompt"], "completion": row["chosen"]} for row in rows]
    models = [model_of(tokenizer, "gpt2") for _ in range(2)]
    found = imitate(models[0], rows, tokenizer, on="chosen")
    expected = imitate(models[1], chosen, tokenizer)
    assert found.metrics[0]["loss"] == pytest.approx(expected.metrics[0]["loss"], rel=1e-12)
    assert found.metrics[0]["examples_seen"] == 6
    one, other = weights_of(models[0]), weights_of(models[1])
    assert all(torch.allclose(one[name], other[name], rtol=0, atol=1e-9) for name in one)


def test_of_ranked_answers_the_best_group_is_trained_on(tokenizer: Any) -> None:
    """Tied best ones all, the rest not; ties, `both_bad` and unwanted answers are left out and counted."""
    rows = [
        {"prompt": "the cat", "completions": [" a", " b", " c"], "ranking": [[1], [0, 2]]},
        {"prompt": "a dog", "completions": [" a", " b", " c"], "scores": [2.0, 1.0, 2.0]},
        {"prompt": "rain", "a": " sat", "b": " ran", "winner": "b"},
        {"prompt": "rice", "a": " sat", "b": " ran", "winner": "both_bad"},
        {"prompt": "good", "a": " sat", "b": " ran", "winner": "tie"},
        {"prompt": "bad", "completion": " garden", "label": True},
        {"prompt": "kind", "completion": " garden", "label": False},
        {"prompt": "help", "completion": " wash"},
    ]
    run = imitate(model_of(tokenizer), rows, tokenizer, on="chosen")
    assert run.metrics[0]["examples_seen"] == 1 + 2 + 1 + 1 + 1
    (note,) = [note for note in run.notes if note.startswith("noticed")]
    for part in ("tie left out 1", "both bad left out 1", "unwanted answer left out 1"):
        assert part in note


PREFERENCE = {"prompt": "the cat", "chosen": " sat", "rejected": " ran"}
BAD = {
    "a preference": (PREFERENCE, {}, "row 9: a preference between answers, not one to imitate: --on chosen"),
    "a tie": (
        {"prompt": "p", "a": " x", "b": " y", "winner": "tie"},
        {},
        "row 9: a preference between answers",
    ),
    "nothing says which is best": (
        {"prompt": "the cat", "completions": [" sat", " ran"]},
        {"on": "chosen"},
        "row 9: several answers, and nothing says which is preferred: label them first",
    ),
    "no answer": ({"prompt": "the cat", "completion": None}, {}, "row 9: `completion` is null"),
    "an empty answer": ({"prompt": "the cat", "completion": ""}, {}, "row 9"),
    "no turn of the assistant": (
        {"messages": TALK[:2]},
        {},
        "row 9: `messages` has no turn of the assistant",
    ),
    "a turn without content": ({"messages": [turn("user", "a"), {"role": "assistant"}]}, {}, "row 9"),
    "text that is a number": ({"text": 3}, {}, "row 9"),
    "a prompt alone": ({"prompt": "the cat"}, {}, "row 9"),
    "too long": (
        {"prompt": "the cat", "completion": " rain" * 90},
        {"max_length": 60},
        "row 9: `completion` has",
    ),
}


@pytest.mark.parametrize("name", list(BAD))
def test_rows_that_cannot_be_imitated_are_named_or_counted(name: str, tokenizer: Any) -> None:
    bad, settings, said = BAD[name]
    rows = [*answers(8), bad]
    with pytest.raises(DataError, match=r"1 of 9 rows cannot be used") as caught:
        imitate(model_of(tokenizer), rows, tokenizer, **settings)
    assert said in str(caught.value)
    run = imitate(model_of(tokenizer), rows, tokenizer, skip_bad_rows=True, **settings)
    assert run.metrics[0]["examples_seen"] == 8
    assert any("left out as unusable" in note for note in run.notes)


def test_a_loss_that_is_not_finite_names_its_rows_and_leaves_the_model(tokenizer: Any) -> None:
    model = model_of(tokenizer)
    with torch.no_grad():
        model.lm_head.weight[5] = math.inf
    before = weights_of(model)
    with pytest.raises(WorkError, match=r"the loss is \S+ in the rows row 0\.\d"):
        imitate(model, answers(3), tokenizer)
    assert all(torch.equal(p, before[name]) for name, p in weights_of(model).items())


# Evaluation


def test_perplexity_is_over_all_tokens_by_hand(tokenizer: Any) -> None:
    """Whatever the packs; three answers of one prompt are one cluster."""
    model = model_of(tokenizer)
    held_out = answers(5, seed=3)
    held_out += [{**held_out[0], "completion": f" {text}"} for text in ("rice and rain", "kind")]
    with torch.no_grad():
        plain = [losses(model, *raw(tokenizer, row)) for row in held_out]
    sums, counts = [float(own.sum()) for own in plain], [len(own) for own in plain]
    lines = []
    for max_tokens in (None, 60):
        run = imitate(
            *(model_of(tokenizer), answers(4), tokenizer),
            eval_data=held_out,
            eval_every=1,
            max_tokens=max_tokens,
        )
        lines.append(next(line for line in run.metrics if "eval/loss" in line))
    assert lines[0] == lines[1]
    (line, _) = lines
    assert line["eval/loss"] == pytest.approx(sum(sums) / sum(counts), rel=1e-12)
    assert line["eval/perplexity"] == pytest.approx(math.exp(sum(sums) / sum(counts)), rel=1e-12)
    assert (line["eval/tokens"], line["eval/examples"], line["eval/prompts"]) == (sum(counts), 7, 5)
    expected = ratio_interval(sums, counts, clusters=[0, 1, 2, 3, 4, 0, 0])
    assert (line["eval/loss/low"], line["eval/loss/high"]) == pytest.approx((expected.low, expected.high))
    assert line["eval/perplexity/high"] == pytest.approx(math.exp(line["eval/loss/high"]))


def test_one_example_has_no_interval(tokenizer: Any) -> None:
    run = imitate(model_of(tokenizer), answers(4), tokenizer, eval_data=answers(1, seed=5))
    (line,) = [line for line in run.metrics if "eval/loss" in line]
    assert [line[f"eval/{name}"] for name in ("loss/low", "perplexity/high")] == [None, None]
    assert "1 examples" in run.report()


def test_the_report_is_in_words(tokenizer: Any) -> None:
    run = imitate(model_of(tokenizer), answers(6), tokenizer, eval_data=answers(3, seed=2), eval_every=1)
    first, second = run.report().splitlines()[:2]
    assert first.startswith("1 step, 6 examples, loss ")
    assert second.startswith("held-out perplexity per token ")
    assert "(before: " in second
    assert second.endswith(" tokens of 3 examples")
    assert "pair" not in run.report()


def test_the_best_perplexity_is_the_smallest(tokenizer: Any, tmp_path: Path) -> None:
    run = imitate(
        *(model_of(tokenizer), answers(6), tokenizer),
        out=tmp_path / "run",
        batch_size=2,
        learning_rate=3e-2,
        eval_data=answers(3, seed=2),
        eval_every=1,
        keep_best="eval/perplexity",
    )
    figures = {line["step"]: line["eval/perplexity"] for line in run.metrics if "eval/loss" in line}
    best = min(figures, key=figures.__getitem__)
    assert figures[best] < max(figures.values())
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model", dtype=torch.float64)
    again = imitate(saved, answers(1), tokenizer, eval_data=answers(3, seed=2), eval_every=1)
    assert again.metrics[0]["eval/perplexity"] == pytest.approx(figures[best], rel=1e-12)


# Settings


def test_what_is_no_setting_of_sft_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("beta", "loss", "reference", "label-smoothing", "gamma", "sft-weight", "ties", "preset"):
        assert cli.main(["sft", "--data", "a", f"--{flag}", "1"]) == 2
        assert f"unknown flag --{flag}" in capsys.readouterr().err
    with pytest.raises(UsageError, match="unknown setting `betta`"):
        imitate(None, [], betta=1)


def test_dpo_sends_sft_to_its_own_command(tokenizer: Any) -> None:
    with pytest.raises(UsageError, match=r"--loss sft compares no answers: `likelier sft`"):
        likelier.dpo(model_of(tokenizer), pairs(2), tokenizer=tokenizer, loss="sft")


def test_the_default_rate_is_2e_5_and_ten_times_that_with_lora(tokenizer: Any) -> None:
    for lora_rank, rate in ((None, 2e-5), (2, 2e-4)):
        run = imitate(
            *(model_of(tokenizer), answers(3), tokenizer),
            learning_rate=None,
            warmup_steps=0,
            lora_rank=lora_rank,
        )
        assert run.metrics[0]["learning_rate"] == rate
    again = imitate(run.model, answers(3), tokenizer, learning_rate=None, warmup_steps=0)
    assert again.metrics[0]["learning_rate"] == 2e-4


def test_each_prompt_may_have_weight_1(tokenizer: Any) -> None:
    rows = answers(2)
    rows += [{**rows[0], "completion": " rice"}]
    model = model_of(tokenizer)
    plain = [losses(model, *raw(tokenizer, row)).detach() for row in rows]
    weights = (0.5, 1.0, 0.5)
    total = sum(w * float(own.sum()) for w, own in zip(weights, plain, strict=True))
    tokens = sum(w * len(own) for w, own in zip(weights, plain, strict=True))
    run = imitate(model, rows, tokenizer, weigh="prompts")
    assert run.metrics[0]["loss"] == pytest.approx(total / tokens, rel=1e-12)


# The command


def test_a_run_folder_and_what_is_said(
    tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, data = tmp_path / "run", write_rows(tmp_path / "data.jsonl", answers(12))
    words = (
        f"sft --model {tiny_llama} --data {data} --eval-share 0.25 --eval-every 1 --batch-size 4 --out {out}"
    )
    words += " --precision float32"
    assert cli.main(words.split()) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0].startswith("3 steps, 9 examples, loss ")
    assert captured.out.splitlines()[1].startswith("held-out perplexity per token ")
    (paragraph,) = [line for line in captured.err.splitlines() if " steps of " in line]
    assert paragraph.startswith("3 steps of 4 examples, one epoch of 9 examples in 9 trees; an epoch reads ")
    assert "Full training of" in paragraph
    for word in ("pair", "reference", "against"):
        assert word not in captured.err
    assert "perplexity" in captured.err.splitlines()[-1]
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert set(config) == {name.rstrip("_") for name in SftConfig.model_fields}
    assert (config["learning_rate"], config["on"]) == (2e-5, "completions")
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["stage"], manifest["reference"], manifest["steps"]) == ("sft", "", 3)
    assert set(manifest["inputs"]) == {"train", "eval"}
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    card = (out / "model" / "README.md").read_text()
    assert "with SFT, by likelier" in card
    assert f"| {lines[-1]['eval/perplexity']:.4g} |" in card
    assert f"| {lines[0]['eval/loss']:.4g} |" in card
    examples = (out / "examples.txt").read_text()
    assert examples.count("── example row 0.") == 9
    steps = [line for line in lines if "loss" in line]
    names = {"step", "epoch", "examples_seen", "loss", "perplexity", "tokens", "learning_rate", "grad_norm"}
    names |= {"tokens_per_second", "examples_per_second", "mfu", "flop"}
    assert all(set(line) == names for line in steps)
    assert AutoModelForCausalLM.from_pretrained(out / "model").config.model_type == "llama"


def test_a_runs_own_config_starts_it_anew(tmp_path: Path, tiny_llama: Path) -> None:
    """`on` is a word of YAML's own for true: written and read as the key that it is."""
    data = write_rows(tmp_path / "data.jsonl", pairs(4))
    (tmp_path / "sft.yaml").write_text(f"model: {tiny_llama}\ndata: {data}\non: chosen\nprecision: float32\n")
    for config, out in (("sft.yaml", "a"), ("a/config.yaml", "b")):
        assert cli.main(["sft", "--config", str(tmp_path / config), "--out", str(tmp_path / out)]) == 0
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]


def test_dry_run_and_json(tmp_path: Path, tiny_llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = write_rows(tmp_path / "data.jsonl", answers(6))
    words = ["sft", "--model", str(tiny_llama), "--data", str(data), "--json", "--precision", "float32"]
    assert cli.main([*words, "--dry-run", "--out", str(tmp_path / "run")]) == 0
    assert json.loads(capfd.readouterr().out)["stopped"] == "dry run"
    assert not (tmp_path / "run").exists()
    assert cli.main([*words, "--eval-share", "0.3"]) == 0
    captured = capfd.readouterr()
    assert captured.out.count("\n") == 1
    result = json.loads(captured.out)
    assert (result["step"], result["examples_seen"], result["eval/examples"]) == (1, 4, 2)


def test_trees_over_max_tokens_are_said_to_run_in_parts(
    tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = answers(1)
    rows += [{**rows[0], "completion": " rain and rice and rain"}, {**rows[0], "completion": " kind"}]
    data = write_rows(tmp_path / "data.jsonl", rows)
    (tree,) = trees_of(rows, load_tokenizer(tiny_llama), need="examples")
    limit = str(tree.num_tokens - 1)
    words = ["sft", "--model", str(tiny_llama), "--data", str(data), "--max-tokens", limit, "--dry-run"]
    assert cli.main(words) == 0
    said = capsys.readouterr().err
    assert f"1 of 1 prompts with their answers exceed --max-tokens {limit}: they run in parts" in said
    assert "second forward" not in said


def test_rows_in_every_form_are_the_same_run(tmp_path: Path, tokenizer: Any) -> None:
    from datasets import Dataset

    rows = answers(4)
    path = write_rows(tmp_path / "data.jsonl", rows)
    forms: list[Any] = [rows, str(path), Dataset.from_list(rows)]
    runs = [timeless(imitate(model_of(tokenizer), form, tokenizer).metrics) for form in forms]
    assert all(run == runs[0] for run in runs)
