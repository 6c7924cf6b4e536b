"""Losses of a reward model: its values stand where log-ratios stand in DPO's family, with β = 1.

So they are those of the table, not written again: `likelier reward --loss` names them.
"""

from __future__ import annotations

from likelier.objectives.objective import Objective
from likelier.objectives.pairs import sigmoid
from likelier.objectives.preferences import plackett_luce_log_probability
from likelier.objectives.shapes import (
    Counts,
    PairLengths,
    Pairs,
    PerPair,
    PerTree,
    TreeLengths,
    TreeMask,
    TreeRanks,
    Trees,
    Values,
)
from likelier.objectives.table import OBJECTIVES


def bradley_terry_loss(
    values: Pairs,
    reference: Pairs | None,
    lengths: PairLengths,
    beta: float,
    *,
    label_smoothing: float = 0.0,
    margin: PerPair | float = 0.0,
) -> PerPair:
    """`−(1−ε) log σ(r_w − r_l − m) − ε log σ(m − (r_w − r_l))`: math.md (3), the paper's equation 2.

    Args:
        values: `[pairs, 2]`, column 0 the chosen answer's.
        reference, lengths, beta: as every loss has them; not read.
        label_smoothing: ε in [0, 0.5], the share of labels taken to be flipped.
        margin: m, `[pairs]` or one number; the chosen value must exceed the rejected by it.

    Raises:
        ValueError: ε outside [0, 0.5].

    >>> import torch
    >>> at_start = torch.zeros(1, 2, dtype=torch.float64)
    >>> bradley_terry_loss(at_start, None, torch.ones(1, 2), 1.0).item()  # log 2
    0.6931471805599453
    """
    return sigmoid(
        values, values.new_zeros(values.shape), lengths, 1.0, label_smoothing=label_smoothing, margin=margin
    )


def plackett_luce_loss(
    values: Trees,
    reference: Trees | None,
    lengths: TreeLengths,
    beta: float,
    *,
    mask: TreeMask,
    ranks: TreeRanks,
) -> PerTree:
    """`−Σ_k [ r_τ(k) − log Σ_{j≥k} exp r_τ(j) ]`: math.md (2); a tied answer against itself and all strictly lower.

    `values`, `mask`, `ranks`: `[trees, K]`, rank 0 the best. The reference, lengths and β are not read.

    >>> import torch
    >>> order = dict(mask=torch.ones(1, 3, dtype=torch.bool), ranks=torch.tensor([[2, 0, 1]]))
    >>> plackett_luce_loss(torch.zeros(1, 3), None, torch.ones(1, 3), 1.0, **order).item()  # log 3 + log 2
    1.7917594909667969
    """
    return -plackett_luce_log_probability(values, mask=mask, ranks=ranks)


def value(policy: Values, reference: Values | None, lengths: Counts, beta: float) -> Values:
    """The reward that is logged is the value itself."""
    return policy


_ENTRIES = (
    Objective(
        name="bradley_terry",
        function=bradley_terry_loss,
        rewards=value,
        at_reference=OBJECTIVES["sigmoid"].at_reference,
        options=("label_smoothing", "margin"),
        needs_reference=False,
        reads_beta=False,
        formula="−(1−ε) log σ(r_w − r_l − m) − ε log σ(m − r_w + r_l)",
        source="math.md (3), arXiv 2305.18290 (2)",
    ),
    Objective(
        name="plackett_luce",
        function=plackett_luce_loss,
        kind="ranking",
        rewards=value,
        at_reference=OBJECTIVES["plackett_luce"].at_reference,
        needs_reference=False,
        reads_beta=False,
        formula="−Σ_k [ r_τ(k) − log Σ_{j≥k} exp r_τ(j) ]",
        source="math.md (2), arXiv 2305.18290 (18)",
    ),
)

REWARD_OBJECTIVES: dict[str, Objective] = {entry.name: entry for entry in _ENTRIES}
"""By name."""
