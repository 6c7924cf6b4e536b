"""Activations: the function and gradient of the module they replace, and the same bits wherever a number lies."""

import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN

from likelier.scoring.activations import activation_forward, steady
from tests.scoring.truth import gradient_error

REPLACED = ["silu", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "sigmoid"]
PRECISIONS = [torch.float32, torch.float64, torch.bfloat16]


def forward_of(name):
    found = activation_forward(nn.Sigmoid() if name == "sigmoid" else ACT2FN[name])
    assert found is not None
    return found


@pytest.mark.parametrize("name", REPLACED)
def test_the_same_function_and_gradient(name):
    module = nn.Sigmoid() if name == "sigmoid" else ACT2FN[name]
    x = torch.linspace(-30, 30, 601, dtype=torch.float64, requires_grad=True)
    weights = torch.linspace(1, 2, 601, dtype=torch.float64)
    ours, theirs = forward_of(name)(x), module(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    found, expected = (torch.autograd.grad((y * weights).sum(), x) for y in (ours, theirs))
    assert gradient_error(list(found), list(expected)) < 1e-8
    # Far out, where exp is infinite in float32.
    assert torch.isfinite(forward_of(name)(torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4]))).all()


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", REPLACED)
def test_a_number_keeps_its_bits_wherever_it_lies(name, threads, dtype):
    forward = forward_of(name)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for width in (19, 48, 576, 1537):
            x = torch.randn(120, width, generator=torch.Generator().manual_seed(width)).mul(3).to(dtype)
            whole, beside = forward(x), forward(torch.cat([x, x], 1)[:, :width])
            assert torch.equal(whole, beside)
            for start, stop in [(0, 1), (1, 120), (5, 42), (119, 120)]:
                assert torch.equal(forward(x[start:stop].clone()), whole[start:stop])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("module", [nn.ReLU(), nn.Softmax(dim=-1), nn.PReLU(), nn.Tanh()])
def test_others_are_left_alone(module):
    assert activation_forward(module) is None


def test_half_precision_is_torchs_own_where_that_is_steady():
    x = torch.linspace(-5, 5, 300).bfloat16()
    assert torch.equal(steady("silu", x), torch.nn.functional.silu(x))
    exact = torch.nn.functional.gelu(x.double(), approximate="tanh").bfloat16()
    assert (steady("gelu_tanh", x) == exact).float().mean() > 0.99
