"""Run folders read by others: which policies they hold, what those cost, and that weights come back as they were."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import likelier
from likelier.errors import ModelError, UsageError
from likelier.models.loading import load_model
from likelier.training.stored import StoredRun, compute_by_step, loaded_policies, stored_run
from tests.training.support import pairs, weights_of

SETTINGS: dict[str, Any] = {
    "precision": "float32", "batch_size": 4, "checkpoint_every": 1, "keep_checkpoints": 9, "learning_rate": 3e-3,
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    likelier.dpo(str(tiny_llama), pairs(8), out=folder / "full", **SETTINGS)
    likelier.dpo(str(tiny_llama), pairs(8), out=folder / "lora", lora_rank=4, **SETTINGS)
    likelier.dpo(str(tiny_llama), pairs(8), out=folder / "merged", lora_rank=4, merge=True, **SETTINGS)
    prompts = [{"prompt": f"{i}: the cat"} for i in range(4)]
    ppo = {"reward": "length", "n": 2, "max_new_tokens": 4, **SETTINGS}
    likelier.ppo(str(tiny_llama), prompts, out=folder / "ppo", **ppo)
    return folder


def policies(run: StoredRun, **settings: Any) -> dict[Any, dict[str, torch.Tensor]]:
    """The weights of each policy, copied, by step and by whether it is the result."""
    options = {"dtype": torch.float32, "device": torch.device("cpu"), **settings}
    return {
        (policy.step, policy.weights is None): weights_of(loaded.model)
        for policy, loaded in loaded_policies(run, run.policies, **options)
    }


@pytest.mark.parametrize("name", ["full", "lora", "merged", "ppo"])
def test_a_checkpoint_has_the_weights_that_it_holds(runs: Path, name: str) -> None:
    run = stored_run(str(runs / name))
    assert [policy.step for policy in run.policies] == [1, 2, 2]
    found = policies(run)
    for step in (1, 2):
        stored = load_file(runs / name / "checkpoints" / f"step-{step}" / "weights.safetensors")
        prefix = "model." if name == "ppo" else ""
        for parameter, tensor in stored.items():
            if not parameter.startswith("value_head."):
                assert torch.equal(found[step, False][parameter.removeprefix(prefix)], tensor)
    assert any(key.startswith("value_head.") for key in stored) == (name == "ppo")
    assert not all(torch.equal(found[1, False][key], found[2, False][key]) for key in found[1, False])
    if name != "merged":
        last, result = found[2, False], found[2, True]
        assert last.keys() == result.keys()
        assert all(torch.equal(last[key], result[key]) for key in last)


def test_a_merged_result_answers_as_its_last_checkpoint(runs: Path) -> None:
    run = stored_run(str(runs / "merged"))
    tokens = torch.arange(20)[None]
    logits = [
        loaded.model(input_ids=tokens).logits.detach()
        for _, loaded in loaded_policies(
            run, run.policies[1:], dtype=torch.float32, device=torch.device("cpu")
        )
    ]
    assert torch.allclose(logits[0], logits[1], atol=1e-5)


def test_weights_are_put_into_the_precision_that_is_asked_for(runs: Path) -> None:
    run = stored_run(str(runs / "full"))
    half = policies(run, dtype=torch.bfloat16)
    whole = policies(run)
    for name, tensor in whole[1, False].items():
        assert torch.equal(half[1, False][name], tensor.bfloat16())


def test_an_unfinished_run_stands_on_what_it_started_from(runs: Path, tmp_path: Path) -> None:
    for name in ("full", "lora"):
        shutil.copytree(runs / name, tmp_path / name)
        shutil.rmtree(tmp_path / name / "model")
        (tmp_path / name / "manifest.json").unlink()
        run = stored_run(str(tmp_path / name))
        assert [policy.name for policy in run.policies] == [f"{run.name}, step 1", f"{run.name}, step 2"]
        expected = policies(stored_run(str(runs / name)))
        found = policies(run)
        assert all(torch.equal(found[2, False][key], expected[2, False][key]) for key in found[2, False])


def test_what_a_run_says_of_itself(runs: Path, tiny_llama: Path) -> None:
    run = stored_run(str(runs / "full"))
    assert run.reference == str(tiny_llama)
    lines = [json.loads(line) for line in (runs / "full" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "pairs_per_second" in line]
    assert run.compute[2]["seconds"] == pytest.approx(sum(4 / line["pairs_per_second"] for line in steps))
    tokens = sum(4 / line["pairs_per_second"] * line["tokens_per_second"] for line in steps)
    assert run.compute[2]["tokens"] == pytest.approx(tokens)
    assert stored_run(str(runs / "ppo")).compute[2]["seconds"] > 0
    alone = stored_run(str(runs / "full" / "model"))
    assert (alone.reference, alone.compute, alone.policies[0].step) == (None, {}, None)


def test_lines_without_rates_cost_nothing() -> None:
    assert (
        compute_by_step(
            [{"step": 1, "eval/loss": 0.5}, {"step": 2, "pairs_seen": 4, "pairs_per_second": 0.0}]
        )
        == {}
    )


def test_a_start_that_was_in_memory(runs: Path, tmp_path: Path) -> None:
    """Its result serves as well; without one there is nothing to put the weights into."""
    folder = tmp_path / "run"
    shutil.copytree(runs / "full", folder)
    text = (folder / "config.yaml").read_text()
    start = next(line for line in text.splitlines() if line.startswith("model:"))
    (folder / "config.yaml").write_text(text.replace(start, "model: <LlamaForCausalLM>"))
    run = stored_run(str(folder))
    assert run.reference is None
    assert len(policies(run)) == 3
    shutil.rmtree(folder / "model")
    with pytest.raises(UsageError, match="started from a model in memory, and its checkpoints need that"):
        policies(stored_run(str(folder)))


def test_what_cannot_be_used_is_named(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs / "lora", folder)
    for step in (1, 2):
        shutil.copy(
            runs / "full" / "checkpoints" / "step-1" / "weights.safetensors",
            folder / "checkpoints" / f"step-{step}",
        )
    with pytest.raises(UsageError, match="step-1 is damaged, or of another model"):
        policies(stored_run(str(folder)))
    shutil.rmtree(folder / "model")
    text = (folder / "config.yaml").read_text()
    start = next(line for line in text.splitlines() if line.startswith("model:"))
    (folder / "config.yaml").write_text(text.replace(start, "model: ./gone"))
    with pytest.raises(
        ModelError, match=r"the checkpoints of .* need the model that it started from: no model at gone"
    ):
        policies(stored_run(str(folder)))
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(UsageError, match="neither a checkpoint nor a model yet"):
        stored_run(str(folder))
    assert load_model(str(runs / "full" / "model")).kind == "folder"
