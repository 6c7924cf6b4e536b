"""The scorer as its callers meet it: installed and taken away, checkpointed, adapted, past rotary limits."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from likelier.data.trees import tree_of
from likelier.errors import DataError
from likelier.models.adapters import add_lora
from likelier.models.noise import silence_noise
from likelier.scoring.equality import choose_way
from likelier.scoring.forward import Forward
from likelier.scoring.packing import Pack, make_pack
from likelier.scoring.scorer import Scorer
from tests.models.families import tiny
from tests.scoring.test_families import long_tiny
from tests.scoring.trees import example_trees, random_tree
from tests.scoring.truth import (
    TRUTH,
    gradient_error,
    logp_error,
    plain_row,
    plain_rows,
    token_error,
    truth_of,
    with_gradients,
)


def scored(scorer, model, given):
    pack = make_pack(given)
    return with_gradients(model, list(scorer.token_logps(pack).split(list(pack.lengths))))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "falcon", "bloom"])
def test_plain_and_close_give_the_model_back(family):
    model = long_tiny(family, dtype=torch.float32)
    ids = torch.arange(5, 40)[None]
    before = model(input_ids=ids, use_cache=False).logits
    attention = model.config._attn_implementation
    way = choose_way(model).way
    tree = random_tree(0, 10, [5, 6])
    with Scorer(model, dtype=torch.bfloat16 if way == "tree" else torch.float32, way=way) as scorer:
        first = scorer.score([tree])[0]
        with scorer.plain() as plain:
            assert plain is model
            assert model.config._attn_implementation == attention
            assert torch.equal(model(input_ids=ids, use_cache=False).logits, before)
        assert all(torch.equal(a, b) for a, b in zip(scorer.score([tree])[0], first, strict=True))
        assert any("forward" in vars(module) for module in model.modules())
    assert model.config._attn_implementation == attention
    assert all("forward" not in vars(module) for module in model.modules())
    assert torch.equal(model(input_ids=ids, use_cache=False).logits, before)


def test_plain_gives_it_back_after_an_error_inside():
    model = tiny("llama", dtype=torch.float32)
    with Scorer(model, dtype=torch.bfloat16) as scorer:
        first = scorer.score([random_tree(0, 10, [5])])[0][0]
        with pytest.raises(RuntimeError, match="inside"), scorer.plain():
            raise RuntimeError("inside")
        assert torch.equal(scorer.score([random_tree(0, 10, [5])])[0][0], first)


def checkpoint(model):
    """Under the name that this version of transformers has for it."""
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable({"use_reentrant": False})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_gradient_checkpointing_changes_no_gradient(family, dtype):
    """Recomputed in the same shapes: the same bits."""
    model = long_tiny(family, dtype=torch.float32)
    given = example_trees()
    with Scorer(model, dtype=dtype) as scorer:
        whole = scored(scorer, model, given)
        checkpoint(model)
        silence_noise(model.train())
        again = scored(scorer, model, given)
        assert scorer.forward.attention_calls == model.config.num_hidden_layers
    assert all(torch.equal(a, b) for a, b in zip(again.logps, whole.logps, strict=True))
    assert gradient_error(again.gradients, whole.gradients) < 1e-7


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3"])
def test_lora_against_plain_peft(family):
    """Adapters that are not zero, rows through peft's own forward."""
    base = long_tiny(family, dtype=torch.float32)
    model = add_lora(base, rank=4, seed=0)
    assert isinstance(model, PeftModel)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.1, generator=generator)
    given = example_trees()
    expected = with_gradients(model, plain_rows(model, given))
    choice = choose_way(model)
    with Scorer(model, dtype=torch.float32, way=choice.way, own_head=choice.own_head) as scorer:
        assert choice.way == "tree"
        ours = scored(scorer, model, given)
        with model.disable_adapter():
            off = scorer.score(given)
    assert logp_error(ours.logps, expected.logps) < 1e-5
    assert gradient_error(ours.gradients, expected.gradients) < 1e-5
    names = [name for name, _ in model.named_parameters()]
    found = {name for name, gradient in zip(names, ours.gradients, strict=True) if gradient is not None}
    assert found == {name for name in names if "lora_" in name}
    # Off, the adapter is the base model.
    plain = truth_of(long_tiny(family, dtype=torch.float32), given, gradients=False)
    assert logp_error([part for tree in off for part in tree], plain.logps) < 1e-5


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_an_adapter_on_the_head(family):
    """The head's own weight alone is not the model's logits: they come from the model."""
    base = long_tiny(family, dtype=torch.float32, tie_word_embeddings=False)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "lm_head"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    given = example_trees()
    choice = choose_way(model)
    expected = truth_of(model.get_base_model(), given)
    with Scorer(model, dtype=torch.float32, way=choice.way, own_head=choice.own_head) as scorer:
        assert choice.way == "tree"
        ours = scored(scorer, model, given)
        packed = [part for tree in scorer.score(given) for part in tree]
        alone = [part for tree in given for part in scorer.score([tree])[0]]
        assert not scorer.own_head
    assert all(torch.equal(a, b) for a, b in zip(alone, packed, strict=True))
    assert token_error(ours.logps, expected.logps) < 1e-5
    assert gradient_error(ours.gradients, expected.gradients) < 1e-5


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
def test_frozen_parameters_get_no_gradient_and_the_others_the_same(dtype, bound):
    """But for rounding: a frozen layer has a backward product of its own."""
    model = tiny("llama", dtype=torch.float32)
    given = [random_tree(0, 10, [5, 6])]
    with Scorer(model, dtype=dtype) as scorer:
        whole = scored(scorer, model, given)
    for parameter in model.model.layers[0].parameters():
        parameter.requires_grad_(False)
    model.model.layers[1].self_attn.k_proj.weight.requires_grad_(False)
    with Scorer(model, dtype=dtype) as scorer:
        part = scored(scorer, model, given)
    for parameter, gradient, expected in zip(
        model.parameters(), part.gradients, whole.gradients, strict=True
    ):
        assert (gradient is None) == (not parameter.requires_grad)
        assert gradient is None or gradient_error([gradient], [expected]) < bound


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gpt2"])
@pytest.mark.parametrize("vocab", [97, 131])
def test_heads_tied_or_not_capped_or_not_of_any_size(family, vocab):
    """The chunked head and the model's own logits are the same function."""
    tied = {"tie_word_embeddings": family in ("qwen2", "gpt2", "gemma2")}
    model = tiny(family, vocab_size=vocab, **tied)
    given = [random_tree(0, 10, [5, 6], vocab=97), random_tree(1, 3, [20], vocab=97)]
    expected = truth_of(model, given)
    for own_head in (True, False):
        with Scorer(model, dtype=torch.float64, own_head=own_head) as scorer:
            ours = scored(scorer, model, given)
        assert token_error(ours.logps, expected.logps) < 1e-12
        assert gradient_error(ours.gradients, expected.gradients) < 1e-6


