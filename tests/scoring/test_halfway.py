"""Weights halfway between two bfloat16 numbers are settled, and nothing else moves."""

from __future__ import annotations

import torch

from likelier.scoring.halfway import settle_halfway


def test_only_halfway_weights_move_and_products_see_no_difference() -> None:
    grid = torch.randn(1000).bfloat16().float()
    spacing = grid.abs().log2().floor().exp2() * 2**-7
    weight = torch.cat([grid, grid + spacing / 2, torch.randn(1000)])
    before = weight.clone()
    assert 0.3 < settle_halfway([weight]) < 0.35
    assert torch.equal(weight.bfloat16(), before.bfloat16())
    assert torch.equal(weight[:1000], before[:1000])
    assert torch.equal(weight[2000:], before[2000:])
    assert torch.equal(weight[1000:2000], before[1000:2000].bfloat16().float())
    # The point of it: a tiny update no longer tips them all.
    assert torch.equal((weight + 1e-9).bfloat16()[:2000], weight.bfloat16()[:2000])
    tipped = (before[1000:2000] + 1e-3 * spacing).bfloat16() != before[1000:2000].bfloat16()
    assert tipped.float().mean() > 0.3


def test_a_model_with_few_of_them_is_left_alone_bit_for_bit() -> None:
    weight = torch.randn(100_000)
    weight[0] = 1.00390625
    before = weight.clone()
    assert settle_halfway([weight]) == 0.0
    assert torch.equal(weight, before)
