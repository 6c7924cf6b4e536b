"""The check at load: whatever a model does with a tree, it is scored exactly or by ordinary rows."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from likelier.models.shrinking import shrunken
from likelier.scoring.equality import choose_way
from likelier.scoring.packing import make_pack
from likelier.scoring.scorer import Scorer
from tests.models.families import FAMILIES, tiny
from tests.scoring.test_families import long_tiny
from tests.scoring.trees import example_trees, random_tree
from tests.scoring.truth import gradient_error, logp_error, plain_rows, token_error, with_gradients

LLAMA = {key: value for key, value in FAMILIES["llama"].items() if key != "max_position_embeddings"}


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """A mask is taken, though its last bits are the pack's."""
    monkeypatch.setattr("likelier.scoring.equality._keeps_bits", lambda way, device: True)


def shift(hidden, by):
    """Each token also hears its left neighbour in the flat row."""
    return hidden + by * torch.nn.functional.pad(hidden, (0, 0, 1, 0))[:, :-1]


class Leaky(LlamaForCausalLM):
    """Causal, and so right on ordinary rows; in a flat row branches hear each other."""

    strength = 0.5

    def __init__(self, config):
        super().__init__(config)
        self.model.layers[0].register_forward_pre_hook(
            lambda module, args: (shift(args[0], self.strength), *args[1:])
        )


class FaintlyLeaky(Leaky):
    """By a few 1e-5 of the log-probs, and past the twelfth token: the check on the real weights ends there."""

    strength = 0.0003

    def __init__(self, config):
        LlamaForCausalLM.__init__(self, config)
        self.model.layers[0].register_forward_pre_hook(
            lambda module, args: (
                torch.cat([args[0][:, :12], shift(args[0], self.strength)[:, 12:]], 1),
                *args[1:],
            )
        )


def replace_mask(model, change):
    """Let every attention layer get `change(mask)` for its mask."""
    for layer in model.model.layers:
        layer.self_attn.register_forward_pre_hook(
            lambda module, args, given: (args, {**given, "attention_mask": change(given["attention_mask"])}),
            with_kwargs=True,
        )


class LosesTheTree(LlamaForCausalLM):
    """Copies the mask on its way: what was attached to it is gone."""

    def __init__(self, config):
        super().__init__(config)
        replace_mask(self, lambda mask: None if mask is None else mask.clone())


class LosesTheTreeOnce(LosesTheTree):
    """Only its last layer does."""

    def __init__(self, config):
        LlamaForCausalLM.__init__(self, config)
        replace_mask(self, lambda mask: mask)
        self.model.layers[-1].self_attn.register_forward_pre_hook(
            lambda module, args, given: (
                (args, {**given, "attention_mask": given["attention_mask"].clone()})
                if given["attention_mask"] is not None
                else None
            ),
            with_kwargs=True,
        )


class WindowByMaskOnly(MistralForCausalLM):
    """Takes no tree, and its window is in the very mask that a dense tree replaces."""

    def __init__(self, config):
        super().__init__(config)
        replace_mask(self, lambda mask: None if mask is None else mask.clone())


class FlatWindow(LlamaForCausalLM):
    """Reads the tree, but what lies more than eight places back in the flat row is forgotten."""

    def __init__(self, config):
        super().__init__(config)
        for layer in self.model.layers:
            layer.self_attn.v_proj.register_forward_hook(self.fade)

    def fade(self, module, args, values):
        """Each value less the one that stood eight places before it: what a ring buffer of eight does."""
        return values - torch.nn.functional.pad(values, (0, 0, 8, 0))[:, : values.shape[1]]


def build(family, *, seed=0, **changes):
    config = (MistralConfig if issubclass(family, MistralForCausalLM) else LlamaConfig)(
        **{**LLAMA, "max_position_embeddings": 512, **changes}
    )
    torch.manual_seed(seed)
    model = family(config).eval()
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            parameter.data.normal_(std=1.4 / parameter.shape[-1] ** 0.5)
    return model


def forced(model, way, given):
    with Scorer(model, dtype=torch.float32, way=way) as scorer:
        pack = make_pack(given)
        return with_gradients(model, list(scorer.token_logps(pack).split(list(pack.lengths))))


