"""Folders that other tools load; written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from likelier.errors import WorkError
from likelier.models.adapters import add_lora
from likelier.models.identity import weights_digest
from likelier.models.noise import silence_noise
from likelier.models.saving import save_model
from tests.models.families import tiny

IDS = torch.arange(3, 30)[None]
CHAT = [{"role": "user", "content": "rain?"}]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_neox", "mixtral", "phi3"])
def test_transformers_loads_what_was_saved(family: str, tmp_path: Path, tokenizer: Any) -> None:
    model = tiny(family, dtype=torch.float32)
    model.generation_config.top_p = 0.25
    model.generation_config.do_sample = True
    before = model.config.to_dict()
    silenced = silence_noise(model)
    folder = save_model(model, tokenizer, tmp_path / "deep" / "model", card="# card\n", silenced=silenced)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert weights_digest(loaded) == weights_digest(model)
    stored = AutoConfig.from_pretrained(folder).to_dict()
    ignored = {"_name_or_path", "architectures", "transformers_version"}
    assert {k: v for k, v in stored.items() if k not in ignored} == {
        k: v for k, v in before.items() if k not in ignored
    }
    assert model.config.use_cache is False
    assert GenerationConfig.from_pretrained(folder).top_p == 0.25
    restored = AutoTokenizer.from_pretrained(folder)
    assert restored.apply_chat_template(CHAT) == tokenizer.apply_chat_template(CHAT)
    assert (folder / "README.md").read_text() == "# card\n"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model"]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_another_dtype_and_tied_weights_once(family: str, tmp_path: Path, tokenizer: Any) -> None:
    model = tiny(family, dtype=torch.float32)
    folder = save_model(model, tokenizer, tmp_path / "m", card="", dtype=torch.bfloat16)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert loaded.dtype == torch.bfloat16
    for stored, original in zip(loaded.parameters(), model.parameters(), strict=True):
        assert torch.equal(stored, original.bfloat16())
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert ("lm_head.weight" in names) == (family == "llama")


def adapted_llama() -> Any:
    adapted = add_lora(tiny("llama", dtype=torch.float32), rank=2, seed=0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)
    return adapted.eval()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_is_saved_as_one_and_merged_on_request(tmp_path: Path, tokenizer: Any) -> None:
    adapted = adapted_llama()
    logits, before = adapted(input_ids=IDS).logits, weights_digest(adapted)
    folder = save_model(adapted, tokenizer, tmp_path / "adapter", card="# ours\n")
    assert not (folder / "model.safetensors").exists()
    assert (folder / "README.md").read_text() == "# ours\n"
    loaded = PeftModel.from_pretrained(tiny("llama", dtype=torch.float32), folder).eval()
    assert torch.equal(loaded(input_ids=IDS).logits, logits)
    merged = save_model(adapted, tokenizer, tmp_path / "merged", card="", merge=True)
    full = AutoModelForCausalLM.from_pretrained(merged)
    assert torch.allclose(full(input_ids=IDS).logits, logits, atol=1e-5)
    assert weights_digest(adapted) == before


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full: .*free space"),
        (errno.EACCES, "no permission; choose another folder"),
        (errno.EROFS, "no permission; choose another folder"),
        (errno.EIO, "could not be written"),
    ],
)
def test_a_failing_disk_leaves_the_older_folder(
    number: int, message: str, tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = tiny("llama", dtype=torch.float32)
    folder = save_model(older, tokenizer, tmp_path / "m", card="older")

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("likelier.models.folders.os.fsync", fail)
    with pytest.raises(WorkError, match=message) as caught:
        save_model(tiny("llama", seed=1, dtype=torch.float32), tokenizer, folder, card="newer")
    assert str(folder) in str(caught.value)
    assert weights_digest(AutoModelForCausalLM.from_pretrained(folder)) == weights_digest(older)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_rename_that_fails_puts_the_older_folder_back(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = tiny("llama", dtype=torch.float32)
    folder = save_model(older, tokenizer, tmp_path / "m", card="older")
    rename = Path.rename

    def fail_for_the_newer(path: Path, target: Path) -> Path:
        if path.name.endswith(".new"):
            raise OSError(errno.EACCES, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_newer)
    with pytest.raises(WorkError, match="no permission"):
        save_model(tiny("llama", seed=1, dtype=torch.float32), tokenizer, folder, card="newer")
    assert weights_digest(AutoModelForCausalLM.from_pretrained(folder)) == weights_digest(older)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_an_older_folder_is_replaced_whole(tmp_path: Path, tokenizer: Any) -> None:
    folder = save_model(tiny("llama", dtype=torch.float32), tokenizer, tmp_path / "m", card="older")
    (folder / "left-over.txt").write_text("x")
    newer = tiny("llama", seed=1, dtype=torch.float32)
    save_model(newer, tokenizer, folder, card="newer")
    assert weights_digest(AutoModelForCausalLM.from_pretrained(folder)) == weights_digest(newer)
    assert not (folder / "left-over.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_disk_that_is_full_while_weights_are_written(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    model = tiny("llama", dtype=torch.float32)

    def fail(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(model, "save_pretrained", fail)
    with pytest.raises(WorkError, match="the disk is full"):
        save_model(model, tokenizer, tmp_path / "m", card="")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(WorkError, match="could not be written"):
        save_model(tiny("llama", dtype=torch.float32), tokenizer, tmp_path / "file" / "m", card="")


def test_a_bug_is_not_dressed_up_as_a_full_disk(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama", dtype=torch.float32)
    monkeypatch.setattr(model, "save_pretrained", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_model(model, tokenizer, tmp_path / "m", card="")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_weights_are_as_readable_as_the_rest(tmp_path: Path, tokenizer: Any) -> None:
    folder = save_model(tiny("llama"), tokenizer, tmp_path / "model", card="")
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
