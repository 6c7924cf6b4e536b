"""Experts and routers: families of mixtures beyond the common list, each way in which transformers lays experts out."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

from likelier.scoring.equality import choose_way
from likelier.scoring.experts import Experts, experts_of, owns_a_matrix
from likelier.scoring.packing import make_pack
from likelier.scoring.products import fixed_rows_linear
from likelier.scoring.scorer import Scorer
from tests.models.families import FAMILIES, tiny
from tests.scoring.trees import example_trees, random_tree
from tests.scoring.truth import gradient_error, token_error, truth_of, with_gradients

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "hidden_act": "silu",
    "swiglu_limit": 7.0,
    "swiglu_alpha": 1.702,
    "_experts_implementation": "eager",
}
LAID_OUT = [MixtralExperts, GptOssExperts]
"""Gate beside up without biases; interleaved, transposed, with biases."""


def filled(kind, **changes):
    module = kind(SimpleNamespace(**{**SIZES, **changes}))
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data.normal_(std=0.3, generator=generator)
    return module


def routed(tokens, *, width=16, seed=0):
    """Inputs, experts and their shares; the fourth expert is never chosen."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, width, generator=generator)
    index = torch.stack([torch.randperm(4, generator=generator)[:2] for _ in range(tokens)])
    return x, index + (index > 2), torch.rand(tokens, 2, generator=generator)


@pytest.mark.parametrize("kind", LAID_OUT)
def test_values_and_gradients_are_the_modules_own(kind):
    module = filled(kind)
    ours = experts_of(module, torch.float32, fixed_rows_linear)
    assert ours is not None
    x, index, share = routed(150)
    x.requires_grad_()
    share.requires_grad_()
    wanted = [x, share, *module.parameters()]
    weights = torch.linspace(-1, 1, 150 * 16).view(150, 16)
    found, expected = (forward(x, index, share) for forward in (ours, module))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    gradients = [list(torch.autograd.grad((out * weights).sum(), wanted)) for out in (found, expected)]
    assert gradient_error(*gradients) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", LAID_OUT)
def test_a_token_has_the_same_bits_whoever_shares_its_experts(kind, dtype):
    ours = experts_of(filled(kind), dtype, fixed_rows_linear)
    x, index, share = routed(150)
    whole = ours(x, index, share)
    for start, stop in [(0, 1), (7, 9), (100, 150)]:
        part = slice(start, stop)
        assert torch.equal(ours(x[part], index[part], share[part]), whole[part])


def test_an_update_reaches_the_copies_on_refresh():
    module = filled(MixtralExperts)
    ours = experts_of(module, torch.bfloat16, fixed_rows_linear)
    x, index, share = routed(9)
    before = ours(x, index, share)
    with torch.no_grad():
        module.down_proj.mul_(2)
    assert torch.equal(ours(x, index, share), before)
    ours.refresh()
    assert torch.equal(ours(x, index, share), 2 * before)


def test_experts_of_another_kind_keep_their_own_forward():
    class Halved(MixtralExperts):
        def _apply_gate(self, hidden):
            return super()._apply_gate(hidden) / 2

    assert experts_of(filled(Halved), torch.float32, fixed_rows_linear) is None
    assert experts_of(nn.Linear(4, 4), torch.float32, fixed_rows_linear) is None


def test_who_multiplies_by_a_weight_of_its_own():
    assert owns_a_matrix(nn.Conv1d(4, 4, 2))
    assert owns_a_matrix(filled(MixtralExperts))
    for module in (nn.Linear(4, 4), nn.Embedding(4, 4), nn.LayerNorm(4), nn.Sequential(nn.Conv1d(4, 4, 2))):
        assert not owns_a_matrix(module)


_SIX = {**FAMILIES["llama"], "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
MIXTURES = {
    "qwen2_moe": {**_SIX, "shared_expert_intermediate_size": 24},
    "qwen3_moe": {**_SIX, "head_dim": 8},
    "olmoe": _SIX,
    "granitemoe": FAMILIES["mixtral"],
}


@pytest.mark.parametrize("family", MIXTURES)
def test_mixtures_in_packs(family, monkeypatch):
    """Shared experts behind a sigmoid, norms of queries, routers of all sorts: exact, the same bits in every pack."""
    monkeypatch.setitem(FAMILIES, family, MIXTURES[family])
    model = tiny(family, dtype=torch.float32, max_position_embeddings=512)
    choice = choose_way(model)
    assert choice.way == "tree"
    given = [*example_trees(), *(random_tree(50 + i, 20 + i, [9, 30, 5]) for i in range(3))]
    expected = truth_of(model, given)
    for dtype in (torch.float32, torch.bfloat16):
        with Scorer(model, dtype=dtype, way=choice.way, own_head=choice.own_head) as scorer:
            assert sum(isinstance(weights, Experts) for weights in scorer.kernels._weights) == 2
            packed = [part for tree in scorer.score(given) for part in tree]
            alone = [part for tree in given for part in scorer.score([tree])[0]]
            assert all(torch.equal(a, b) for a, b in zip(alone, packed, strict=True))
            if dtype == torch.float32:
                pack = make_pack(given)
                ours = with_gradients(model, list(scorer.token_logps(pack).split(list(pack.lengths))))
    assert token_error(ours.logps, expected.logps) < 1e-5
    assert gradient_error(ours.gradients, expected.gradients) < 1e-5
