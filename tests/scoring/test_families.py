"""Promise 1: trees in a pack have the log-probs and gradients of separate, unpadded rows, in every family."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from likelier.data.trees import tree_of
from likelier.scoring.equality import choose_way
from likelier.scoring.packing import make_pack
from likelier.scoring.scorer import Scorer, sum_branches
from tests.models.families import FAMILIES, TREE_FAMILIES, tiny
from tests.scoring.trees import example_trees, random_tree, trees
from tests.scoring.truth import (
    CALLS,
    gradient_error,
    logp_error,
    plain_rows,
    takes_attention_function,
    token_error,
    truth_of,
    with_gradients,
)

WAYS = dict.fromkeys((*TREE_FAMILIES, "mixtral", "deepseek_v3"), "tree") | {
    "falcon": "mask",
    "gptj": "mask",
    "codegen": "mask",
    "bloom": "rows",
    "mamba": "rows",
}
"""On a GPU; on a CPU families with a mask go as rows (test_same_bits.py)."""
COMPUTES_IN_FLOAT32 = {"gptj", "codegen", "mamba", "deepseek_v3"}
"""Attention scores (gptj, codegen), scan (mamba) or router (deepseek) in float32 whatever the model's precision:
float64 holds to that precision only."""
LAYER_NORM = {"gpt2", "gpt_neox", "falcon", "bloom"}
LONG = {
    "gpt2": {"n_positions": 512},
    "gptj": {"n_positions": 512},
    "codegen": {"n_positions": 512, "n_ctx": 512},
    "bloom": {},
    "mamba": {},
}


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """A mask is taken here, though its last bits are the pack's."""
    monkeypatch.setattr("likelier.scoring.equality._keeps_bits", lambda way, device: True)


def long_tiny(family, **changes):
    """The family's tiny model with room for the longest example."""
    return tiny(family, **LONG.get(family, {"max_position_embeddings": 512}), **changes)


def scored(model, dtype, given, **how):
    """Log-probs and gradients of all of `given` in one pack."""
    with Scorer(model, dtype=dtype, **how) as scorer:
        pack = make_pack(given)
        logps = list(scorer.token_logps(pack).split(list(pack.lengths)))
        return with_gradients(model, logps)


def chosen(model):
    choice = choose_way(model)
    return {"way": choice.way, "own_head": choice.own_head}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_way_is_the_documented_one(family):
    choice = choose_way(long_tiny(family, dtype=torch.float32))
    assert (choice.way, choice.own_head) == (WAYS[family], True)
    assert (choice.why == "") == (choice.way == "tree")


@pytest.mark.parametrize("family", FAMILIES)
def test_float64(family):
    model = long_tiny(family)
    given = example_trees()
    expected = truth_of(model, given)
    ours = scored(model, torch.float64, given, **chosen(model))
    bound = 1e-7 if family in COMPUTES_IN_FLOAT32 else 1e-12
    assert logp_error(ours.logps, expected.logps) < bound
    assert token_error(ours.logps, expected.logps) < bound
    assert gradient_error(ours.gradients, expected.gradients) < (1e-12 if family in LAYER_NORM else 1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_float32(family):
    model = long_tiny(family, dtype=torch.float32)
    given = example_trees()
    expected = truth_of(model, given)
    ours = scored(model, torch.float32, given, **chosen(model))
    assert {part.dtype for part in ours.logps} == {torch.float32}
    assert logp_error(ours.logps, expected.logps) < 1e-5
    assert gradient_error(ours.gradients, expected.gradients) < 1e-5


@pytest.mark.parametrize("family", [f for f in FAMILIES if WAYS[f] == "tree"])
def test_the_truth_is_transformers_own(family):
    """Up to the float32 softmax of `eager`, which builds windows by masks and knows nothing of us."""
    model = long_tiny(family)
    assert takes_attention_function(model)
    given = [random_tree(0, 30, [40, 9])]
    CALLS.clear()
    expected = truth_of(model, given)
    assert len(CALLS) == 2 * model.config.num_hidden_layers
    model.set_attn_implementation("eager")
    model._supports_attention_backend = False  # the truth then leaves the attention alone
    eager = truth_of(model, given)
    assert token_error(eager.logps, expected.logps) < 1e-6
    assert gradient_error(eager.gradients, expected.gradients) < 1e-5


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "qwen3"])
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(given=st.lists(trees(), min_size=1, max_size=4))
def test_random_trees_of_any_depth(family, given):
    """Empty nodes, whole trees without a scored token, branches at different depths."""
    given = [tree for tree in given if tree.num_tokens]
    if not any(tree.nodes[node].scored.any() for tree in given for node in tree.branches):
        return
    model = MODELS.setdefault(family, tiny(family))
    expected = truth_of(model, given)
    ours = scored(model, torch.float64, given)
    assert [len(part) for part in ours.logps] == [len(part) for part in expected.logps]
    assert token_error(ours.logps, expected.logps) < 1e-12
    bound = 1e-12 if family == "gpt2" else 1e-6
    assert gradient_error(ours.gradients, expected.gradients) < bound


