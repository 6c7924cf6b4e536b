"""Tree attention against a dense reference: all tokens at once, who sees whom written out as a matrix."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import Module
from transformers import AttentionInterface

from likelier.scoring.attention import ATTENTION, TreePlan, tree_attention
from likelier.scoring.packing import make_pack
from tests.scoring.trees import nested_tree, random_tree, trees


def seen(forest, window):
    """`[T, T]` bool: token i sees j if j is on its path, not after it, and within the window of the path."""
    above, position = [], []
    for tree in forest:
        first = len(above)
        for node, own in enumerate(tree.nodes):
            path = tree.path(node)
            before = sum(len(tree.nodes[n].tokens) for n in path[:-1])
            above += [{(first, n) for n in path}] * len(own.tokens)
            position += range(before, before + len(own.tokens))
    owners = [
        (first, node)
        for first, tree in zip(starts(forest), forest, strict=True)
        for node, own in enumerate(tree.nodes)
        for _ in own.tokens
    ]
    on_path = torch.tensor([[owner in nodes for owner in owners] for nodes in above])
    distance = torch.tensor(position)[:, None] - torch.tensor(position)[None, :]
    return on_path & (distance >= 0) & (distance < (window or 1 << 30))


def starts(forest):
    """The flat index at which each tree begins: its name here."""
    return [sum(tree.num_tokens for tree in forest[:number]) for number in range(len(forest))]


def dense(query, key, value, visible, scale, softcap):
    """`[1, heads, T, D]` -> `[1, T, heads, Dv]`, head by head."""
    group = query.shape[1] // key.shape[1]
    out = []
    for head in range(query.shape[1]):
        scores = query[0, head] @ key[0, head // group].T * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        weights = torch.softmax(scores.masked_fill(~visible, -torch.inf), dim=-1)
        out.append(weights @ value[0, head // group])
    return torch.stack(out, dim=1)[None]


def heads_of(forest, *, key_heads, group, width, value_width, dtype=torch.float64, seed=0):
    size = make_pack(forest).num_tokens
    generator = torch.Generator().manual_seed(seed)
    shapes = [(key_heads * group, width), (key_heads, width), (key_heads, value_width)]
    return [
        torch.randn(1, count, size, wide, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()
        for count, wide in shapes
    ]


def run(forest, query, key, value, **settings_):
    plan = TreePlan(make_pack(forest).spans)
    out, weights = tree_attention(Module(), query, key, value, plan.carrier(query.device), **settings_)
    assert weights is None
    assert plan.calls == 1
    return out


def relative(ours, expected):
    ours, expected = ours.detach(), expected.detach()
    return float((ours - expected).norm() / expected.norm().clamp(min=1e-300))


def compare(forest, *, window, softcap, scale=None, **shape):
    query, key, value = inputs = heads_of(forest, **shape)
    ours = run(forest, *inputs, scaling=scale, sliding_window=window, softcap=softcap)
    by = query.shape[-1] ** -0.5 if scale is None else scale
    expected = dense(query, key, value, seen(forest, window), by, softcap)
    assert ours.shape == expected.shape
    assert relative(ours, expected) < 1e-13
    weights = torch.linspace(-1, 1, ours.numel(), dtype=torch.float64).view_as(ours) + 0.2
    found = torch.autograd.grad((ours * weights).sum(), inputs)
    truth = torch.autograd.grad((expected * weights).sum(), inputs)
    total = torch.cat([g.flatten() for g in truth])
    assert relative(torch.cat([g.flatten() for g in found]), total) < 1e-12


@settings(deadline=None, max_examples=60)
@given(
    forest=st.lists(trees(), min_size=1, max_size=3),
    key_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    width=st.integers(1, 9),
    value_width=st.integers(1, 9),
    window=st.none() | st.integers(1, 20),
    softcap=st.none() | st.floats(0.5, 50.0),
    scale=st.none() | st.floats(0.05, 2.0),
)
def test_random_trees_against_the_dense_reference(forest, **case):
    forest = [tree for tree in forest if tree.num_tokens]
    if forest:
        compare(forest, **case)


@pytest.mark.parametrize("window", [None, 1, 100, 200])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_past_the_block_of_queries(window, softcap):
    """128 queries are one block: trunks and branches of one less, the same, and more than two."""
    forest = [random_tree(0, 150, [300, 127]), random_tree(1, 128, [129])]
    compare(forest, window=window, softcap=softcap, key_heads=2, group=2, width=4, value_width=3)


@pytest.mark.parametrize("case", [(None, None), (3, None), (None, 1.5), (3, 1.5)])
def test_the_backward_by_differences(case):
    window, softcap = case
    forest = [nested_tree(0)]
    inputs = heads_of(forest, key_heads=1, group=2, width=2, value_width=3)

    def attend(query, key, value):
        return run(forest, query, key, value, sliding_window=window, softcap=softcap)

    assert torch.autograd.gradcheck(attend, inputs, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_and_softmax_are_never_in_half_precision(dtype):
    """The only rounding of bfloat16 is that of the inputs and of the result."""
    forest = [random_tree(0, 40, [30, 20]), nested_tree(1)]
    inputs = heads_of(forest, key_heads=2, group=2, width=16, value_width=16, dtype=dtype)
    ours = run(forest, *inputs)
    expected = dense(*(x.double() for x in inputs), seen(forest, None), 0.25, None)
    assert ours.dtype == dtype
    rounded = relative(expected.to(dtype).double(), expected)
    assert relative(ours.double(), expected) < max(1.01 * rounded, 3e-7)


def test_the_backward_is_the_same_every_time():
    forest = [random_tree(0, 30, [20] * 8)]
    inputs = heads_of(forest, key_heads=2, group=2, width=8, value_width=8, dtype=torch.float32)
    runs = [torch.autograd.grad(run(forest, *inputs).square().sum(), inputs) for _ in range(5)]
    for again in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(again, runs[0], strict=True))


def test_without_a_tree_it_is_ordinary_attention():
    query, key, value = heads_of([random_tree(0, 5, [4])], key_heads=2, group=2, width=4, value_width=4)
    layer = Module()
    layer.is_causal, layer.num_key_value_groups = True, 2
    ours, _ = tree_attention(layer, query, key, value, None)
    causal = torch.ones(9, 9).tril().bool()
    assert relative(ours, dense(query, key, value, causal, 0.5, None)) < 1e-14


def test_without_a_tree_a_soft_cap_is_refused():
    """Ordinary sdpa would leave the cap out."""
    inputs = heads_of([random_tree(0, 5, [4])], key_heads=2, group=2, width=4, value_width=4)
    with pytest.raises(ValueError, match="attn_implementation='eager'"):
        tree_attention(Module(), *inputs, None, softcap=30.0)


def test_it_is_registered_by_name():
    assert AttentionInterface()[ATTENTION] is tree_attention


def test_the_variable_length_kernel_reads_the_same_tree():
    """What the CUDA kernel is told, run here as ordinary attention per sequence."""
    forest = [random_tree(0, 6, [4, 3]), nested_tree(1)]
    query, key, value = heads_of(forest, key_heads=2, group=1, width=4, value_width=4)
    plan = TreePlan(make_pack(forest).spans)
    index, query_ends, key_ends, longest_query, longest_keys = plan.varlen(torch.device("cpu"))
    assert longest_query == int(query_ends.diff().max())
    assert longest_keys == int(key_ends.diff().max())
    out = []
    for i in range(len(query_ends) - 1):
        q = query[:, :, query_ends[i] : query_ends[i + 1]]
        k, v = (x.index_select(2, index[key_ends[i] : key_ends[i + 1]]) for x in (key, value))
        bottom_right = torch.ones(q.shape[2], k.shape[2]).tril(k.shape[2] - q.shape[2]).bool()
        out.append(torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bottom_right))
    expected = dense(query, key, value, seen(forest, None), 0.5, None)
    assert relative(torch.cat(out, dim=2).transpose(1, 2), expected) < 1e-14