@pytest.mark.parametrize("way", ["tree", "rows"])
@pytest.mark.parametrize("own_head", [True, False])
def test_nothing_to_score(way, own_head):
    """Trees whose branches have no scored token have a log-prob of 0 and a gradient of 0."""
    model = tiny("llama", dtype=torch.float32)
    with Scorer(model, dtype=torch.float32, way=way, own_head=own_head) as scorer:
        pack = make_pack([tree_of([4, 5], [[], []])])
        assert scorer.branch_logps(pack).tolist() == [0.0, 0.0]
        gradients = torch.autograd.grad(
            scorer.branch_logps(pack).sum(), model.parameters(), allow_unused=True
        )
        assert all(g is None or not g.any() for g in gradients)
        assert scorer.score([]) == []


def test_updates_reach_the_working_copies_on_refresh():
    """Of bfloat16 copies and of products that several layers share, in float32 too."""
    given = [random_tree(0, 10, [5, 6])]
    for dtype in (torch.float32, torch.bfloat16):
        model = tiny("llama", dtype=torch.float32)
        with Scorer(model, dtype=dtype) as scorer:
            before = scorer.score(given)[0][0]
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.01)
            scorer.kernels.refresh()
            after = scorer.score(given)[0][0]
        with Scorer(model, dtype=dtype) as fresh:
            assert torch.equal(after, fresh.score(given)[0][0])
        assert not torch.equal(after, before)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "gemma2"])
def test_gradients_added_in_place_are_the_same_sums(family):
    """What a training loop does: `backward` after `backward`, tied embeddings and several parts of the head too."""
    model = tiny(family, dtype=torch.float32)
    given = [random_tree(i, 10, [5, 6]) for i in range(3)]
    parameters = list(model.parameters())
    with Scorer(model, dtype=torch.float32) as scorer:
        packs = [make_pack([tree]) for tree in given]
        expected = torch.autograd.grad(sum(scorer.branch_logps(pack).sum() for pack in packs), parameters)
        for _ in range(2):  # The second time over what the first one left.
            with scorer.kernels.summing(parameters):
                for pack in packs:
                    scorer.branch_logps(pack).sum().backward()
    assert gradient_error([parameter.grad for parameter in parameters], list(expected)) < 1e-6


