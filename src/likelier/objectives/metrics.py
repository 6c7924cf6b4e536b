"""What is logged about rewards, per pair: the caller sums over all rows, never over means of batches."""

from __future__ import annotations

import torch

from likelier.objectives.pairs import difference
from likelier.objectives.shapes import Pairs, PerPair, Values


def log_ratio(policy: Values, reference: Values) -> Values:
    """`log π_θ(y|x) − log π_ref(y|x)`, in nats. Its mean over a data set is a log-ratio, not a KL.

    >>> import torch
    >>> log_ratio(torch.tensor([-4.0]), torch.tensor([-5.0])).tolist()
    [1.0]
    """
    return policy - reference


def accuracies(rewards: Pairs) -> PerPair:
    """1 where the chosen reward is higher, 0 where lower, one half on an exact tie (at θ = ref, all).

    `rewards`: `[pairs, 2]`; returns `[pairs]`. NaN stays NaN.

    >>> import torch
    >>> accuracies(torch.tensor([[2.0, 1.0], [1.0, 2.0], [0.0, 0.0]])).tolist()
    [1.0, 0.0, 0.5]
    """
    margins = difference(rewards)
    # sign(NaN) is 0 in torch: an unknown margin would pass for a tie.
    return torch.where(margins.isnan(), margins, 0.5 * (1.0 + torch.sign(margins)))


def reward_metrics(rewards: Pairs) -> dict[str, PerPair]:
    """The four curves everyone knows, each `[pairs]`, from an objective's own rewards `[pairs, 2]`.

    >>> import torch
    >>> {name: value.item() for name, value in reward_metrics(torch.tensor([[0.5, 0.25]])).items()}
    {'rewards/chosen': 0.5, 'rewards/rejected': 0.25, 'rewards/margins': 0.25, 'rewards/accuracies': 1.0}
    """
    return {
        "rewards/chosen": rewards[..., 0],
        "rewards/rejected": rewards[..., 1],
        "rewards/margins": difference(rewards),
        "rewards/accuracies": accuracies(rewards),
    }
