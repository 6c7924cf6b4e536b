"""`likelier.dpo`: models, data and callbacks in every form, and what it gives back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import likelier
from likelier.errors import DataError, ModelError, UsageError
from likelier.models.adapters import add_lora
from tests.training.conftest import no_timing, own_cache
from tests.training.support import model_of, pairs, rankings, timeless, train, weights_of, write_rows

__all__ = ["no_timing", "own_cache"]


def losses(run: likelier.Run) -> list[float]:
    return [line["loss"] for line in run.metrics]


def test_data_in_every_form_is_the_same_run(tmp_path: Path, tokenizer: Any) -> None:
    from datasets import Dataset

    rows = pairs(6)
    path = write_rows(tmp_path / "data.jsonl", rows)
    first, second = write_rows(tmp_path / "1.jsonl", rows[:2]), write_rows(tmp_path / "2.jsonl", rows[2:])
    forms: list[Any] = [rows, str(path), path, Dataset.from_list(rows), [str(first), second]]
    runs = [timeless(train(model_of(tokenizer), form, tokenizer).metrics) for form in forms]
    assert all(run == runs[0] for run in runs)


def test_models_in_every_form_are_the_same_run(tmp_path: Path, tiny_llama: Path, tokenizer: Any) -> None:
    settings = {"precision": "float32"}
    expected = losses(train(str(tiny_llama), pairs(4), **settings))
    assert losses(train(tiny_llama, pairs(4), **settings)) == expected
    module = model_of(tokenizer, precision="float32", max_position_embeddings=512)
    run = train(module, pairs(4), tokenizer, **settings)
    assert losses(run) == expected
    assert run.model is module


def test_a_peft_model(tokenizer: Any) -> None:
    model = add_lora(model_of(tokenizer), rank=2, seed=0)
    base = weights_of(model_of(tokenizer))
    run = train(model, pairs(4), tokenizer)
    assert run.model is model
    adapters = [p for name, p in model.named_parameters() if "lora_B" in name]
    assert any(p.abs().max() > 0 for p in adapters)
    plain = {name.replace(".base_layer", ""): p for name, p in model.get_base_model().named_parameters()}
    assert all(torch.equal(plain[name], before) for name, before in base.items())


def test_a_model_in_memory_needs_its_tokenizer(tokenizer: Any) -> None:
    with pytest.raises(ModelError, match="needs its tokenizer"):
        likelier.dpo(model_of(tokenizer), pairs(2))


def test_without_out_no_file_is_written_and_the_model_has_its_own_forwards_back(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = model_of(tokenizer)
    attention = model.config._attn_implementation
    forwards = {name: module.forward.__func__ for name, module in model.named_modules()}
    train(model, pairs(4), tokenizer)
    assert list(tmp_path.iterdir()) == []
    assert {name: module.forward.__func__ for name, module in model.named_modules()} == forwards
    assert model.config._attn_implementation == attention
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_model_in_memory_is_left_as_it_was_but_for_its_weights(checkpointing: bool, tokenizer: Any) -> None:
    model = model_of(tokenizer, "gpt2", attn_pdrop=0.5)
    train(model, pairs(4), tokenizer, gradient_checkpointing=checkpointing)
    assert model.config.attn_pdrop == 0.5
    assert model.transformer.h[0].attn.attn_dropout.p == 0.5
    assert not model.training
    assert not model.is_activation_checkpointing


def test_what_its_owner_froze_stays_frozen_unless_all_of_it_is(tokenizer: Any) -> None:
    for frozen in (["model.embed_tokens.weight"], None):
        model = model_of(tokenizer)
        before = weights_of(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(frozen is not None and name not in frozen)
        train(model, pairs(4), tokenizer)
        same = [name for name, weight in weights_of(model).items() if torch.equal(weight, before[name])]
        assert same == (frozen or [])


def test_activations_are_recomputed_where_asked(tokenizer: Any) -> None:
    """transformers would take the flag and do nothing outside training mode."""
    calls = []
    for asked in (False, True):
        model = model_of(tokenizer)
        passes: list[bool] = []
        attention = model.model.layers[0].self_attn
        attention.register_forward_pre_hook(lambda *_, passes=passes: passes.append(torch.is_grad_enabled()))
        train(model, pairs(4), tokenizer, batch_size=4, gradient_checkpointing=asked)
        calls.append(sum(passes))
    assert calls == [1, 2]


def test_a_run_that_fails_gives_the_model_back_too(tokenizer: Any) -> None:
    model = model_of(tokenizer, "gpt2", attn_pdrop=0.5)
    forwards = {name: module.forward.__func__ for name, module in model.named_modules()}

    def broken(*_: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(UsageError, match="--loss broken failed with KeyError: 'mine'"):
        train(model, pairs(4), tokenizer, loss=broken)
    assert {name: module.forward.__func__ for name, module in model.named_modules()} == forwards
    assert model.config.attn_pdrop == 0.5


def test_settings_that_fail_give_the_model_back_too(tokenizer: Any) -> None:
    model = model_of(tokenizer, "gpt2", attn_pdrop=0.5)
    with pytest.raises(ModelError, match="LoRA cannot be added"):
        train(model, pairs(4), tokenizer, lora_rank=2, lora_targets=["nope"])
    assert model.config.attn_pdrop == 0.5
    assert model.transformer.h[0].attn.attn_dropout.p == 0.5


@pytest.mark.parametrize(
    ("weights", "precision"),
    [("float64", "float32"), ("float64", "bfloat16"), ("float32", "float64")],
)
def test_a_model_in_memory_of_another_precision_is_refused(
    weights: str, precision: str, tokenizer: Any
) -> None:
    """Training it all the same would be in neither."""
    with pytest.raises((UsageError, ModelError), match=precision):
        train(model_of(tokenizer, precision=weights), pairs(2), tokenizer, precision=precision)


def test_half_precision_weights_are_refused_as_masters(tokenizer: Any) -> None:
    model = model_of(tokenizer).bfloat16()
    with pytest.raises((UsageError, ModelError), match="float32"):
        train(model, pairs(2), tokenizer, precision="bfloat16")


def test_on_step_may_return_metrics(tmp_path: Path, tokenizer: Any) -> None:
    seen = []

    def on_step(line: dict[str, Any]) -> dict[str, float]:
        seen.append(line["step"])
        return {"mine": line["step"] * 10.0}

    run = train(model_of(tokenizer), pairs(6), tokenizer, out=tmp_path, on_step=on_step)
    assert seen == [1, 2]
    assert [line["mine"] for line in run.metrics] == [10.0, 20.0]
    assert '"mine": 20.0' in (tmp_path / "metrics.jsonl").read_text()


def test_on_step_returns_numbers_and_nothing_else(tokenizer: Any) -> None:
    answer = {"mine": torch.tensor(2.0)}
    assert train(model_of(tokenizer), pairs(2), tokenizer, on_step=lambda _: answer).metrics[0]["mine"] == 2.0
    with pytest.raises(UsageError, match="on_step must return numbers by name"):
        train(model_of(tokenizer), pairs(2), tokenizer, on_step=lambda _: {"mine": "many"})


def test_on_step_may_ask_to_stop(tmp_path: Path, tokenizer: Any) -> None:
    run = train(
        model_of(tokenizer), pairs(9), tokenizer, out=tmp_path, on_step=lambda line: line["step"] == 2
    )
    assert [line["step"] for line in run.metrics] == [1, 2]
    assert run.stopped == "asked by on_step"
    assert (tmp_path / "model" / "model.safetensors").exists()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-2"]


def test_the_report_is_in_words(tokenizer: Any) -> None:
    run = train(model_of(tokenizer), pairs(6), tokenizer, eval_data=pairs(3, seed=2), eval_every=1)
    text = run.report()
    assert text.startswith("2 steps, 6 pairs, loss ")
    assert "held-out accuracy of the implicit reward" in text
    assert "(before: 0.500" in text
    assert "3 pairs" in text


def test_settings_are_those_of_the_command(tokenizer: Any) -> None:
    with pytest.raises(UsageError, match="unknown setting `betta`; did you mean `beta`"):
        train(model_of(tokenizer), pairs(2), tokenizer, betta=0.5)
    with pytest.raises(UsageError, match="--beta"):
        train(model_of(tokenizer), pairs(2), tokenizer, beta=-1.0)
    with pytest.raises(UsageError, match=r"loss.*sigmiod.*sigmoid"):
        train(model_of(tokenizer), pairs(2), tokenizer, loss="sigmiod")
    with pytest.raises(UsageError, match=r"gamma.*simpo"):
        train(model_of(tokenizer), pairs(2), tokenizer, gamma=1.0)
    with pytest.raises(UsageError, match="--beta: the loss `orpo` does not read it"):
        train(model_of(tokenizer), pairs(2), tokenizer, loss="orpo", beta=0.1)
    assert train(model_of(tokenizer), pairs(2), tokenizer, loss="orpo").metrics


def test_no_rows(tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"row"):
        train(model_of(tokenizer), [], tokenizer)


def test_unusable_rows_are_refused_or_counted(tokenizer: Any) -> None:
    bad = {"prompt": "a cat", "chosen": " sat", "rejected": " sat"}
    with pytest.raises(DataError, match=r"row 5"):
        train(model_of(tokenizer), [*pairs(4), bad], tokenizer)
    run = train(model_of(tokenizer), [*pairs(4), bad], tokenizer, skip_bad_rows=True, batch_size=64)
    assert run.metrics[0]["pairs_seen"] == 4
    assert any("left out as unusable" in note and "1" in note for note in run.notes)


def test_a_prompt_longer_than_the_context_is_named(tokenizer: Any) -> None:
    """GPT-2 has 256 positions."""
    long = {"prompt": "rain " * 400, "chosen": " a", "rejected": " b"}
    with pytest.raises((DataError, ModelError, UsageError), match=r"256.*--max-length"):
        train(model_of(tokenizer, "gpt2"), [long], tokenizer)
    with pytest.raises((DataError, ModelError, UsageError), match=r"256.*--max-length"):
        train(model_of(tokenizer, "gpt2"), pairs(2), tokenizer, eval_data=[long])


def test_a_tree_that_no_forward_can_hold_is_named(tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"row 0\.\d.*--max-tokens"):
        train(model_of(tokenizer), pairs(3), tokenizer, max_tokens=5)


def test_rankings_train_pairwise_and_as_rankings(tokenizer: Any) -> None:
    pairwise = train(model_of(tokenizer), rankings(3), tokenizer, batch_size=64)
    assert pairwise.metrics[0]["pairs_seen"] == 18
    whole = train(model_of(tokenizer), rankings(3), tokenizer, batch_size=64, loss="plackett_luce")
    assert whole.metrics[0]["pairs_seen"] == 18
    with pytest.raises(DataError, match="scores"):
        train(model_of(tokenizer), rankings(3), tokenizer, loss="listwise")


def test_the_reference_may_be_the_model_itself(tokenizer: Any) -> None:
    model = model_of(tokenizer)
    named = train(model, pairs(4), tokenizer, reference=model)
    assert losses(named) == losses(train(model_of(tokenizer), pairs(4), tokenizer))


@pytest.mark.parametrize(
    ("loss", "setting"),
    [
        ("sigmoid", {"label_smoothing": 0.2}),
        ("robust", {"label_smoothing": 0.2}),
        ("simpo", {"gamma": 2.0}),
        ("orpo", {"odds_weight": 1.0}),
        ("unlikelihood", {"unlikelihood_weight": 1.0}),
        ("sigmoid", {"sft_weight": 0.5}),
    ],
)
def test_a_setting_of_a_loss_reaches_the_gradient(
    tokenizer: Any, loss: str, setting: dict[str, float]
) -> None:
    plain, set_ = (
        train(model_of(tokenizer), pairs(3), tokenizer, loss=loss, max_steps=1, **given).metrics[0][
            "grad_norm"
        ]
        for given in ({}, setting)
    )
    assert set_ != pytest.approx(plain, rel=1e-3)
