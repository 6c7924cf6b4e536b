"""The loop: checkpoints kept, the best model, patience, what is said, and what is written at the end."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from likelier.models.loading import load_model
from likelier.models.quiet import quiet_transformers
from likelier.training import opening, preferences
from likelier.training.config import DpoConfig
from likelier.training.estimate import flops
from tests.training.support import metrics_of, model_of, pairs, train, trees_of, weights_of, write_rows


def held_out_losses(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Evaluations give these losses, one after another."""
    waiting = list(losses)
    monkeypatch.setattr(
        preferences,
        "evaluate",
        lambda *_: {"eval/loss": waiting.pop(0), "eval/rewards/accuracies": 0.5, "eval/pairs": 2},
    )


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(3, 40)[None], use_cache=False).logits  # type: ignore[no-any-return]


def test_the_latest_checkpoints_stay(tmp_path: Path, tokenizer: Any) -> None:
    model = model_of(tokenizer)
    train(model, pairs(6), tokenizer, out=tmp_path, epochs=4, checkpoint_every=2, keep_checkpoints=3)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-4", "step-6", "step-8"]


def test_keep_best_saves_the_best_steps_model(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_out_losses(monkeypatch, [0.7, 0.6, 0.4, 0.5, 0.45])
    model, weights = model_of(tokenizer), {}

    def on_step(line: Any) -> None:
        weights[line["step"]] = weights_of(model)

    said: list[str] = []
    run = train(
        *(model, pairs(6), tokenizer),
        out=tmp_path,
        epochs=2,
        eval_every=1,
        eval_data=pairs(2, seed=4),
        keep_best="eval/loss",
        on_step=on_step,
    )
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float64)
    for name, parameter in saved.named_parameters():
        assert torch.equal(parameter, weights[2][name])
    assert any(not torch.equal(weights[4][name], weights[2][name]) for name in weights[2])
    assert torch.equal(logits(run.model), logits(saved))
    assert said == []


def test_the_start_may_be_the_best(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    held_out_losses(monkeypatch, [0.1, 0.6, 0.4])
    start = weights_of(model_of(tokenizer))
    train(
        *(model_of(tokenizer), pairs(6), tokenizer),
        out=tmp_path,
        eval_every=1,
        eval_data=pairs(2, seed=4),
        keep_best="eval/loss",
    )
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float64)
    assert all(torch.equal(parameter, start[name]) for name, parameter in saved.named_parameters())


def test_patience(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    held_out_losses(monkeypatch, [0.7, 0.6, 0.65, 0.61, 0.1, 0.1])
    run = train(
        *(model_of(tokenizer), pairs(6), tokenizer),
        out=tmp_path,
        epochs=4,
        eval_every=1,
        eval_data=pairs(2, seed=4),
        patience=2,
    )
    assert run.result["step"] == 3
    assert run.stopped == "eval/loss has not improved in 2 evaluations"
    assert (tmp_path / "manifest.json").exists()
    assert run.stopped in run.report()


def test_one_evaluation_at_the_last_step(tmp_path: Path, tokenizer: Any) -> None:
    """Also where samples were taken after it."""
    prompts = write_rows(tmp_path / "prompts.jsonl", [{"prompt": "the cat"}])
    run = train(
        *(model_of(tokenizer), pairs(6), tokenizer),
        out=tmp_path / "run",
        eval_every=2,
        eval_data=pairs(2, seed=4),
        sample_prompts=prompts,
        sample_every=2,
    )
    assert [line["step"] for line in run.metrics if "eval/loss" in line] == [0, 2]
    assert {line["step"] for line in run.samples} == {0, 2}


def test_every_step_has_its_line(tmp_path: Path, tokenizer: Any) -> None:
    run = train(model_of(tokenizer), pairs(6), tokenizer, out=tmp_path, beta=0.5)
    names = {
        "step",
        "epoch",
        "pairs_seen",
        "loss",
        "learning_rate",
        "grad_norm",
        "tokens_per_second",
        "mfu",
        "flop",
    }
    names |= {f"rewards/{name}" for name in ("chosen", "rejected", "margins", "accuracies")}
    names |= {"logps/chosen", "logps/rejected", "pairs_per_second"}
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == run.metrics
    assert all(names <= set(line) for line in lines)
    last = lines[-1]
    assert last["rewards/margins"] == pytest.approx(last["rewards/chosen"] - last["rewards/rejected"])
    # The loss is that before the step's update: the first is the reference's own.
    assert lines[0]["loss"] == pytest.approx(math.log(2))


def test_rates_are_of_the_step_alone(tokenizer: Any) -> None:
    """Tokens per pair follow from the two rates of a step, and FLOP per token is one number for a run."""
    rows = pairs(6)
    run = train(model_of(tokenizer), rows, tokenizer, batch_size=2)
    tokens = [line["tokens_per_second"] / line["pairs_per_second"] * 2 for line in run.metrics]
    assert sum(tokens) == pytest.approx(sum(tree.num_tokens for tree in trees_of(rows, tokenizer)))
    per_token = [line["mfu"] / line["tokens_per_second"] for line in run.metrics]
    assert per_token == pytest.approx([per_token[0]] * 3)


def test_the_saved_folder_is_the_policy(tmp_path: Path, tiny_llama: Path) -> None:
    run = train(str(tiny_llama), pairs(6), precision="float32", out=tmp_path / "run")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert torch.equal(logits(saved), logits(run.model))
    start = AutoModelForCausalLM.from_pretrained(tiny_llama)
    assert not torch.equal(logits(saved), logits(start))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(tiny_llama).chat_template


def test_the_saved_configuration_keeps_its_dropout(tmp_path: Path, tokenizer: Any) -> None:
    model = model_of(tokenizer, "gpt2", attn_pdrop=0.5, resid_pdrop=0.25)
    run = train(model, pairs(4), tokenizer, out=tmp_path)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["attn_pdrop"], config["resid_pdrop"]) == (0.5, 0.25)
    assert config["use_cache"] is True
    assert run.model is model


