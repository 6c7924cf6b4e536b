"""Log-probs, entropies and values by one forward: those of separate rows through transformers alone."""

import numpy as np
import pytest
import torch
from torch import nn

from likelier.scoring import distribution, head
from likelier.scoring.equality import choose_way
from likelier.scoring.packing import make_pack, subtree
from likelier.scoring.scorer import Scorer
from tests.models.families import tiny
from tests.scoring.test_families import long_tiny
from tests.scoring.trees import example_trees, random_tree
from tests.scoring.truth import TRUTH, gradient_error, takes_attention_function


def head_of(width, dtype=torch.float64):
    """A value head that is not 0."""
    made = nn.Linear(width, 1, dtype=dtype)
    generator = torch.Generator().manual_seed(3)
    made.weight.data.normal_(std=0.3, generator=generator)
    made.bias.data.fill_(0.7)
    return made


def true_figures(model, value_head, trees):
    """`[S, 3]`: each branch an unpadded row through plain transformers, logits and states read off it."""
    if takes_attention_function(model):
        model.set_attn_implementation(TRUTH)
    found = []
    for tree in trees:
        for node in tree.branches:
            path = [tree.nodes[n] for n in tree.path(node)]
            row = torch.from_numpy(np.concatenate([n.tokens for n in path]).astype(np.int64))
            before = sum(len(n.tokens) for n in path[:-1])
            where = before + torch.from_numpy(np.flatnonzero(path[-1].scored))
            out = model(input_ids=row[None], use_cache=False, output_hidden_states=True)
            logps = out.logits[0].log_softmax(-1)[where - 1]
            states = out.hidden_states[-1][0, where - 1]
            columns = [
                logps.gather(1, row[where, None])[:, 0],
                -(logps.exp() * logps).sum(1),
                value_head(states)[:, 0],
            ]
            found.append(torch.stack(columns, 1))
    return torch.cat(found)


def mixed(figures):
    """A sum that no two numbers enter alike."""
    weights = torch.linspace(-1, 1, figures.numel(), dtype=torch.float64).view(figures.shape) + 0.1
    return (figures.double() * weights).sum()


def ours(scorer, value_head, trees):
    found = scorer.token_figures(make_pack(trees), value_head)
    return torch.stack([found.logps, found.entropies, found.values], 1)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_neox", "falcon"])
def test_they_and_their_gradients_are_those_of_separate_rows(family):
    """Soft-capped (gemma2), untied, as trees and as ordinary rows (falcon)."""
    model, trees = long_tiny(family), example_trees()
    value_head = head_of(model.get_output_embeddings().weight.shape[1])
    own = model.config._attn_implementation
    choice = choose_way(model)
    expected = true_figures(model, value_head, trees)
    parameters = [*model.parameters(), *value_head.parameters()]
    wanted = torch.autograd.grad(mixed(expected), parameters, allow_unused=True)
    model.set_attn_implementation(own)
    with Scorer(model, dtype=torch.float64, way=choice.way, own_head=choice.own_head) as scorer:
        found = ours(scorer, value_head, trees)
        got = torch.autograd.grad(mixed(found), parameters, allow_unused=True)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert gradient_error(list(got), list(wanted)) < 1e-6
    assert gradient_error(list(got[-2:]), list(wanted[-2:])) < 1e-10


def test_a_model_whose_head_is_its_own():
    """Through the model's own logits the numbers are the same."""
    model, trees = tiny("llama"), [random_tree(0, 5, [9, 4]), random_tree(1, 2, [3])]
    value_head = head_of(32)
    with Scorer(model, dtype=torch.float64) as chunked:
        expected = ours(chunked, value_head, trees)
    with Scorer(model, dtype=torch.float64, own_head=False) as scorer:
        found = ours(scorer, value_head, trees)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_log_probs_are_the_scoring_functions_bit_for_bit(dtype):
    masters = torch.float64 if dtype == torch.float64 else torch.float32
    model, trees = long_tiny("llama", dtype=masters), example_trees()
    with Scorer(model, dtype=dtype) as scorer:
        pack = make_pack(trees)
        assert torch.equal(scorer.token_figures(pack).logps, scorer.token_logps(pack))
        assert scorer.token_figures(pack).values is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_same_bits_in_every_pack_with_and_without_a_gradient(dtype):
    masters = torch.float64 if dtype == torch.float64 else torch.float32
    model, trees = long_tiny("llama", dtype=masters), example_trees()
    value_head = head_of(32, masters)
    with Scorer(model, dtype=dtype) as scorer:
        whole = ours(scorer, value_head, trees).detach()
        parts = [subtree(tree, [branch]) for tree in trees for branch in range(len(tree.branches))]
        with torch.no_grad():
            alone = torch.cat([ours(scorer, value_head, [part]) for part in parts])
            turned = ours(scorer, value_head, trees[::-1])
    assert torch.equal(whole, alone)
    counts = [sum(tree.branch_length(b) for b in range(len(tree.branches))) for tree in trees]
    assert torch.equal(torch.cat(list(turned.split(counts[::-1]))[::-1]), whole)


def test_the_gradient_of_a_large_head_comes_in_parts(monkeypatch):
    model, trees = long_tiny("gemma2"), [random_tree(0, 3, [300, 90])]
    value_head = head_of(32)
    parameters = list(model.parameters())
    with Scorer(model, dtype=torch.float64) as scorer:
        whole = torch.autograd.grad(mixed(ours(scorer, value_head, trees)), parameters)
        monkeypatch.setattr(head, "_LOGIT_BYTES", 128 * 8 * 128)
        parts = torch.autograd.grad(mixed(ours(scorer, value_head, trees)), parameters)
    assert gradient_error(list(parts), list(whole)) < 1e-14


def test_a_token_that_is_impossible_has_no_entropy():
    logits = torch.tensor([0.0, 0.0, -torch.inf])
    assert distribution.token_entropies(logits.log_softmax(-1)).item() == pytest.approx(np.log(2))
