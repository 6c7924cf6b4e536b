"""Samples of many lengths in one forward: the same bits as each cohort alone, or the model is not run so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from likelier.engines import cohorts
from likelier.engines.cohorts import ATTENTION, read_tokens, takes_cohorts
from likelier.engines.decoding import Prefix, read_prompts
from tests.models.families import tiny

MIXED = ["llama", "mistral", "qwen2", "qwen3", "gemma3_text", "phi3", "gpt2", "gpt_neox", "olmo2"]
"""Families whose samples share forwards; windows are 8 here."""
APART = ["falcon", "gptj", "codegen", "bloom", "gemma2"]
"""Families that never call a replaced function or take another attention: block by block, as exact."""


@pytest.mark.parametrize("name", MIXED)
def test_families_that_share_forwards(name: str) -> None:
    assert takes_cohorts(tiny(name, dtype=torch.float32))


@pytest.mark.parametrize("name", APART)
def test_families_that_do_not(name: str) -> None:
    assert not takes_cohorts(tiny(name, dtype=torch.float32))


def begin(model: Any, length: int, rows: int) -> Prefix:
    return read_prompts(model, [list(range(3, 3 + length))]).select(
        torch.zeros(rows, dtype=torch.long), room=8, kept_in=torch.float32
    )


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Flash attention on a CPU gives a row other bits on the second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_the_place_of_a_row_changes_no_bit(dtype: torch.dtype) -> None:
    """Wide enough heads and many lengths: 64 equal rows, and two alone."""
    generator = torch.Generator().manual_seed(0)
    for length in range(17, 120, 3):
        query = torch.randn(1, 9, 64, generator=generator).to(dtype)
        keys, values = (torch.randn(1, 3, length, 64, generator=generator).to(dtype).float() for _ in "kv")
        hidden = torch.zeros(1, 1, 1, length, dtype=torch.bool)
        found = {
            rows: cohorts._attend(
                query.expand(rows, -1, -1),
                *(states.expand(rows, -1, -1, -1).contiguous() for states in (keys, values)),
                hidden,
                0.125,
                None,
            )
            for rows in (1, 2, 64)
        }
        for rows, out in found.items():
            assert torch.equal(out, found[1].expand(rows, -1, -1)), (length, rows)
        grouped = [states.repeat_interleave(3, 1).double() for states in (keys, values)]
        truth = torch.nn.functional.scaled_dot_product_attention(query[:, :, None].double(), *grouped)[
            :, :, 0
        ]
        error = (found[1].double() - truth).norm() / truth.norm()
        assert error < (1e-6 if dtype == torch.float32 else 4e-3)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MIXED)
@torch.inference_mode()
def test_the_bits_are_those_of_a_cohort_alone(name: str, dtype: torch.dtype) -> None:
    """Lengths on both sides of a window and of a width; one cohort is three tokens older."""
    model = tiny(name, dtype=torch.float32)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    shapes = [(5, 3), (30, 2), (17, 1)]
    tokens = [torch.arange(7, 7 + rows) for _, rows in shapes]

    def read(chosen: list[int]) -> list[torch.Tensor]:
        prefixes = [begin(model, *shapes[at]) for at in chosen]
        model.set_attn_implementation(ATTENTION)
        try:
            for at, prefix in zip(chosen, prefixes, strict=True):
                for _ in range(3 if at == 1 else 0):
                    read_tokens(model, [prefix], [tokens[at]], rows=16)
            for _ in range(2):
                read_tokens(model, prefixes, [tokens[at] for at in chosen], rows=16)
        finally:
            model.set_attn_implementation("sdpa")
        return [prefix.logits for prefix in prefixes]

    together = read([0, 1, 2])
    for at in range(3):
        torch.testing.assert_close(read([at])[0], together[at], rtol=0, atol=0)
    torch.testing.assert_close(read([2, 1, 0])[::-1], together, rtol=0, atol=0)


def test_a_wrong_window_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = cohorts.Carrier.hidden
    monkeypatch.setattr(cohorts.Carrier, "hidden", lambda self, number, window: right(self, number, None))
    assert not takes_cohorts(tiny("mistral", dtype=torch.float32))
    assert takes_cohorts(tiny("llama", dtype=torch.float32))


def test_frequencies_that_follow_the_longest_position_keep_cohorts_apart() -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    assert not takes_cohorts(tiny("llama", dtype=torch.float32, rope_parameters=rope))


def test_the_model_keeps_its_attention(tokenizer: Any) -> None:
    from likelier.engines.prompts import Prompt
    from likelier.engines.sampling import sample

    model = tiny("llama", dtype=torch.float32, vocab_size=len(tokenizer))
    prompts = [Prompt(id="a", content="A"), Prompt(id="b", content="The cat sat on the mat. " * 3)]
    sample(model, tokenizer, prompts, n=2, max_new_tokens=2)
    assert model.config._attn_implementation == "sdpa"