def test_an_adapter_folder_loads_through_peft(tmp_path: Path, tiny_llama: Path) -> None:
    from peft import PeftModel

    rows = pairs(6)
    run = train(str(tiny_llama), rows, precision="float32", lora_rank=2, out=tmp_path / "a")
    assert (tmp_path / "a" / "model" / "adapter_config.json").exists()
    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    with quiet_transformers():  # peft asks for what transformers has renamed
        adapted = PeftModel.from_pretrained(base, tmp_path / "a" / "model").eval()
    assert torch.equal(logits(adapted), logits(run.model.eval()))
    merged = train(str(tiny_llama), rows, precision="float32", lora_rank=2, merge=True, out=tmp_path / "b")
    assert merged.metrics[-1]["loss"] == run.metrics[-1]["loss"]
    full = AutoModelForCausalLM.from_pretrained(tmp_path / "b" / "model")
    assert torch.allclose(logits(full), logits(run.model), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits(full), logits(load_model(tiny_llama).model), rtol=1e-4, atol=1e-5)
    checkpoint = sorted(tmp_path.glob("a/model/*.safetensors"))
    assert [path.name for path in checkpoint] == ["adapter_model.safetensors"]
    # An adapter that is trained further is still an adapter, and its card says so.
    further = train(str(tmp_path / "a" / "model"), rows, precision="float32", out=tmp_path / "c")
    assert further.metrics
    card = (tmp_path / "c" / "model" / "README.md").read_text()
    assert "peft" in card.lower()


def test_a_manifest_names_start_and_reference_by_content(tmp_path: Path, tokenizer: Any) -> None:
    """Whatever trains, and in whatever precision: two runs of one model are comparable, those of two are not."""
    ways: dict[str, dict[str, Any]] = {
        "full": {},
        "adapter": {"lora_rank": 2},
        "half": {"precision": "bfloat16"},
        "other": {},
    }
    for name, settings in ways.items():
        model = model_of(tokenizer, precision="float32")
        if name == "other":
            model.lm_head.weight.data[5] *= 1.5
        train(model, pairs(2), tokenizer, **{"precision": "float32", "out": tmp_path / name, **settings})
    told = {name: json.loads((tmp_path / name / "manifest.json").read_text()) for name in ways}
    hashes = {name: (one["start"], one["reference"]) for name, one in told.items()}
    assert hashes["full"] == hashes["adapter"] == hashes["half"] != hashes["other"]
    assert hashes["full"][0] == hashes["full"][1]


