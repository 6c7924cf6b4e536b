"""`likelier reward`: what a run computes, what it leaves behind, and resuming after a kill."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

import likelier
from likelier import cli
from likelier.errors import UsageError
from likelier.models.heads import value_head
from likelier.models.loading import Loaded
from likelier.models.reward_model import as_reward_model
from likelier.training.run import Run
from tests.training.conftest import no_timing, own_cache
from tests.training.support import metrics_of, model_of, pairs, rankings, write_rows
from tests.training.test_resume import run_all

__all__ = ["no_timing", "own_cache"]


def train(model: Any, rows: Any, tokenizer: Any = None, **config: Any) -> Run:
    settings = {"precision": "float64", "learning_rate": 1e-3, "batch_size": 4, **config}
    return likelier.reward(model, rows, tokenizer=tokenizer, **settings)


def rows_with_chat(count: int) -> list[dict[str, Any]]:
    """Pairs as conversations: prompt a user turn."""
    return [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"].strip()}],
            "rejected": [{"role": "assistant", "content": row["rejected"].strip()}],
        }
        for row in pairs(count)
    ]


def test_a_run_against_a_second_implementation(tokenizer: Any) -> None:
    """Plain transformers, separate rows, plain AdamW: the same losses, step by step, in float64."""
    rows = pairs(8)
    run = train(model_of(tokenizer), rows, tokenizer, warmup_steps=0, centre=False, epochs=2, clip=0)
    plain = as_reward_model(Loaded(model_of(tokenizer), tokenizer, "plain", "memory"))
    optimizer = torch.optim.AdamW(plain.model.parameters(), lr=1e-3, eps=1e-8, weight_decay=0.0)
    order = [line["rewards/chosen"] for line in run.metrics]
    assert len(order) == 4

    def value(row: dict[str, Any], side: str) -> torch.Tensor:
        ids = tokenizer(row["prompt"]).input_ids + tokenizer(row[side]).input_ids + [tokenizer.eos_token_id]
        return plain.model(input_ids=torch.tensor([ids])).logits[0, 0]

    seen = order_of(run, rows, tokenizer)
    for line, batch in zip(run.metrics, seen, strict=True):
        gaps = torch.stack([value(row, "chosen") - value(row, "rejected") for row in batch])
        loss = -torch.nn.functional.logsigmoid(gaps).mean()
        assert line["loss"] == pytest.approx(loss.item(), rel=1e-9)
        assert line["rewards/margins"] == pytest.approx(gaps.mean().item(), rel=1e-6, abs=1e-9)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def order_of(run: Any, rows: list[dict[str, Any]], tokenizer: Any) -> list[list[dict[str, Any]]]:
    """The rows of each step, from the order that the data alone decides."""
    from likelier.data.order import Order
    from likelier.data.reading import load_records
    from likelier.data.splitting import hash_records
    from tests.training.support import trees_of

    records, _ = load_records(rows)
    trees = trees_of(rows, tokenizer)
    order = Order(trees, batch_size=4, seed=0, content_hash=hash_records(records))
    by_id = {row["id"]: row for row in rows}
    return [[by_id[trees[i].id] for i in order.step(step)] for step in range(len(run.metrics))]


def test_the_first_loss_is_log_2_and_the_metrics_are_of_rewards(tokenizer: Any) -> None:
    for precision in ("float32", "bfloat16"):
        model = model_of(tokenizer, precision=precision)
        line = train(model, pairs(8), tokenizer, precision=precision).metrics[0]
        assert line["loss"] == pytest.approx(math.log(2), abs=1e-6)
        assert line["rewards/accuracies"] == 0.5
        assert line["rewards/chosen"] == line["rewards/rejected"] == line["rewards/margins"] == 0.0
        assert line["grad_norm"] > 0
        assert not [name for name in line if "logps" in name]


def test_max_tokens_and_grouped_prompts_change_no_figure(tokenizer: Any) -> None:
    rows = [{**row, "prompt": "one prompt for all of them?"} for row in pairs(6)] + pairs(4, seed=1)
    settings: dict[str, Any] = {"centre": False, "clip": 0}
    whole = train(model_of(tokenizer), rows, tokenizer, **settings)
    parts = train(model_of(tokenizer), rows, tokenizer, max_tokens=60, **settings)
    assert [line["loss"] for line in parts.metrics] == pytest.approx(
        [line["loss"] for line in whole.metrics], rel=1e-9
    )


def test_rankings_by_plackett_luce_and_by_pairs(tokenizer: Any) -> None:
    rows = rankings(4, answers=4)
    listwise = train(model_of(tokenizer), rows, tokenizer, loss="plackett_luce").metrics[0]
    assert listwise["loss"] == pytest.approx(math.log(24))
    pairwise = train(model_of(tokenizer), rows, tokenizer).metrics[0]
    assert pairwise["loss"] == pytest.approx(math.log(2))
    with pytest.raises(UsageError, match="plackett_luce` does not read it; bradley_terry does"):
        train(model_of(tokenizer), rows, tokenizer, loss="plackett_luce", label_smoothing=0.1)


def test_ties_margins_and_weights(tokenizer: Any) -> None:
    """A margin m gives −log σ(−m) at values of 0; a halved tie log 2; a weight of 0 would be refused elsewhere."""
    rows = pairs(4, margin=0.5)
    first = train(model_of(tokenizer), rows, tokenizer).metrics[0]
    assert first["loss"] == pytest.approx(math.log1p(math.exp(0.5)))
    heavy = [{**row, "weight": 3.0} for row in rows[:2]] + [{**row, "margin": 0.0} for row in rows[2:]]
    mixed = train(model_of(tokenizer), heavy, tokenizer).metrics[0]
    assert mixed["loss"] == pytest.approx((6 * math.log1p(math.exp(0.5)) + 2 * math.log(2)) / 8)
    tie = {"prompt": "a cat?", "a": " sat.", "b": " ran.", "winner": "tie"}
    assert train(model_of(tokenizer), [*pairs(3), tie], tokenizer).metrics[-1]["pairs_seen"] == 3
    halved = train(model_of(tokenizer), [*pairs(3), tie], tokenizer, ties="half").metrics[-1]
    assert halved["pairs_seen"] == 4


def test_rewards_are_centred_over_the_data(tokenizer: Any) -> None:
    rows = pairs(30)
    run = train(model_of(tokenizer), rows, tokenizer, epochs=3, learning_rate=3e-3)
    (said,) = [note for note in run.notes if "centred" in note]
    scores = [
        reward
        for line in likelier.score(reward=run.model, data=rows, tokenizer=run.tokenizer, precision="float64")
        for reward in line["rewards"]
    ]
    mean = sum(scores) / len(scores)
    if said.startswith("centred"):
        assert mean == pytest.approx(0.0, abs=1e-9)
        assert run.model.config.reward_mean == 0.0
    else:
        assert mean == pytest.approx(run.model.config.reward_mean)
    plain = train(model_of(tokenizer), rows, tokenizer, epochs=3, learning_rate=3e-3, centre=False)
    assert not [note for note in plain.notes if "centred" in note]


def test_lora_trains_the_head_whole_and_is_saved_merged(tokenizer: Any, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"precision": "float32", "lora_rank": 2, "learning_rate": 1e-2, "epochs": 3}
    start = model_of(tokenizer, precision="float32")
    run = train(start, pairs(12), tokenizer, out=tmp_path / "run", centre=False, **settings)
    trained = {name for name, p in run.model.named_parameters() if p.requires_grad}
    assert {name for name in trained if "lora_" not in name} == {"base_model.model.score.weight"}
    assert not [name for name in trained if "score.lora" in name]
    assert run.metrics[-1]["loss"] < run.metrics[0]["loss"]
    merged = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "run" / "model", dtype=torch.float32
    )
    lines = [
        likelier.score(reward=reward, data=pairs(3), tokenizer=run.tokenizer, precision="float32")
        for reward in (run.model, merged)
    ]
    for one, other in zip(*lines, strict=True):
        assert one["rewards"] == pytest.approx(other["rewards"], abs=1e-5)


def test_the_folder_scores_as_the_model_in_memory_and_as_transformers_alone(
    tokenizer: Any, tmp_path: Path
) -> None:
    rows = rows_with_chat(6)
    settings: dict[str, Any] = {"precision": "float32", "epochs": 4, "learning_rate": 3e-3}
    run = train(model_of(tokenizer, precision="float32"), rows, tokenizer, out=tmp_path / "run", **settings)
    folder = str(tmp_path / "run" / "model")
    data = write_rows(tmp_path / "rows.jsonl", rows)
    words = ["score", "--reward", folder, "--data", str(data), "--precision", "float32"]
    assert cli.main([*words, "--out", str(tmp_path / "scores.jsonl")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    ours = [reward for line in lines for reward in line["rewards"]]
    inside = likelier.score(reward=run.model, data=rows, tokenizer=run.tokenizer, precision="float32")
    assert ours == pytest.approx([reward for line in inside for reward in line["rewards"]], abs=1e-6)
    # As the model card has it.
    theirs = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    texts = [
        tokenizer.apply_chat_template([*row["prompt"], *row[side]], tokenize=False).rstrip()
        for row in rows
        for side in ("chosen", "rejected")
    ]
    batch = run.tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        logits = theirs(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, 0]
    assert logits.tolist() == pytest.approx(ours, abs=1e-5)
    assert max(ours) - min(ours) > 0.01
    card = (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: text-classification" in card
    assert "apply_chat_template(turns, tokenize=False).rstrip()" in card
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["stage"] == "reward"


def test_it_labels_and_its_scores_do_not_depend_on_what_is_beside_them(
    tokenizer: Any, tmp_path: Path
) -> None:
    """Chats and raw text, through `label --with reward`, `score --reward` and one answer at a time."""
    from likelier.engines.rewards import resolve_reward

    run = train(
        model_of(tokenizer, precision="float32"),
        pairs(8),
        tokenizer,
        out=tmp_path / "run",
        precision="float32",
    )
    folder = str(run.folder / "model")  # type: ignore[operator]
    reward = resolve_reward(folder)
    chat = [{"role": "user", "content": "a cat?"}]
    prompts, answers = [chat, "a cat?", chat, chat], ["good", " good", "bad rain", "good"]
    scores = reward(prompts, answers)
    assert scores == [reward([p], [a])[0] for p, a in zip(prompts, answers, strict=True)]
    assert scores[0] == scores[3] != scores[2]
    rows = [
        {"prompt": chat, "completions": ["good", "bad rain"]},
        {"prompt": "a cat?", "completion": " good"},
    ]
    lines = likelier.score(reward=folder, data=rows, precision="float32")
    assert [r for line in lines for r in line["rewards"]] == [scores[0], scores[2], scores[1]]
    samples = write_rows(tmp_path / "samples.jsonl", rows[:1])
    out = tmp_path / "labels.jsonl"
    assert cli.main(["label", str(samples), "--with", "reward", "--reward", folder, "--out", str(out)]) == 0
    (label,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert label["chosen"] == ("good" if scores[0] > scores[2] else "bad rain")


def test_training_goes_on_from_a_reward_model(tokenizer: Any, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"precision": "float32", "epochs": 2, "centre": False}
    first = train(
        model_of(tokenizer, precision="float32"), pairs(8), tokenizer, out=tmp_path / "a", **settings
    )
    again = train(str(tmp_path / "a" / "model"), pairs(8), out=tmp_path / "b", **settings)
    assert again.metrics[0]["loss"] < math.log(2)
    assert again.metrics[-1]["loss"] < first.metrics[-1]["loss"]
    in_memory = train(first.model, pairs(8), first.tokenizer, **settings)
    assert [line["loss"] for line in in_memory.metrics] == [line["loss"] for line in again.metrics]


def test_the_start_in_memory_is_left_as_it_was(tokenizer: Any) -> None:
    model = model_of(tokenizer)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run = train(model, pairs(8), tokenizer)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert value_head(run.model) is not None
    assert value_head(model) is None
    assert not hasattr(model.config, "reward_mean")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--merge", "--lora-rank", "2"], "a reward model is always saved merged"),
        (["--quantize", "4bit", "--lora-rank", "2"], "--quantize is not there for reward models"),
        (["--loss", "sigmoid"], "--loss: input should be 'bradley_terry' or 'plackett_luce'"),
        (["--beta", "0.1"], "unknown flag --beta"),
    ],
)
def test_what_a_reward_model_has_not(words: list[str], told: str, tmp_path: Path, capsys: Any) -> None:
    data = write_rows(tmp_path / "rows.jsonl", pairs(4))
    given = ["reward", "--data", str(data), "--out", str(tmp_path / "run"), *words]
    assert cli.main(given) == 2
    assert told in capsys.readouterr().err


def test_killed_and_resumed_is_never_stopped(tiny_llama: Path, tmp_path: Path) -> None:
    """SIGKILL inside a step of the second epoch, and once the model is centred and written: the same bits."""
    data, cache = write_rows(tmp_path / "rows.jsonl", pairs(10)), str(tmp_path / "cache")
    shared = [
        "reward",
        "--model",
        str(tiny_llama),
        "--data",
        str(data),
        "--precision",
        "float32",
        "--epochs",
        "2",
    ]
    shared += [
        "--batch-size",
        "4",
        "--max-tokens",
        "44",
        "--checkpoint-every",
        "1",
        "--learning-rate",
        "1e-3",
    ]
    shared += ["--eval-share", "0.2", "--eval-every", "2"]
    jobs, kinds = [], {"full": [], "lora": ["--lora-rank", "2"]}
    for kind, more in kinds.items():
        words = [*shared, *more, "--out", str(tmp_path / kind)]
        jobs += [
            {"words": [*shared, *more, "--out", str(tmp_path / f"{kind} whole")], "cache": cache},
            {"words": words, "cache": cache, "at": "second backward", "nth": 3},
            {"words": [*words, "--resume"], "cache": cache, "at": "manifest", "nth": 1},
            {"words": [*words, "--resume"], "cache": cache},
        ]
    results = run_all(jobs)
    assert [result["ended"] for result in results] == [0, -9, -9, 0] * 2, results[0]["errors"]
    for kind in kinds:
        one, other = tmp_path / kind, tmp_path / f"{kind} whole"
        assert metrics_of(one) == metrics_of(other)
        for name in ("model.safetensors", "config.json"):
            assert (one / "model" / name).read_bytes() == (other / "model" / name).read_bytes(), name
        assert load_file(other / "model" / "model.safetensors")["score.weight"].any()
