"""The kernels apart from any model: fixed shapes, one product for layers that share an input, and their gradients."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, PreTrainedConfig
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm
from transformers.pytorch_utils import Conv1D

from likelier.scoring.head import LogitShape
from likelier.scoring.kernels import Kernels
from likelier.scoring.products import fixed_rows_linear


def relative(ours, expected):
    ours, expected = ours.detach(), expected.detach()
    return float((ours.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_row_keeps_its_bits_wherever_it_stands(dtype, bias, transposed):
    """Alone, first or last of many, in a full block or in the padded one; weights as Linear and Conv1D lay them."""
    torch.manual_seed(0)
    for width, features in [(7, 5), (64, 192), (96, 33), (384, 352)]:
        matrix = torch.randn(features, width).to(dtype)
        matrix = matrix.T.contiguous().T if transposed else matrix
        offset = torch.randn(features).to(dtype) if bias else None
        x = torch.randn(700, width).to(dtype)
        whole = fixed_rows_linear(x, matrix, offset)
        expected = x.double() @ matrix.double().T + (offset.double() if bias else 0)
        assert (
            relative(whole, expected)
            < {torch.bfloat16: 4e-3, torch.float32: 1e-6, torch.float64: 1e-14}[dtype]
        )
        for start, stop in [
            (0, 1),
            (3, 4),
            (255, 257),
            (256, 512),
            (511, 700),
            (600, 700),
            (60, 640),
            (5, 5),
        ]:
            assert torch.equal(fixed_rows_linear(x[start:stop], matrix, offset), whole[start:stop])


class Block(nn.Module):
    """Queries, keys and values of one input, a Conv1D, a norm and a gated MLP: every kind that is replaced."""

    def __init__(self, bias):
        super().__init__()
        self.norm = LlamaRMSNorm(16)
        self.q, self.k = nn.Linear(16, 16, bias=bias), nn.Linear(16, 8)
        self.conv = Conv1D(16, 16)
        config = LlamaConfig(hidden_size=16, intermediate_size=24, num_attention_heads=2, mlp_bias=bias)
        self.mlp = LlamaMLP(config)

    def forward(self, x):
        h = self.norm(x)
        y = self.q(h).to(x.dtype) + torch.cat([self.k(h)] * 2, -1).to(x.dtype)
        x = x + y
        x = x + self.conv(x)
        return x + self.mlp(self.norm(x))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 3e-2)], ids=str)
def test_kernels_are_the_modules_they_replace(dtype, bound, bias):
    """Values and gradients, of the input and of every parameter, biases included."""
    torch.manual_seed(0)
    block = Block(bias)
    for parameter in block.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    x = torch.randn(1, 300, 16, requires_grad=True)
    wanted = [x, *block.parameters()]
    weights = torch.randn(1, 300, 16)

    def numbers():
        out = block(x)
        return out, torch.autograd.grad((out * weights).sum(), wanted)

    expected, expected_gradients = numbers()
    kernels = Kernels(block, dtype=dtype, probe=lambda: block(x))
    ours, gradients = numbers()
    kernels.remove()
    assert relative(ours, expected) < bound
    assert all(g.dtype == torch.float32 for g in gradients)
    for gradient, truth in zip(gradients, expected_gradients, strict=True):
        assert relative(gradient, truth) < bound
    assert torch.equal(numbers()[0], expected)


def test_layers_that_share_an_input_share_a_product():
    """And a layer that is called twice, or with another tensor, is right all the same."""
    torch.manual_seed(0)
    block = Block(bias=False)
    x, other = torch.randn(1, 20, 16), torch.randn(1, 20, 16)
    expected = block.q(x), block.k(x), block.q(other), block.k(other)
    Kernels(block, dtype=torch.float32, probe=lambda: block(x))
    assert block.q.forward is not nn.Linear.forward
    found = block.q(x), block.k(x), block.q(other), block.k(other)
    assert all(relative(f, e) < 1e-6 for f, e in zip(found, expected, strict=True))
    # The first call's other half is still waiting when the input changes.
    crossed = [block.q(x), block.q(other), block.k(x), block.q(x), block.q(x), block.k(other)]
    for found_, expected_ in zip(crossed, [expected[i] for i in (0, 2, 1, 0, 0, 3)], strict=True):
        assert relative(found_, expected_) < 1e-6


def test_a_norm_or_mlp_of_another_kind_is_left_alone():
    """Found by numbers: a norm that only looks like one keeps its own forward."""

    class Shifted(LlamaRMSNorm):
        def forward(self, x):
            return super().forward(x) + 0.1

    class Gelu(LlamaMLP):
        pass

    block = Block(bias=False)
    block.norm = Shifted(16)
    block.mlp = Gelu(
        LlamaConfig(hidden_size=16, intermediate_size=24, num_attention_heads=2, hidden_act="gelu")
    )
    kernels = Kernels(block, dtype=torch.float32, probe=lambda: block(torch.randn(1, 3, 16)))
    assert "forward" not in vars(block.norm)
    assert "forward" not in vars(block.mlp)
    assert "forward" in vars(block.mlp.gate_proj)
    kernels.remove()


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({}, LogitShape()),
        ({"final_logit_softcapping": 30.0}, LogitShape(softcap=30.0)),
        ({"logit_scale": 0.25}, LogitShape(scale=0.25)),
        ({"logits_scaling": 8.0}, LogitShape(scale=0.125)),
    ],
)
def test_the_logits_shape_as_configurations_say_it(settings, shape):
    assert LogitShape.of(PreTrainedConfig(**settings)) == shape
