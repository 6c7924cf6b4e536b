"""What a run will do, and what it must be the same as to be resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from likelier.errors import UsageError
from likelier.training import plan
from likelier.training.config import UPDATE_FREE, DpoConfig, RewardConfig, SftConfig, TrainingConfig
from likelier.training.plan import Plan
from likelier.training.ppo_config import PpoConfig
from likelier.training.preparation import load_data
from tests.training.support import contents, metrics_of, pairs, train, write_rows


def plan_of(tokenizer: Any, count: int = 25, **settings: Any) -> Plan:
    config = DpoConfig.build({"data": ["<rows>"], "batch_size": 4, **settings})
    return Plan.of(config, load_data(config, pairs(count), None, tokenizer, need="pairs"))


def test_max_steps_ends_a_run_and_moves_no_learning_rate(tokenizer: Any) -> None:
    whole = plan_of(tokenizer, schedule="cosine", epochs=4, learning_rate=1.0)
    short = plan_of(tokenizer, schedule="cosine", epochs=4, learning_rate=1.0, max_steps=9)
    assert (whole.total, short.total) == (28, 9)
    assert whole.warmup == short.warmup == 2
    assert [short.rate(s) for s in range(9)] == [whole.rate(s) for s in range(9)]
    assert plan_of(tokenizer, max_steps=100).total == 7


def test_only_visited_trees_are_scored(tokenizer: Any) -> None:
    plan = plan_of(tokenizer, max_steps=3)
    expected = sorted(i for step in range(3) for i in plan.order.step(step))
    assert plan.visited() == expected
    assert len(expected) == 12
    assert plan_of(tokenizer, epochs=2).visited() == list(range(25))
    assert plan_of(tokenizer, epochs=2, max_steps=7).visited() == list(range(25))


def test_epochs_are_counted_by_steps(tokenizer: Any) -> None:
    plan = plan_of(tokenizer, epochs=2)
    assert [plan.epoch(s) for s in (0, 6, 7, 13)] == pytest.approx([1 / 7, 1, 8 / 7, 2])


def test_the_paper() -> None:
    """arXiv 2305.18290, appendix B; what is said beside it wins."""
    paper = DpoConfig.build({"data": ["d"], "preset": "paper"})
    assert (paper.optimizer, paper.learning_rate, paper.warmup_steps) == ("rmsprop", 1e-6, 150)
    assert (paper.clip, paper.batch_size, paper.beta, paper.schedule) == (10.0, 64, 0.1, "constant")
    assert DpoConfig.build({"data": ["d"], "preset": "paper", "beta": 0.5}).beta == 0.5


def test_defaults_are_the_designs() -> None:
    config = DpoConfig.build({"data": ["d"]})
    assert (config.beta, config.loss, config.optimizer, config.clip) == (0.1, "sigmoid", "adamw", 1.0)
    assert (config.batch_size, config.epochs, config.seed, config.schedule) == (64, 1, 0, "constant")
    assert config.keep_checkpoints == 2


def stopped_run(tmp_path: Path, model: Path, rows: Any) -> dict[str, Any]:
    """A run that was stopped after its second step, and the settings it began with."""
    settings: dict[str, Any] = {"out": tmp_path / "run", "precision": "float32", "epochs": 2}
    data = str(write_rows(tmp_path / "data.jsonl", rows))
    train(str(model), data, **settings, on_step=lambda line: line["step"] == 2)
    (tmp_path / "run" / "manifest.json").unlink()
    return settings | {"resume": True}


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"beta": 0.2}, "--beta was 0.1 .* and is 0.2 now"),
        ({"learning_rate": 2e-3}, "--learning-rate was 0.001 .* and is 0.002 now"),
        ({"loss": "ipo"}, "--loss"),
        ({"seed": 1}, "--seed"),
        ({"batch_size": 4}, "--batch-size"),
        ({"epochs": 3}, "--epochs"),
        ({"max_length": 100}, "--max-length"),
        ({"optimizer": "rmsprop"}, "--optimizer"),
        ({"lora_rank": 2}, "--lora-rank"),
        ({"precision": "bfloat16"}, "--precision"),
        ({"clip": 0.5}, "--clip"),
        ({"weigh": "prompts"}, "--weigh"),
    ],
)
def test_what_would_change_the_update_is_refused(
    change: dict[str, Any], flag: str, tmp_path: Path, tiny_llama: Path
) -> None:
    settings = stopped_run(tmp_path, tiny_llama, pairs(6))
    before = contents(tmp_path / "run" / "checkpoints")
    with pytest.raises(UsageError, match=flag):
        train(str(tiny_llama), str(tmp_path / "data.jsonl"), **settings | change)
    assert contents(tmp_path / "run" / "checkpoints") == before
    assert len(metrics_of(tmp_path / "run")) == 2


def test_what_was_changed_is_named_not_what_follows_from_it(tmp_path: Path, tiny_llama: Path) -> None:
    """The default learning rate of an adapter is another one."""
    settings: dict[str, Any] = {"out": tmp_path, "precision": "float32", "learning_rate": None}
    data = str(write_rows(tmp_path.with_suffix(".jsonl"), pairs(6)))
    train(str(tiny_llama), data, **settings, on_step=lambda line: line["step"] == 1)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(UsageError, match="--lora-rank was None when this run began and is 2 now"):
        train(str(tiny_llama), data, **settings, lora_rank=2, resume=True)


def test_changed_data_and_another_model_are_refused(tmp_path: Path, tiny_llama: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    settings = stopped_run(tmp_path, tiny_llama, pairs(6))
    data = tmp_path / "data.jsonl"
    whole = data.read_text()
    data.write_text(whole.replace("!", "?", 1))
    with pytest.raises(UsageError, match=r"content of --data .* has changed"):
        train(str(tiny_llama), str(data), **settings)
    data.write_text(whole)
    other = Path(shutil.copytree(tiny_llama, tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"][1] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    for changed in ({"model": str(other)}, {"model": str(tiny_llama), "reference": str(other)}):
        with pytest.raises(UsageError, match="content of --model or --reference has changed"):
            train(changed.pop("model"), str(data), **settings, **changed)
    # The same name, other weights.
    start = stopped_run(tmp_path / "second", other, pairs(6)) if (tmp_path / "second").mkdir() is None else {}
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match="content of --model or --reference has changed"):
        train(str(other), str(tmp_path / "second" / "data.jsonl"), **start)


def test_what_does_not_change_the_update_may_change(tmp_path: Path, tiny_llama: Path) -> None:
    settings = stopped_run(tmp_path, tiny_llama, pairs(6))
    whole = train(str(tiny_llama), pairs(6), precision="float32", epochs=2)
    run = train(
        str(tiny_llama),
        str(tmp_path / "data.jsonl"),
        **settings,
        max_tokens=80,
        eval_data=pairs(2, seed=3),
        eval_every=1,
        keep_checkpoints=1,
        checkpoint_every=1,
        gradient_checkpointing=True,
        max_steps=4,
        preset=None,
    )
    steps = [line for line in run.metrics if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    assert [line["loss"] for line in steps] == pytest.approx(
        [line["loss"] for line in whole.metrics], rel=1e-4
    )
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-4"]


def test_data_and_model_are_held_to_their_content_not_to_their_paths(
    tmp_path: Path, tiny_llama: Path
) -> None:
    import shutil

    settings = stopped_run(tmp_path, tiny_llama, pairs(6))
    data = shutil.move(tmp_path / "data.jsonl", tmp_path / "moved.jsonl")
    model = shutil.copytree(tiny_llama, tmp_path / "copy")
    assert len(train(str(model), str(data), **settings).metrics) == 4


def test_another_chat_template_is_other_data(tmp_path: Path, tiny_llama: Path) -> None:
    """The same rows and weights, and yet other tokens."""
    import shutil

    model = Path(shutil.copytree(tiny_llama, tmp_path / "model"))
    rows = [row | {"prompt": [{"role": "user", "content": row["prompt"]}]} for row in pairs(6)]
    for row in rows:
        for name in ("chosen", "rejected"):
            row[name] = [{"role": "assistant", "content": row[name]}]
    settings = stopped_run(tmp_path, model, rows)
    template = model / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>", "<|im_start|> "))
    with pytest.raises(UsageError, match=r"content of --data \(or how it is tokenised\) has changed"):
        train(str(model), str(tmp_path / "data.jsonl"), **settings)


def test_another_machine_is_told_of_and_not_refused(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = stopped_run(tmp_path, tiny_llama, pairs(6))
    whole = train(str(tiny_llama), pairs(6), precision="float32", epochs=2)
    monkeypatch.setattr(plan, "arithmetic", lambda _: "another processor")
    run = train(str(tiny_llama), str(tmp_path / "data.jsonl"), **settings)
    assert [line["loss"] for line in run.metrics] == [line["loss"] for line in whole.metrics]
    assert any("another number of threads" in note and "not bit for bit" in note for note in run.notes)
    assert not any("another number of threads" in note for note in whole.notes)


def test_a_default_written_out_is_no_change(tmp_path: Path, tiny_llama: Path) -> None:
    settings = stopped_run(tmp_path, tiny_llama, pairs(6)) | {"beta": 0.1, "clip": 1.0, "learning_rate": 1e-3}
    assert len(train(str(tiny_llama), str(tmp_path / "data.jsonl"), **settings).metrics) == 4


def test_settings_that_enter_no_update_exist() -> None:
    stages: tuple[type[TrainingConfig], ...] = (DpoConfig, PpoConfig, RewardConfig, SftConfig)
    read = {field for stage in stages for field in stage.model_fields}
    assert read > UPDATE_FREE
