"""GGUF files: exact, saved again, converted once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gguf as format
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from likelier.errors import ModelError
from likelier.models import gguf
from likelier.models.identity import weights_digest
from likelier.models.loading import load_model, load_tokenizer
from likelier.models.saving import save_model

HIDDEN, HEADS, SHARED, WIDTH = 64, 4, 2, 96


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """GGUF keeps the two halves of each rotated head interleaved."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path: Path, tokenizer: Any) -> dict[str, np.ndarray]:
    """A random one-layer Llama; returns its weights as transformers names them, in its own layout."""
    rng = np.random.default_rng(0)
    vocabulary = tokenizer.get_vocab()
    shapes = {
        "token_embd": ("model.embed_tokens", (len(vocabulary), HIDDEN)),
        "output_norm": ("model.norm", (HIDDEN,)),
        "blk.0.attn_norm": ("model.layers.0.input_layernorm", (HIDDEN,)),
        "blk.0.ffn_norm": ("model.layers.0.post_attention_layernorm", (HIDDEN,)),
        "blk.0.attn_q": ("model.layers.0.self_attn.q_proj", (HIDDEN, HIDDEN)),
        "blk.0.attn_k": ("model.layers.0.self_attn.k_proj", (HIDDEN // HEADS * SHARED, HIDDEN)),
        "blk.0.attn_v": ("model.layers.0.self_attn.v_proj", (HIDDEN // HEADS * SHARED, HIDDEN)),
        "blk.0.attn_output": ("model.layers.0.self_attn.o_proj", (HIDDEN, HIDDEN)),
        "blk.0.ffn_gate": ("model.layers.0.mlp.gate_proj", (WIDTH, HIDDEN)),
        "blk.0.ffn_up": ("model.layers.0.mlp.up_proj", (WIDTH, HIDDEN)),
        "blk.0.ffn_down": ("model.layers.0.mlp.down_proj", (HIDDEN, WIDTH)),
    }
    writer = format.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(SHARED)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(vocabulary, key=vocabulary.__getitem__))
    writer.add_token_types([1] * len(vocabulary))
    writer.add_token_merges([" ".join(pair) for pair in merges_of(tokenizer)])
    writer.add_eos_token_id(2)
    kept: dict[str, np.ndarray] = {}
    for name, (theirs, shape) in shapes.items():
        weight = rng.standard_normal(shape).astype(np.float32)
        heads = {"blk.0.attn_q": HEADS, "blk.0.attn_k": SHARED}.get(name)
        writer.add_tensor(f"{name}.weight", interleaved(weight, heads) if heads else weight)
        kept[f"{theirs}.weight"] = weight
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return kept


def merges_of(tokenizer: Any) -> list[list[str]]:
    import json

    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return [merge if isinstance(merge, list) else merge.split(" ") for merge in merges]


@pytest.fixture
def tiny_gguf(tmp_path: Path, tokenizer: Any) -> tuple[Path, dict[str, np.ndarray]]:
    path = tmp_path / "tiny.gguf"
    return path, write_gguf(path, tokenizer)


def test_every_weight_is_the_files(tiny_gguf: tuple[Path, dict[str, np.ndarray]], tokenizer: Any) -> None:
    path, weights = tiny_gguf
    loaded = load_model(path)
    assert (loaded.kind, loaded.name) == ("gguf", str(path))
    state = loaded.model.state_dict()
    for name, weight in weights.items():
        assert np.array_equal(state[name].numpy(), weight), name
    assert torch.equal(state["lm_head.weight"], state["model.embed_tokens.weight"])
    assert loaded.tokenizer("the rain").input_ids == tokenizer("the rain").input_ids


def test_it_can_be_saved_and_the_second_load_is_from_the_cache(
    tiny_gguf: tuple[Path, dict[str, np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = tiny_gguf
    first = load_model(path)
    save_model(first.model, first.tokenizer, tmp_path / "saved", card="")
    assert weights_digest(load_model(tmp_path / "saved").model) == weights_digest(first.model)
    monkeypatch.setattr(gguf, "convert", lambda path: pytest.fail("converted twice"))
    moved = path.rename(tmp_path / "moved.gguf")
    assert weights_digest(load_model(moved).model) == weights_digest(first.model)
    load_tokenizer(moved)
    with moved.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(pytest.fail.Exception, match="converted twice"):
        load_model(moved)


def test_without_a_cache_it_loads_all_the_same(
    tiny_gguf: tuple[Path, dict[str, np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = tiny_gguf
    cached = load_model(path)
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("LIKELIER_CACHE", str(tmp_path / "file"))
    direct = load_model(path)
    assert weights_digest(direct.model) == weights_digest(cached.model)
    assert direct.tokenizer.get_vocab() == cached.tokenizer.get_vocab()
    save_model(direct.model, direct.tokenizer, tmp_path / "saved", card="")
    assert weights_digest(load_model(tmp_path / "saved").model) == weights_digest(cached.model)


def test_two_processes_that_convert_at_once_agree(
    tiny_gguf: tuple[Path, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = tiny_gguf
    convert = gguf.convert

    def second(path: Path) -> Any:
        """While this process converts, another finishes."""
        monkeypatch.setattr(gguf, "convert", convert)
        assert gguf.converted(path) is not None
        return convert(path)

    monkeypatch.setattr(gguf, "convert", second)
    folder = gguf.converted(path)
    assert folder is not None
    assert sorted(other.name for other in folder.parent.iterdir() if other.name.startswith(".")) == []
    load_model(path)


@pytest.mark.parametrize("keep", [0, 3, 100, 5000])
def test_a_cut_file_is_named(tiny_gguf: tuple[Path, dict[str, np.ndarray]], keep: int) -> None:
    path, _ = tiny_gguf
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"tiny.gguf cannot be read as a GGUF model .*download it again"):
        load_model(path)


def test_smollm2_is_what_its_file_holds(
    smollm2: Any, smollm2_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIKELIER_CACHE", str(smollm2_cache))
    path = Path(smollm2.name)
    began = time.perf_counter()
    again = load_model(path)
    assert time.perf_counter() - began < 10
    assert weights_digest(again.model) == weights_digest(smollm2.model)
    # Q4_1 by hand: 32 weights share a scale d and a minimum m, w = d q + m.
    reader = format.GGUFReader(path)
    tensor = next(tensor for tensor in reader.tensors if tensor.name == "blk.7.ffn_up.weight")
    block = tensor.data.reshape(-1, 20)[1234]
    scale, least = block[:4].view(np.float16).astype(np.float32)
    numbers = np.concatenate([block[4:] & 15, block[4:] >> 4]).astype(np.float32)
    weight = (
        again.model.get_parameter("model.layers.7.mlp.up_proj.weight").detach().numpy().reshape(-1, 32)[1234]
    )
    assert np.array_equal(weight, scale * numbers + least)
    ids = again.tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        best = again.model(input_ids=ids).logits[0, -1].argmax()
    assert again.tokenizer.decode([best]).strip() == "Paris"
    save_model(again.model, again.tokenizer, tmp_path / "saved", card="")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert weights_digest(saved) == weights_digest(smollm2.model)
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").chat_template == again.tokenizer.chat_template
