"""Learning rates, the optimisers' settings, norms and clipping."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from likelier.training.optimizer import (
    clip_gradients,
    gradient_norm,
    learning_rate,
    make_optimizer,
    warmup_steps,
)


def rates(total: int, warmup: int, schedule: Any) -> list[float]:
    return [learning_rate(s, peak=2.0, total=total, warmup=warmup, schedule=schedule) for s in range(total)]


def test_schedules_by_hand() -> None:
    assert rates(5, 2, "constant") == [1.0, 2.0, 2.0, 2.0, 2.0]
    assert rates(6, 2, "linear") == [1.0, 2.0, 2.0, 1.5, 1.0, 0.5]
    half = [1 + math.cos(math.pi * k / 4) for k in range(4)]
    assert rates(6, 2, "cosine") == pytest.approx([1.0, 2.0, *half])
    assert rates(3, 0, "constant") == [2.0] * 3


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_every_update_moves(schedule: str) -> None:
    for total in (1, 2, 7):
        for warmup in range(total + 3):
            assert all(0 < rate <= 2.0 for rate in rates(total, warmup, schedule))


def test_the_default_warm_up() -> None:
    assert [warmup_steps(n) for n in (1, 9, 10, 1499, 1500, 9999)] == [0, 0, 1, 149, 150, 150]


def test_settings() -> None:
    weight = [torch.zeros(2, requires_grad=True)]
    adamw = make_optimizer("adamw", weight, learning_rate=1e-3).defaults
    assert (adamw["betas"], adamw["eps"], adamw["weight_decay"]) == ((0.9, 0.999), 1e-8, 0.0)
    rmsprop = make_optimizer("rmsprop", weight, learning_rate=1e-3).defaults
    assert (rmsprop["alpha"], rmsprop["eps"], rmsprop["momentum"]) == (0.99, 1e-8, 0)
    assert (rmsprop["centered"], rmsprop["weight_decay"]) == (False, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_clipping(dtype: torch.dtype) -> None:
    given = [torch.zeros(1, requires_grad=True, dtype=dtype) for _ in range(3)]
    given[0].grad, given[1].grad = torch.tensor([3.0], dtype=dtype), torch.tensor([-4.0], dtype=dtype)
    norm = gradient_norm(given)
    assert (float(norm), norm.dtype) == (5.0, dtype)
    for limit, expected in ((0.0, 5.0), (6.0, 5.0), (5.0, 5.0), (2.5, 2.5)):
        clip_gradients(given, norm=gradient_norm(given), limit=limit)
        assert float(gradient_norm(given)) == pytest.approx(expected)
    assert [float(p.grad) for p in given[:2]] == pytest.approx([1.5, -2.0])  # type: ignore[arg-type]
    assert given[2].grad is None
    assert float(gradient_norm([given[2]])) == 0.0