MODELS = {}


def test_a_pack_is_the_sum_of_its_trees():
    """Gradients of packs add up to those of the whole: what micro-batches rely on."""
    model = long_tiny("gpt2")
    given = example_trees()
    parameters = list(model.parameters())

    def gradients(packs):
        total = [torch.zeros_like(p) for p in parameters]
        for indices in packs:
            pack = make_pack([given[i] for i in indices])
            loss = (scorer.branch_logps(pack) * scale(pack)).sum()
            for sum_, g in zip(total, torch.autograd.grad(loss, parameters), strict=True):
                sum_ += g
        return total

    def scale(pack):
        return torch.tensor(
            [len(tree.id) + branch for tree in pack.trees for branch in range(len(tree.branches))],
            dtype=torch.float64,
        )

    with Scorer(model, dtype=torch.float64) as scorer:
        whole = gradients([range(len(given))])
        for budget in (450, 600):
            packs = scorer.make_packs(given, max_tokens=budget)
            assert len(packs) > 1
            assert gradient_error(gradients(packs), whole) < 1e-12


@pytest.mark.parametrize("family", TREE_FAMILIES)
def test_bfloat16_errs_no_more_than_autocast(family):
    """Against float32 on the same rows, over tokens: products in bfloat16, the rest in float32."""
    model = long_tiny(family, dtype=torch.float32)
    given = example_trees()
    exact = torch.cat(truth_of(model, given, gradients=False).logps)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = torch.cat(truth_of(model, given, gradients=False).logps)
    ours = torch.cat(scored(model, torch.bfloat16, given).logps)
    assert ours.dtype == torch.float32
    assert 0 < rms(ours, exact) < 1.05 * rms(autocast, exact)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in TREE_FAMILIES])
def test_bfloat16_is_close_in_every_other_family(family):
    model = long_tiny(family, dtype=torch.float32)
    given = example_trees()
    exact = torch.cat(truth_of(model, given, gradients=False).logps)
    ours = torch.cat(scored(model, torch.bfloat16, given, **chosen(model)).logps)
    # An expert that is chosen by another's rounding moves a whole token.
    assert 0 < rms(ours, exact) < (0.3 if family in ("mixtral", "deepseek_v3") else 0.05)


def test_smollm2_in_bfloat16_errs_no_more_than_autocast(smollm2):
    """Over a thousand tokens of real text, against autocast as people run it; the ratio's own noise is 5 %."""
    model, tokenizer = smollm2.model, smollm2.tokenizer
    text = (Path(__file__).parents[2] / "LICENSE").read_text()
    tokens = tokenizer(text, add_special_tokens=False).input_ids[:1020]
    given = [tree_of(part[:4], [part[4:]]) for part in (tokens[i : i + 204] for i in range(0, 1020, 204))]
    with torch.no_grad():
        exact = torch.cat(plain_rows(model, given))
        with torch.autocast("cpu", torch.bfloat16):
            autocast = torch.cat(plain_rows(model, given))
        with Scorer(model, dtype=torch.bfloat16) as scorer:
            ours = torch.cat([part for tree in scorer.score(given) for part in tree])
    assert len(exact) == 1000
    assert 0 < rms(ours, exact) < 1.05 * rms(autocast, exact)


def test_smollm2_in_float32(smollm2):
    model, tokenizer = smollm2.model, smollm2.tokenizer
    given = [text_tree(tokenizer, *RAIN), text_tree(tokenizer, *RICE)]
    with torch.no_grad(), Scorer(model, dtype=torch.float32) as scorer:
        ours = [part for tree in scorer.score(given) for part in tree]
        with scorer.plain():
            expected = plain_rows(model, given)
    assert logp_error(ours, expected) < 1e-5


RAIN = (
    "Human: why does it rain more in the hills than on the plain by the sea?\n\nAssistant:",
    " Air that meets a hill has to rise, and rising air cools; cool air holds less water, so some of it falls.",
    " I do not know.",
)
RICE = (
    "Human: how long does rice cook?\n\nAssistant:",
    " About twelve minutes.",
    " Until it is done, my friend.",
)


def text_tree(tokenizer, prompt, *answers):
    encode = lambda text: tokenizer(text, add_special_tokens=False).input_ids  # noqa: E731
    return tree_of(encode(prompt), [encode(answer) for answer in answers])


def rms(ours, exact):
    return float((ours.double() - exact.double()).square().mean().sqrt())


def test_branches_are_summed_in_float64_one_by_one():
    logps = -torch.rand(1000, dtype=torch.float32)
    sums = sum_branches(logps, [600, 0, 400])
    expected = [np.sum(logps[:600].double().numpy()), 0.0, np.sum(logps[600:].double().numpy())]
    assert sums.dtype == torch.float64
    np.testing.assert_allclose(sums.numpy(), expected, rtol=1e-14)
    assert sum_branches(logps[:0], []).shape == (0,)
