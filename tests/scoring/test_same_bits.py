"""On CPU a tree's log-probs are the same bits in every pack, in every precision."""

import random

import pytest
import torch

from likelier.scoring.equality import choose_way
from likelier.scoring.packing import make_pack, subtree
from likelier.scoring.scorer import Scorer
from tests.models.families import TREE_FAMILIES, tiny
from tests.scoring.test_families import RAIN, RICE, long_tiny, text_tree
from tests.scoring.trees import example_trees, nested_tree, random_tree

FAMILIES = (*TREE_FAMILIES, "mixtral", "deepseek_v3")
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
@pytest.mark.parametrize("family", FAMILIES)
def test_alone_or_in_any_company(family, dtype, given):
    with Scorer(loaded(family, dtype), dtype=dtype) as scorer:
        alone = [scorer.score([tree])[0] for tree in given]
        for seed in range(3):
            order = random.Random(seed).sample(range(len(given)), len(given))
            for max_tokens in (470, 611, 10_000):
                found = scorer.score([given[i] for i in order], max_tokens=max_tokens)
                assert_equal(found, [alone[i] for i in order])


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("family", ["falcon", "gptj", "codegen", "bloom", "mamba"])
def test_families_that_take_no_tree(family, dtype, given):
    """A dense mask would give other bits in another pack: on a CPU they go as ordinary rows."""
    model = loaded(family, dtype)
    choice = choose_way(model)
    with Scorer(model, dtype=dtype, way=choice.way, own_head=choice.own_head) as scorer:
        packed = scorer.score(given[2:])
        assert_equal([scorer.score([tree])[0] for tree in given[2:]], packed)
        assert_equal(scorer.score(given[:1:-1], max_tokens=470)[::-1], packed)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "mixtral", "deepseek_v3"])
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_branches_of_one_length_on_more_threads_than_heads(family, dtype):
    """In one batch of products they would have other bits than alone: the library shares those out by their number."""
    tree = random_tree(0, 130, [45] * 4 + [7] * 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(8)
    try:
        with Scorer(loaded(family, dtype), dtype=dtype) as scorer:
            whole = scorer.score([tree])[0]
            for branches in ([0], [3], [1, 2], [0, 3, 5]):
                found = scorer.score([subtree(tree, branches)])
                assert_equal(found, [[whole[branch] for branch in branches]])
    finally:
        torch.set_num_threads(threads)


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

    def counted(pack, mask, hidden=scorer.forward.hidden):
        count[0] += 1
        return hidden(pack, mask)

    scorer.forward.hidden = counted
    return count


WIDE = {
    "llama": {
        "hidden_size": 576,
        "intermediate_size": 577,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "gemma2": {
        "hidden_size": 576,
        "intermediate_size": 1537,
        "head_dim": 64,
        "num_hidden_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "gpt_neox": {"hidden_size": 576, "intermediate_size": 1538, "num_attention_heads": 9},
    "mixtral": {"hidden_size": 320, "intermediate_size": 770},
}
"""At widths of real models a row of numbers is shared out between threads at other places than at tiny ones."""


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("family", WIDE)
def test_at_real_widths_on_any_number_of_threads(family, dtype, threads):
    masters = torch.float64 if dtype == torch.float64 else torch.float32
    model = tiny(family, dtype=masters, vocab_size=331, max_position_embeddings=512, **WIDE[family])
    given = [
        random_tree(0, 37, [41, 3, 17]),
        random_tree(1, 90, [33, 34]),
        random_tree(2, 5, [1]),
        nested_tree(3),
    ]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with Scorer(model, dtype=dtype) as scorer:
            packed = scorer.score(given)
            assert_equal([scorer.score([tree])[0] for tree in given], packed)
            assert_equal(scorer.score(given[::-1], max_tokens=130)[::-1], packed)
    finally:
        torch.set_num_threads(before)


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
