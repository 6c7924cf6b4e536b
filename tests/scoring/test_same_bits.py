"""On CPU a tree's log-probs are the same bits in every pack, in every precision."""

import random

import pytest
import torch

from likelier.scoring.packing import make_pack, subtree
from likelier.scoring.scorer import Scorer
from tests.models.families import tiny
from tests.scoring.test_families import RAIN, RICE, long_tiny, text_tree
from tests.scoring.trees import example_trees, random_tree
from tests.scoring.truth import token_error, truth_of

PRECISIONS = [torch.float32, torch.bfloat16, torch.float64]


def loaded(family, dtype):
    return long_tiny(family, dtype=torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.fixture(scope="module")
def given():
    """The examples, and many small trees, so that packs hold many."""
    rng = random.Random(0)
    small = [
        random_tree(100 + i, rng.randint(1, 60), [rng.randint(1, 30) for _ in range(rng.randint(1, 4))])
        for i in range(12)
    ]
    return [*example_trees(), *small]


def assert_equal(found, expected):
    assert len(found) == len(expected)
    assert all(len(f) == len(e) for f, e in zip(found, expected, strict=True))
    for tree_found, tree_expected in zip(found, expected, strict=True):
        for branch_found, branch_expected in zip(tree_found, tree_expected, strict=True):
            assert torch.equal(branch_found, branch_expected)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_alone_or_in_any_company(family, dtype, given):
    with Scorer(loaded(family, dtype), dtype=dtype) as scorer:
        alone = [scorer.score([tree])[0] for tree in given]
        for seed in range(3):
            order = random.Random(seed).sample(range(len(given)), len(given))
            for max_tokens in (470, 611, 10_000):
                found = scorer.score([given[i] for i in order], max_tokens=max_tokens)
                assert_equal(found, [alone[i] for i in order])


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_whatever_other_branches_the_tree_has(family, dtype, given):
    """Branches alone, in other orders, and in parts that repeat the trunk."""
    with Scorer(loaded(family, dtype), dtype=dtype) as scorer:
        whole = scorer.score(given)
        for tree, expected in zip(given, whole, strict=True):
            branches = list(range(len(tree.branches)))
            for branch in branches:
                assert_equal(scorer.score([subtree(tree, [branch])]), [[expected[branch]]])
            order = branches[::-1]
            reordered = make_pack([subtree(tree, branches)])
            assert torch.equal(scorer.token_logps(reordered), torch.cat(expected))
            turned = scorer.score([subtree(tree, order[: len(order) // 2])]) if len(order) > 1 else []
            assert_equal(
                turned, [[expected[branch] for branch in order[: len(order) // 2]]] if turned else []
            )
        parts = scorer.score(given[:5], max_tokens=40)
        assert_equal(parts, whole[:5])


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
def test_split_packs_are_really_split(dtype):
    """The budget cuts this tree, and the parts give the same bits."""
    tree = random_tree(0, 20, [15, 3, 9, 30, 1])
    with Scorer(loaded("llama", dtype), dtype=dtype) as scorer:
        forwards = count_forwards(scorer)
        whole = scorer.score([tree])
        assert forwards == [1]
        assert_equal(scorer.score([tree], max_tokens=50), whole)
        assert forwards == [4]


def count_forwards(scorer):
    count = [0]

    def counted(pack, mask, hidden=scorer._hidden):
        count[0] += 1
        return hidden(pack, mask)

    scorer._hidden = counted
    return count


@pytest.mark.parametrize("threads", [1, 2])
def test_on_any_number_of_threads(threads):
    given = example_trees()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with Scorer(loaded("llama", torch.bfloat16), dtype=torch.bfloat16) as scorer:
            assert_equal(scorer.score(given), [scorer.score([tree])[0] for tree in given])
    finally:
        torch.set_num_threads(before)


def test_a_mixture_of_experts_keeps_the_bounds(given):
    """Experts see as many rows as choose them, so their bits are the pack's; their numbers are not."""
    model = long_tiny("mixtral", dtype=torch.float32)
    with Scorer(model, dtype=torch.float32) as scorer:
        packed = [part for tree in scorer.score(given) for part in tree]
    assert token_error(packed, truth_of(model, given, gradients=False).logps) < 1e-5


def test_with_gradients_on_it_is_the_same():
    """The policy at step 0 has the bits of the reference, whichever of them keeps a graph."""
    tree = random_tree(0, 20, [15, 3])
    with Scorer(tiny("llama", dtype=torch.float32), dtype=torch.bfloat16) as scorer:
        policy = scorer.token_logps(make_pack([tree]))
        assert policy.requires_grad
        assert torch.equal(policy.detach(), torch.cat(scorer.score([tree])[0]))


def test_smollm2_in_bfloat16(smollm2):
    """Real weights, real lengths: an embedded model's four answers to one prompt, alone, packed and in parts."""
    model, tokenizer = smollm2.model, smollm2.tokenizer
    sampled = random_tree(1, 90, [40, 7, 24, 31], vocab=49152)
    given = [text_tree(tokenizer, *RAIN), sampled, text_tree(tokenizer, *RICE)]
    with Scorer(model, dtype=torch.bfloat16) as scorer:
        packed = scorer.score(given)
        assert_equal([scorer.score([tree])[0] for tree in given], packed)
        assert_equal(scorer.score(given[::-1], max_tokens=170)[::-1], packed)
