"""Values at branch ends: the same whatever the pack, and those of separate rows through transformers alone."""

import numpy as np
import pytest
import torch

from likelier.data.trees import tree_of
from likelier.errors import ModelError
from likelier.models.heads import value_head
from likelier.models.loading import Loaded
from likelier.models.reward_model import as_reward_model
from likelier.scoring.equality import choose_way
from likelier.scoring.packing import make_pack
from likelier.scoring.scorer import Scorer
from tests.models.families import TREE_FAMILIES, tiny
from tests.scoring.test_families import long_tiny
from tests.scoring.test_scorer import checkpoint
from tests.scoring.trees import example_trees, random_tree
from tests.scoring.truth import TRUTH, gradient_error, takes_attention_function

FAMILIES = (*TREE_FAMILIES, "mixtral")


def reward_model(family, tokenizer, *, dtype=torch.float64, **changes):
    """A random head over a random decoder: nothing cancels."""
    made = as_reward_model(Loaded(long_tiny(family, dtype=dtype, **changes), tokenizer, family, "memory"))
    generator = torch.Generator().manual_seed(7)
    value_head(made.model).weight.data.normal_(std=0.5, generator=generator)
    return made.model


def branch_rows(trees):
    """The tokens of every branch with all that it continues."""
    for tree in trees:
        for node in tree.branches:
            path = [tree.nodes[n].tokens for n in tree.path(node)]
            yield torch.from_numpy(np.concatenate(path).astype(np.int64))


def true_values(model, trees):
    """Each branch an unpadded row through transformers' own classifier."""
    own, pad = model.config._attn_implementation, model.config.pad_token_id
    if takes_attention_function(model):
        model.set_attn_implementation(TRUTH)
    model.config.pad_token_id = None  # Random tokens may be that one; a single row is not padded.
    values = [model(input_ids=row[None], use_cache=False).logits[0, 0] for row in branch_rows(trees)]
    model.config.pad_token_id = pad
    model.set_attn_implementation(own)
    return torch.stack(values)


def error(values, expected):
    """`‖Δ‖/‖·‖` over all branches."""
    return float(((values - expected).norm() / expected.norm()).detach())


