"""The chunked head against all logits at once, whatever a family does to them."""

import pytest
import torch

from likelier.scoring.packing import make_pack
from likelier.scoring.scorer import Scorer
from tests.models.families import FAMILIES, HIDDEN, tiny
from tests.scoring.trees import random_tree
from tests.scoring.truth import gradient_error, token_error, truth_of, with_gradients

MORE = {
    "phi": FAMILIES["gpt_neox"],
    "cohere": {**FAMILIES["llama"], "logit_scale": 0.25},
    "granite": {**FAMILIES["llama"], "logits_scaling": 3.0},
}
"""A bias in the head; logits multiplied; logits divided. Gemma 2 caps them, Llama leaves them alone."""


def model_of(family, monkeypatch, **changes):
    monkeypatch.setitem(FAMILIES, family, {**MORE, **FAMILIES}[family])
    return tiny(family, max_position_embeddings=512, **changes)


def scored(model, given, dtype):
    with Scorer(model, dtype=dtype) as scorer:
        assert scorer.own_head
        pack = make_pack(given)
        return with_gradients(model, list(scorer.token_logps(pack).split(list(pack.lengths))))


@pytest.mark.parametrize("vocab", [101, 384])
@pytest.mark.parametrize("family", ["llama", "gemma2", *MORE])
def test_scaled_capped_with_a_bias_and_of_any_size(family, vocab, monkeypatch):
    model = model_of(family, monkeypatch, vocab_size=vocab, tie_word_embeddings=False)
    assert (model.get_output_embeddings().bias is not None) == (family == "phi")
    given = [random_tree(0, 9, [150, 33], vocab=101), random_tree(1, 1, [7], vocab=101)]
    expected = truth_of(model, given)
    ours = scored(model, given, torch.float64)
    assert token_error(ours.logps, expected.logps) < 1e-12
    assert gradient_error(ours.gradients, expected.gradients) < 1e-6
    # The head's own gradient passes no norm.
    head = [index for index, (name, _) in enumerate(model.named_parameters()) if name.startswith("lm_head")]
    assert len(head) == (2 if family == "phi" else 1)
    for index in head:
        assert gradient_error([ours.gradients[index]], [expected.gradients[index]]) < 1e-12


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 127, 128, 129, 255, 256, 257, 400])
def test_any_number_of_tokens(tokens, monkeypatch):
    """On both sides of every block."""
    model = model_of("gemma2", monkeypatch)
    given = [random_tree(0, 3, [tokens])]
    expected = truth_of(model, given)
    ours = scored(model, given, torch.float64)
    assert token_error(ours.logps, expected.logps) < 1e-12
    assert gradient_error(ours.gradients, expected.gradients) < 1e-6


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_the_gradient_of_a_large_head_comes_in_parts(family, monkeypatch):
    """Of so many logits that they are not held at once: the parts add up."""
    from likelier.scoring import head

    model = model_of(family, monkeypatch)
    given = [random_tree(0, 3, [300, 90])]
    whole = scored(model, given, torch.float64)
    monkeypatch.setattr(head, "_LOGIT_BYTES", 128 * 8 * 128)
    parts = scored(model, given, torch.float64)
    assert gradient_error(parts.gradients, whole.gradients) < 1e-14
    assert all(torch.equal(a, b) for a, b in zip(parts.logps, whole.logps, strict=True))


def test_a_second_backward_through_the_same_logits(monkeypatch):
    """The first overwrites the logits that were kept."""
    model = model_of("gemma2", monkeypatch)
    with Scorer(model, dtype=torch.float64) as scorer:
        logps = scorer.token_logps(make_pack([random_tree(0, 3, [40, 20])]))
        first, second = (
            torch.autograd.grad(logps.sum(), list(model.parameters()), retain_graph=True) for _ in range(2)
        )
    assert gradient_error(second, first) < 1e-14


def test_logarithms_are_taken_in_float32(monkeypatch):
    """In bfloat16 a log-prob carries the rounding of its inputs and one of its logit, never one of its own."""
    model = model_of("llama", monkeypatch, dtype=torch.float32, num_hidden_layers=0)
    with torch.no_grad():
        model.lm_head.weight.copy_(model.lm_head.weight.bfloat16())
    tree = random_tree(0, 3, [200])
    (ours,) = scored(model, [tree], torch.bfloat16).logps
    (expected,) = truth_of(model, [tree], gradients=False).logps
    assert ours.dtype == torch.float32
    assert len(set(ours.tolist())) > len(set(ours.bfloat16().tolist()))
    assert float((ours - expected).abs().max()) < 0.05 * HIDDEN**0.5


@pytest.mark.parametrize("extreme", [1e4, -1e4])
def test_logits_that_overflow_an_exponential(extreme, monkeypatch):
    model = model_of("phi", monkeypatch, dtype=torch.float32)
    with torch.no_grad():
        model.lm_head.bias[5] = extreme
    given = [random_tree(0, 3, [20])]
    expected = truth_of(model, given)
    ours = scored(model, given, torch.float32)
    assert token_error(ours.logps, expected.logps) < 1e-5
    assert all(g is None or torch.isfinite(g).all() for g in ours.gradients)
