"""Inputs for any entry of the table: what its kind takes, random but fixed by a seed."""

import torch

LABELS = {"pair": (), "sft": (), "ranking": ("mask", "ranks"), "scores": ("mask", "scores")}
SLOTS = {"pair": 2, "sft": 2, "ranking": 4, "scores": 4}


def example(objective, items=5, *, seed=0, dtype=torch.float64, slots=None):
    """`policy, reference, lengths, labels` with K from 2 to `slots` in the K-way kinds, ties included."""
    draw = torch.Generator().manual_seed(seed)
    shape = (items, slots or SLOTS[objective.kind])
    lengths = torch.randint(1, 12, shape, generator=draw)
    reference = -torch.rand(shape, generator=draw, dtype=torch.float64) * 3 * lengths - 0.1
    policy = torch.minimum(
        reference + torch.randn(shape, generator=draw, dtype=torch.float64), -0.05 * lengths
    )
    labels = {}
    if objective.kind in ("ranking", "scores"):
        present = torch.arange(items) % (shape[1] - 1) + 2
        labels["mask"] = torch.arange(shape[1]).expand(shape) < present.unsqueeze(1)
    if objective.kind == "ranking":
        labels["ranks"] = torch.randint(0, 3, shape, generator=draw)
        labels["ranks"] -= labels["ranks"].masked_fill(~labels["mask"], 9).amin(dim=1, keepdim=True)
    if objective.kind == "scores":
        labels["scores"] = torch.randint(0, 3, shape, generator=draw).to(dtype)
    return policy.to(dtype), reference.to(dtype), lengths, labels


def take(index, policy, reference, lengths, labels):
    """The same inputs, items chosen by `index`."""
    chosen = {name: label[index] for name, label in labels.items()}
    return policy[index], reference[index], lengths[index], chosen