def gradients(model, values):
    weights = torch.linspace(-1, 1, len(values), dtype=torch.float64) + 0.1
    return torch.autograd.grad((values.double() * weights).sum(), list(model.parameters()), allow_unused=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_float64_values_and_gradients_are_those_of_separate_rows(family, tokenizer):
    model, trees = reward_model(family, tokenizer), example_trees()
    expected = true_values(model, trees)
    assert choose_way(model).way == "tree"
    bound = 1e-12 if family in ("gpt2", "gpt_neox") else 1e-6
    with Scorer(model, dtype=torch.float64) as scorer:
        values = scorer.branch_values(make_pack(trees))
        assert values.dtype == torch.float64
        assert scorer.forward.attention_calls == model.config.num_hidden_layers
        ours = gradients(model, values)
    assert error(values, expected) < 1e-12
    assert gradient_error(list(ours), list(gradients(model, expected))) < bound


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_in_float32_too(family, tokenizer):
    model, trees = reward_model(family, tokenizer, dtype=torch.float32), example_trees()
    expected = true_values(model, trees)
    with Scorer(model, dtype=torch.float32) as scorer:
        values = scorer.branch_values(make_pack(trees))
        ours = gradients(model, values)
    assert error(values, expected) < 1e-5
    assert gradient_error(list(ours), list(gradients(model, expected))) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_on_a_cpu_the_same_bits_in_every_pack(family, dtype, tokenizer):
    master = torch.float64 if dtype == torch.float64 else torch.float32
    model, trees = reward_model(family, tokenizer, dtype=master), example_trees()
    with Scorer(model, dtype=dtype) as scorer:
        whole = torch.cat([torch.cat(own) for own in scorer.score(trees)])
        alone = torch.cat([torch.cat(scorer.score([tree])[0]) for tree in trees])
        parts = torch.cat([torch.cat(own) for own in scorer.score(trees, max_tokens=450)])
        order = list(reversed(range(len(trees))))
        turned = scorer.score([trees[i] for i in order])
        turned = torch.cat([torch.cat(turned[order.index(i)]) for i in range(len(trees))])
        assert torch.equal(scorer.branches(make_pack(trees)).detach(), whole)
    for other in (alone, parts, turned):
        assert torch.equal(other, whole)
    assert whole.abs().min() > 0


def test_in_bfloat16_the_error_is_that_of_its_products(tokenizer):
    model, trees = reward_model("llama", tokenizer, dtype=torch.float32), example_trees()
    expected = true_values(model, trees)
    with Scorer(model, dtype=torch.bfloat16) as scorer:
        values = scorer.branch_values(make_pack(trees))
        ours = gradients(model, values)
    assert 1e-5 < error(values, expected) < 0.02
    assert gradient_error(list(ours), list(gradients(model, expected))) < 0.05


@pytest.mark.parametrize("family", ["falcon", "bloom"])
def test_families_without_tree_attention_go_as_rows(family, tokenizer):
    model, trees = reward_model(family, tokenizer), example_trees()[:4]
    expected = true_values(model, trees)
    choice = choose_way(model)
    assert choice.way == "rows"
    with Scorer(model, dtype=torch.float64, way=choice.way) as scorer:
        values = scorer.branch_values(make_pack(trees))
    assert error(values, expected) < 1e-9


def test_an_empty_answer_is_read_at_the_end_of_its_prompt(tokenizer):
    model = reward_model("llama", tokenizer)
    with Scorer(model, dtype=torch.float64) as scorer:
        pair = scorer.branch_values(make_pack([tree_of([4, 5, 6], [[7], []])]))
        alone = scorer.branch_values(make_pack([tree_of([4, 5], [[6]])]))
        assert pair[1] == alone[0]
        assert pair[0] != pair[1]
        with pytest.raises(ValueError, match="without any token"):
            scorer.branch_values(make_pack([tree_of([], [[]]), random_tree(0, 3, [2])]))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_gradients_flow_with_recomputed_activations_and_in_place_sums(tokenizer):
    model, trees = reward_model("llama", tokenizer, dtype=torch.float32), example_trees()
    parameters = list(model.parameters())
    with Scorer(model, dtype=torch.float32) as scorer:
        expected = gradients(model, scorer.branch_values(make_pack(trees)))
        checkpoint(model)
        model.train()
        weights = torch.linspace(-1, 1, sum(len(tree.branches) for tree in trees), dtype=torch.float64) + 0.1
        for _ in range(2):
            rest = weights
            with scorer.kernels.summing(parameters):
                for tree in trees:
                    values = scorer.branch_values(make_pack([tree]))
                    (values * rest[: len(values)]).sum().backward()
                    rest = rest[len(values) :]
    assert gradient_error([parameter.grad for parameter in parameters], list(expected)) < 1e-5


def test_a_classifier_that_is_no_linear_function_of_the_last_state_is_refused(tokenizer):
    model = reward_model("llama", tokenizer, dtype=torch.float32)

    class Twice(type(model)):
        def forward(self, *args, **kwargs):
            out = super().forward(*args, **kwargs)
            out.logits = 2 * out.logits
            return out

    Twice.__name__ = type(model).__name__
    model.__class__ = Twice
    with pytest.raises(ModelError, match="no reward model as likelier reads them"):
        choose_way(model)


def test_only_classifiers_of_one_label_over_decoders_have_a_value_head(tokenizer):
    from transformers import BertConfig, BertForSequenceClassification, LlamaForSequenceClassification

    model = tiny("llama", dtype=torch.float32)
    assert value_head(model) is None
    bert = BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=1
    )
    assert value_head(BertForSequenceClassification(bert)) is None
    model.config.num_labels = 2
    assert value_head(LlamaForSequenceClassification(model.config)) is None
    model.config.num_labels = 1
    assert value_head(LlamaForSequenceClassification(model.config)) is not None