def test_score_each_gives_every_tree_once_as_soon_as_it_is_whole():
    model = tiny("llama", dtype=torch.float32)
    given = [random_tree(i, 10, [5] * (1 + i % 4)) for i in range(9)]
    with Scorer(model, dtype=torch.float32) as scorer:
        whole = scorer.score(given, max_tokens=1000)
        each = list(scorer.score_each(given, max_tokens=25))
    assert sorted(index for index, _ in each) == list(range(9))
    assert [index for index, _ in each] != list(range(9))
    for index, branches in each:
        assert len(branches) == len(given[index].branches)
        assert all(torch.equal(a, b) for a, b in zip(branches, whole[index], strict=True))


def test_a_branch_over_the_budget_is_refused_by_name():
    model = tiny("llama", dtype=torch.float32)
    with Scorer(model, dtype=torch.float32) as scorer, pytest.raises(DataError, match="--max-length 8"):
        scorer.score([tree_of([4] * 5, [[5] * 4])], max_tokens=8)


LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [2.0, 3.0, 4.0, 5.0],
    "original_max_position_embeddings": 64,
}
ROTARY = {
    "longrope": (
        "phi3",
        {
            "rope_parameters": LONGROPE,
            "original_max_position_embeddings": 64,
            "max_position_embeddings": 512,
            "sliding_window": None,
        },
    ),
    "dynamic": (
        "llama",
        {
            "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
            "max_position_embeddings": 64,
        },
    ),
}


def crossing_trees():
    """Below the limit of 64, one tree exactly at it, and trees with branches on both sides."""
    return [
        random_tree(0, 10, [5, 9]),
        random_tree(1, 40, [8, 60, 12, 80, 12]),
        random_tree(2, 30, [34, 35]),
        random_tree(3, 30, [2, 34]),
        random_tree(4, 60, [30]),
    ]


@pytest.mark.parametrize("kind", ROTARY)
def test_past_a_rotary_limit(kind):
    """Frequencies that would depend on the longest row of a call, or of any call before, depend on the row alone."""
    family, changes = ROTARY[kind]
    given = crossing_trees()
    expected = []
    for tree in given:
        for branch in range(len(tree.branches)):
            fresh = tiny(family, **changes)
            fresh.set_attn_implementation(TRUTH)
            expected.append([plain_row(fresh, tree, branch).detach()])
    expected = [part for (part,) in expected]
    model = tiny(family, **changes)
    assert choose_way(model).way == "tree"
    with Scorer(model, dtype=torch.float64) as scorer:
        packs = scorer.make_packs(given)
        assert sorted(map(sorted, packs)) == [[0, 3], [1], [2], [4]]
        for order in (given, given[::-1], given):
            found = scorer.score(order)
            found = found if order is given else found[::-1]
            assert token_error([part for tree in found for part in tree], expected) < 1e-12
        # A pack of its own making: still exact, and with a gradient.
        pack = make_pack(given)
        assert (
            token_error(list(scorer.token_logps(pack).detach().split(list(pack.lengths))), expected) < 1e-12
        )


def test_without_a_rotary_limit_all_trees_share_packs():
    model = long_tiny("llama")
    with Scorer(model, dtype=torch.float64) as scorer:
        assert len(scorer.make_packs(crossing_trees())) == 1


def test_every_pack_goes_to_the_models_device(monkeypatch):
    """No other device is to be had here: each pack that the model is shown must be one that was moved."""
    moved, read = [], []
    move, hidden = Pack.to, Forward.hidden

    def moving(pack, device):
        moved.append(move(pack, device))
        return moved[-1]

    def reading(forward, pack, mask):
        read.append(pack.input_ids)
        return hidden(forward, pack, mask)

    monkeypatch.setattr(Pack, "to", moving)
    monkeypatch.setattr(Forward, "hidden", reading)
    with Scorer(tiny("llama", dtype=torch.float32), dtype=torch.float32) as scorer:
        scorer.score(example_trees())
    assert len(read) >= 2
    assert {id(ids) for ids in read} <= {id(pack.input_ids) for pack in moved}