@pytest.mark.parametrize(
    ("family", "way"),
    [
        (LlamaForCausalLM, "tree"),
        (Leaky, "rows"),
        (FaintlyLeaky, "rows"),
        (LosesTheTree, "mask"),
        (LosesTheTreeOnce, "mask"),
        (WindowByMaskOnly, "rows"),
        (FlatWindow, "rows"),
    ],
)
def test_each_fault_finds_its_way_and_is_exact_on_it(family, way, as_on_a_gpu):
    model = build(family, **({"sliding_window": 8} if family is WindowByMaskOnly else {}))
    given = example_trees()
    choice = choose_way(model)
    assert choice.way == way
    for refused in {"tree": [], "mask": ["tree attention"], "rows": ["tree attention", "a dense mask"]}[way]:
        assert f"{refused}: " in choice.why
    expected = with_gradients(model, plain_rows(model, given))
    ours = forced(model, choice.way, given)
    assert logp_error(ours.logps, expected.logps) < 1e-5
    assert gradient_error(ours.gradients, expected.gradients) < 1e-5


@pytest.mark.parametrize(("family", "calls"), [(LosesTheTree, 0), (LosesTheTreeOnce, 1)])
def test_layers_that_never_saw_the_tree_are_counted(family, calls):
    assert f"{calls} of 2 layers called it" in choose_way(build(family)).why


@pytest.mark.parametrize("way", ["tree", "mask"])
@pytest.mark.parametrize("family", [Leaky, FlatWindow])
def test_the_refused_ways_are_wrong_indeed(family, way):
    model = build(family)
    given = example_trees()
    expected = plain_rows(model, given)
    assert token_error(forced(model, way, given).logps, [part.detach() for part in expected]) > 1e-3


def test_window_in_the_flat_row_of_a_real_family():
    """GPT-Neo counts its local layers' window in places of the row, mask or not."""
    FAMILIES["gpt_neo"] = GPT_NEO
    try:
        model = tiny("gpt_neo", dtype=torch.float32)
    finally:
        del FAMILIES["gpt_neo"]
    choice = choose_way(model)
    assert choice.way == "rows"
    assert "log-probs differ" in choice.why
    given = [random_tree(0, 20, [15, 3, 12])]
    expected = with_gradients(model, plain_rows(model, given))
    assert logp_error(forced(model, "rows", given).logps, expected.logps) < 1e-5


GPT_NEO = {
    "vocab_size": 128,
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 4,
    "attention_types": [[["global", "local"], 1]],
    "window_size": 8,
    "max_position_embeddings": 256,
    "intermediate_size": 48,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.mark.parametrize("family", ["stablelm", "nemotron"])
def test_families_that_drop_keyword_arguments_get_the_tree_all_the_same(family):
    """The tree travels on the mask."""
    FAMILIES[family] = FAMILIES["llama"]
    try:
        model = tiny(family, dtype=torch.float32, max_position_embeddings=512)
    finally:
        del FAMILIES[family]
    assert choose_way(model).way == "tree"
    given = example_trees()
    expected = with_gradients(model, plain_rows(model, given))
    ours = forced(model, "tree", given)
    assert logp_error(ours.logps, expected.logps) < 1e-5
    assert gradient_error(ours.gradients, expected.gradients) < 1e-5


def test_the_real_weights_are_checked_too():
    """A leak that only this instance has: the small copy of its class knows nothing of it."""
    model = tiny("llama", dtype=torch.float32)
    assert choose_way(model).way == "tree"
    model.model.layers[0].register_forward_pre_hook(lambda module, args: (shift(args[0], 0.5), *args[1:]))
    assert shrunken(model).model.layers[0]._forward_pre_hooks == {}
    choice = choose_way(model)
    assert choice.way == "rows"
    assert choice.why.count("on the model's own weights log-probs differ") == 2


@pytest.mark.parametrize("change", [{"final_logit_softcapping": 3.0}, {}])
def test_a_head_that_is_not_the_configurations_is_not_chunked(change):
    """The model's own logits are taken where ours would be others."""

    class Tempered(LlamaForCausalLM):
        def forward(self, *args, **given):
            out = super().forward(*args, **given)
            out.logits = out.logits / 1.5
            return out

    model = build(Tempered, **change)
    choice = choose_way(model)
    assert (choice.way, choice.own_head) == ("tree", False)
    given = example_trees()[:5]
    expected = with_gradients(model, plain_rows(model, given))
    with Scorer(model, dtype=torch.float32, own_head=choice.own_head) as scorer:
        pack = make_pack(given)
        ours = with_gradients(model, list(scorer.token_logps(pack).split(list(pack.lengths))))
    assert logp_error(ours.logps, expected.logps) < 1e-5
    assert gradient_error(ours.gradients, expected.gradients) < 1e-5


def test_the_check_leaves_the_model_as_it_was():
    model = long_tiny("gemma2", dtype=torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attention = model.config._attn_implementation
    choose_way(model)
    assert model.config._attn_implementation == attention
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all("forward" not in vars(module) for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
