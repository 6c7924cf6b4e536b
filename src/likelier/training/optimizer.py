"""The optimiser, its learning rate at each step, and clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

Schedule = Literal["constant", "linear", "cosine"]
TIMES = "times"
"""In a group of parameters: its learning rate, in that of the run."""
_STATES = {torch.optim.AdamW: ("exp_avg", "exp_avg_sq"), torch.optim.RMSprop: ("square_avg",)}


def make_optimizer(
    name: Literal["adamw", "rmsprop"],
    parameters: Iterable[Tensor],
    *,
    learning_rate: float,
    beside: Sequence[Tensor] = (),
    times: float = 1.0,
) -> torch.optim.Optimizer:
    """AdamW (0.9, 0.999, ε 1e-8, no weight decay), or RMSprop (α 0.99, ε 1e-8) as in the paper's code.

    Args:
        beside: the last of the parameters that learn at another rate, `times` the others'.
    """
    parameters = list(parameters)
    apart = {id(parameter) for parameter in beside}
    groups: list[dict[str, Any]] = [{"params": [p for p in parameters if id(p) not in apart], TIMES: 1.0}]
    if beside:
        groups.append({"params": list(beside), TIMES: times, "lr": times * learning_rate})
    if name == "rmsprop":
        return torch.optim.RMSprop(groups, lr=learning_rate, foreach=True)
    # The fused kernel is one pass over memory; float64 exists in it on CPU too.
    return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=0.0, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next update, in each group so many times it as the group has."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group[TIMES]


def reserve_state(optimizer: torch.optim.Optimizer) -> None:
    """Make the state that the first step would make, at its beginning.

    Made after the first backward pass it would lie in the holes that activations left, and the next ones would need
    fresh memory (docs/log.md).
    """
    for parameter in (p for group in optimizer.param_groups for p in group["params"]):
        moments = {name: torch.zeros_like(parameter) for name in _STATES[type(optimizer)]}
        on_device = parameter.device if isinstance(optimizer, torch.optim.AdamW) else None
        optimizer.state[parameter] = {"step": torch.zeros((), device=on_device), **moments}


def state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimiser keeps, as `NUMBER.NAME` by its parameters' places: the tensors themselves, no copies."""
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    kept = {number: optimizer.state.get(parameter, {}) for number, parameter in enumerate(parameters)}
    return {
        f"{number}.{name}": value
        for number, state in kept.items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def warmup_steps(total: int) -> int:
    """The default: a tenth of the steps, 150 at most.

    >>> warmup_steps(100), warmup_steps(10_000), warmup_steps(4)
    (10, 150, 0)
    """
    return min(150, total // 10)


def learning_rate(step: int, *, peak: float, total: int, warmup: int, schedule: Schedule) -> float:
    """The rate of update `step` (the first is 0): linear warm-up to `peak`, then constant or down towards 0.

    >>> [learning_rate(s, peak=1.0, total=6, warmup=2, schedule="linear") for s in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    progress = (step - warmup) / max(1, total - warmup)
    if schedule == "linear":
        return peak * (1.0 - progress)
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """The norm of all gradients together, float32 or wider, as one number."""
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    return norm


def clip_gradients(parameters: Iterable[Tensor], *, norm: Tensor, limit: float) -> None:
    """Scale the gradients to the norm `limit` where they exceed it; 0 is no clipping."""
    if limit > 0 and norm > limit:
        torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], limit / float(norm))
