"""Memory: fixed state against what is really kept, activations against what autograd saves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from likelier.data.trees import tree_of
from likelier.errors import UsageError
from likelier.scoring.packing import make_pack
from likelier.scoring.scorer import Scorer
from likelier.training import memory as memory_module
from likelier.training.memory import available_memory, choose_max_tokens, longest_path, memory
from likelier.training.optimizer import make_optimizer

CPU = torch.device("cpu")


def llama(hidden: int = 64, groups: int = 2) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=groups,
    )
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("name", ["adamw", "rmsprop"])
def test_the_fixed_state_is_what_training_keeps(name: str) -> None:
    model = llama()
    parameters = list(model.parameters())
    optimizer = make_optimizer(name, parameters, learning_rate=1e-3)  # type: ignore[arg-type]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values() if value.numel() > 1]
    found = memory(model, dtype=torch.bfloat16, optimizer=name, trainable=parameters)  # type: ignore[arg-type]
    assert found["weights"] == found["gradients"] == sum(p.nbytes for p in parameters)
    assert found["optimizer"] == sum(value.nbytes for value in states)
    with Scorer(model, dtype=torch.bfloat16) as scorer:
        assert found["working_copies"] == sum(w.matrix.nbytes for w in scorer.kernels._weights)


def test_frozen_weights_have_no_gradients() -> None:
    model = llama()
    head = model.get_output_embeddings().weight
    found = memory(model, dtype=torch.float32, optimizer="adamw", trainable=[head])
    assert found["gradients"] == head.nbytes
    assert found["optimizer"] == 2 * head.nbytes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("hidden", "groups"), [(64, 4), (128, 1)])
def test_activations_are_what_autograd_saves(hidden: int, groups: int, dtype: torch.dtype) -> None:
    model = llama(hidden, groups)
    found = memory(model, dtype=dtype, optimizer="adamw", trainable=model.parameters())
    with Scorer(model, dtype=dtype) as scorer:
        known = {p.untyped_storage().data_ptr() for p in model.parameters()}
        known |= {w.matrix.untyped_storage().data_ptr() for w in scorer.kernels._weights}
        few, many = (_saved(scorer, trees, known) for trees in (4, 12))
    per_token = (many - few) / (8 * 64)
    assert 0.75 * per_token < found["per_token"] < 1.5 * per_token


def _saved(scorer: Scorer, trees: int, known: set[int]) -> int:
    sizes: dict[int, int] = {}
    kept = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    given = make_pack([tree_of(range(24), [range(20), range(20)])] * trees)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        scorer.token_logps(given)
    return sum(sizes.values())


def test_checkpointing_keeps_one_layer() -> None:
    model = llama()
    plain, less = (
        memory(model, dtype=torch.float32, optimizer="adamw", trainable=[], checkpointing=flag)["per_token"]
        for flag in (False, True)
    )
    assert plain // 3 < less < plain


def needed(*, fixed: int = 1600, per_token: int = 1) -> dict[str, int]:
    return {"gradients": 400, "optimizer": 800, "head": 100, "fixed": fixed, "per_token": per_token}


def test_max_tokens_follow_the_memory_and_never_fall_below_the_longest_path() -> None:
    assert choose_max_tokens(needed(), longest=10, device=CPU, available=10**9) == 1536
    assert choose_max_tokens(needed(), longest=10, device=CPU, available=None) == 1536
    assert choose_max_tokens(needed(), longest=5000, device=CPU, available=None) == 5000
    assert choose_max_tokens(needed(), longest=10, device=CPU, available=1300 + 2 * 600) == 512
    assert choose_max_tokens(needed(), longest=700, device=CPU, available=1300 + 2 * 600) == 700
    assert choose_max_tokens(needed(), longest=9, device=torch.device("cuda"), available=10**9) == 16384


def test_more_than_the_memory_is_refused_by_name_and_with_a_remedy() -> None:
    with pytest.raises(UsageError, match=r"not enough memory: .*\(--lora-rank"):
        choose_max_tokens(needed(), longest=10, device=CPU, available=1299)


def test_longest_path_counts_every_node_on_it() -> None:
    assert longest_path([tree_of([1] * 9, [[1], [1] * 4]), tree_of([1], [[1] * 11])]) == 13
    assert longest_path([]) == 0


def test_available_memory_is_between_a_little_and_a_lot() -> None:
    found = available_memory(CPU)
    assert found is None or 10**7 < found < 10**14


def test_linux_says_what_is_available(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:   600 kB\n")
    assert memory_module._linux_available(tmp_path / "meminfo") == 600 * 1024
    assert memory_module._linux_available(tmp_path / "absent") is None


def test_a_container_allows_less_than_the_machine_has(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    assert memory_module._group_room(tmp_path) == 450
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_module._group_room(tmp_path) is None