def test_lora_trains_at_ten_times_the_rate(tokenizer: Any) -> None:
    run = train(model_of(tokenizer), pairs(3), tokenizer, lora_rank=2, learning_rate=None, warmup_steps=0)
    assert run.metrics[0]["learning_rate"] == pytest.approx(1e-5)
    again = train(run.model, pairs(3), tokenizer, learning_rate=None, warmup_steps=0)
    assert again.metrics[0]["learning_rate"] == pytest.approx(1e-5)
    run = train(model_of(tokenizer), pairs(3), tokenizer, learning_rate=None, warmup_steps=0)
    assert run.metrics[0]["learning_rate"] == pytest.approx(1e-6)


def test_config_manifest_and_card(tmp_path: Path, tiny_llama: Path) -> None:
    data = write_rows(tmp_path / "data.jsonl", pairs(6))
    run = train(
        str(tiny_llama), str(data), precision="float32", out=tmp_path / "run", eval_data=pairs(2, seed=3)
    )
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert set(config) == {name.rstrip("_") for name in DpoConfig.model_fields}
    assert (config["learning_rate"], config["warmup_steps"], config["precision"]) == (1e-3, 0, "float32")
    assert isinstance(config["max_tokens"], int)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert set(manifest["inputs"]) == {"train", "eval"}
    assert all(len(value) == 64 for value in manifest["inputs"].values())
    assert manifest["versions"]["torch"] == torch.__version__
    assert manifest["steps"] == 2
    assert manifest["result"] == json.loads(json.dumps(run.result))
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert manifest["inputs"]["train"] in card
    assert manifest["inputs"]["eval"] in card
    assert "beta" in card
    (line,) = [line for line in run.metrics if "eval/loss" in line]
    for name in ("eval/loss", "eval/rewards/accuracies", "eval/rewards/margins"):
        assert f"| {line[name]:.4g} |" in card


def test_examples_show_the_trained_tokens(tmp_path: Path, tokenizer: Any) -> None:
    train(model_of(tokenizer), pairs(12), tokenizer, out=tmp_path, max_steps=1)
    text = (tmp_path / "examples.txt").read_text()
    assert pairs(12)[0]["chosen"].strip() in text


def test_resume_without_a_checkpoint_starts_at_step_0(tmp_path: Path, tiny_llama: Path) -> None:
    train(str(tiny_llama), pairs(6), precision="float32", out=tmp_path / "whole")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "loss": 5.0}\n{"step": 2, "lo')
    run = train(str(tiny_llama), pairs(6), precision="float32", out=tmp_path / "run", resume=True)
    assert metrics_of(tmp_path / "run") == metrics_of(tmp_path / "whole")
    assert [line["step"] for line in run.metrics] == [1, 2]


def test_resume_on_a_finished_run_says_so(tmp_path: Path, tiny_llama: Path, capsys: Any) -> None:
    from likelier import cli

    data = write_rows(tmp_path / "data.jsonl", pairs(3))
    words = ["dpo", "--model", str(tiny_llama), "--data", str(data), "--out", str(tmp_path / "run")]
    assert cli.main(words) == 0
    before = (tmp_path / "run" / "manifest.json").read_text()
    capsys.readouterr()
    assert cli.main([*words, "--resume"]) == 0
    assert "is finished; nothing is left to do" in capsys.readouterr().err
    assert (tmp_path / "run" / "manifest.json").read_text() == before
    assert cli.main(words) == 2
    assert "exists already" in capsys.readouterr().err
    assert cli.main([*words, "--overwrite"]) == 0


def test_max_tokens_is_chosen_once(tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less memory is free when the run is resumed: the split of a step stays as it was."""
    settings = {"precision": "float32", "epochs": 2, "out": tmp_path}
    monkeypatch.setattr(opening, "choose_max_tokens", lambda *_, **__: 150)
    train(str(tiny_llama), pairs(6), **settings, on_step=lambda line: line["step"] == 2)
    (tmp_path / "manifest.json").unlink()
    monkeypatch.setattr(opening, "choose_max_tokens", lambda *_, **__: 90)
    train(str(tiny_llama), pairs(6), **settings, resume=True)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["max_tokens"] == 150


def test_the_arithmetic_so_far_counts_the_reference_and_every_step(tokenizer: Any) -> None:
    """Two epochs over the same trees: the reference reads each once, every step reads its own with a gradient."""
    rows = pairs(6)
    run = train(model_of(tokenizer), rows, tokenizer, epochs=2, batch_size=2)
    trees = trees_of(rows, tokenizer)
    once, trained = (flops(run.model, trees, training=training) for training in (False, True))
    assert run.metrics[-1]["flop"] == pytest.approx(once + 2 * trained)
