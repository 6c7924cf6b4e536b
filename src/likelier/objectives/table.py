"""The table of losses. A new one is one function, one entry here, and the family's tests.

Each entry says its value at θ = ref beside the loss itself (losses.md). A first step has it where the margins are
exactly 0, which training requires of a run that is its own reference; the family's tests hold the value.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from torch import Tensor

from likelier.objectives import pairs, rankings
from likelier.objectives.objective import Objective
from likelier.objectives.stable import log_odds, per_token


def _log_sigmoid(value: float) -> float:
    """`log σ` of one number, without overflow."""
    return min(value, 0.0) - math.log1p(math.exp(-abs(value)))


def _sigmoid_at_reference(beta: float, *, label_smoothing: float = 0.0, margin: float = 0.0) -> float:
    return -(1.0 - label_smoothing) * _log_sigmoid(-margin) - label_smoothing * _log_sigmoid(margin)


def _robust_at_reference(beta: float, *, label_smoothing: float = 0.0) -> float:
    return math.log(2.0)


def _ipo_at_reference(beta: float) -> float:
    return 1.0 / (4.0 * beta**2)


def _plackett_luce_at_reference(beta: float, *, ranks: Sequence[int] | None = None) -> float | None:
    """Σ over answers of log(itself and those strictly below); needs the tree's ranks."""
    if ranks is None:
        return None
    below, value = 0, 0.0
    for _, size in sorted(Counter(ranks).items(), reverse=True):
        value += size * math.log(1 + below)
        below += size
    return value


def _listwise_at_reference(beta: float, *, scores: Sequence[float] | None = None) -> float | None:
    """Against a uniform softmax every target has the same cross-entropy, log K."""
    return None if scores is None else math.log(len(scores))


def _mean_log_ratio(policy: Tensor, reference: Tensor | None, lengths: Tensor, beta: float) -> Tensor:
    """β times the per-token log-ratio: what `ipo` compares; its optimum is a margin of one half."""
    assert reference is not None
    return beta * per_token(policy - reference, lengths)


def _mean_log_prob(policy: Tensor, reference: Tensor | None, lengths: Tensor, beta: float) -> Tensor:
    return beta * per_token(policy, lengths)


def _log_odds(policy: Tensor, reference: Tensor | None, lengths: Tensor, beta: float) -> Tensor:
    return log_odds(policy, lengths)


def _log_prob(policy: Tensor, reference: Tensor | None, lengths: Tensor, beta: float) -> Tensor:
    return policy


_ENTRIES = (
    Objective(
        name="sigmoid",
        function=pairs.sigmoid,
        at_reference=_sigmoid_at_reference,
        options=("label_smoothing", "margin"),
        formula="−(1−ε) log σ(βd − m) − ε log σ(m − βd)",
        source="DPO, arXiv 2305.18290 (7); cDPO with ε",
    ),
    Objective(
        name="robust",
        function=pairs.robust,
        at_reference=_robust_at_reference,
        options=("label_smoothing",),
        formula="[−(1−ε) log σ(βd) + ε log σ(−βd)] / (1−2ε)",
        source="arXiv 2403.00409",
    ),
    Objective(
        name="hinge",
        function=pairs.hinge,
        at_reference=lambda beta: 1.0,
        formula="max(0, 1 − βd)",
        source="SLiC, arXiv 2305.10425",
    ),
    Objective(
        name="ipo",
        function=pairs.ipo,
        rewards=_mean_log_ratio,
        at_reference=_ipo_at_reference,
        formula="(c/|y_w| − r/|y_l| − 1/(2β))²",
        source="arXiv 2310.12036 (17), normalised by length",
    ),
    Objective(
        name="ipo_sum",
        function=pairs.ipo_sum,
        at_reference=_ipo_at_reference,
        formula="(d − 1/(2β))²",
        source="arXiv 2310.12036 (17), as printed",
    ),
    Objective(
        name="simpo",
        function=pairs.simpo,
        rewards=_mean_log_prob,
        options=("gamma",),
        needs_reference=False,
        formula="−log σ(β(p_w/|y_w| − p_l/|y_l|) − γ)",
        source="arXiv 2405.14734 (6)",
    ),
    Objective(
        name="orpo",
        function=pairs.orpo,
        rewards=_log_odds,
        options=("odds_weight",),
        needs_reference=False,
        reads_beta=False,
        formula="−p_w/|y_w| − λ log σ(logit p̄_w − logit p̄_l), p̄ = exp(p/|y|)",
        source="arXiv 2403.07691 (6, 7)",
    ),
    Objective(
        name="unlikelihood",
        function=pairs.unlikelihood,
        rewards=_log_prob,
        options=("unlikelihood_weight",),
        needs_reference=False,
        reads_beta=False,
        formula="−p_w + α p_l",
        source="arXiv 1908.04319; 2305.18290, section 6",
    ),
    Objective(
        name="plackett_luce",
        function=rankings.plackett_luce,
        kind="ranking",
        at_reference=_plackett_luce_at_reference,
        formula="−Σ_k [ r̂_τ(k) − log Σ_{j≥k} exp r̂_τ(j) ]",
        source="arXiv 2305.18290 (20)",
    ),
    Objective(
        name="listwise",
        function=rankings.listwise,
        kind="scores",
        at_reference=_listwise_at_reference,
        formula="−Σ_k softmax_k(score/β) log softmax_k(log π_θ/π_ref)",
        source="math.md (10)",
    ),
    Objective(
        name="sft",
        function=rankings.sft,
        kind="sft",
        rewards=_log_prob,
        needs_reference=False,
        reads_beta=False,
        formula="−log π_θ(y|x); over a step Σ nll / Σ scored tokens",
        source="math.md (11)",
    ),
)

OBJECTIVES: dict[str, Objective] = {entry.name: entry for entry in _ENTRIES}
