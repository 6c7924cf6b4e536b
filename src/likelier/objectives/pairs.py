"""Losses over pairs: `loss(policy, reference, lengths, beta, *, options) -> [pairs]`.

Shapes, everywhere in this file:
    policy, reference: `[pairs, 2]`, log π_θ and log π_ref summed over the completion's scored tokens;
        column 0 is the chosen answer, column 1 the rejected. Losses without a reference take None for it.
    lengths: `[pairs, 2]`, scored tokens of each completion.
    beta: β > 0.
Formulas and values at θ = ref: losses.md; `c`, `r` are the log-ratios of chosen and rejected, `d = c − r`.
"""

from __future__ import annotations

from torch.nn.functional import logsigmoid, relu

from likelier.objectives.shapes import PairLengths, Pairs, PerPair
from likelier.objectives.stable import log_odds, per_token


def sigmoid(
    policy: Pairs,
    reference: Pairs,
    lengths: PairLengths,
    beta: float,
    *,
    label_smoothing: float = 0.0,
    margin: PerPair | float = 0.0,
) -> PerPair:
    """DPO: `−(1−ε) log σ(βd − m) − ε log σ(m − βd)`; math.md (7), the paper's equation 7; ε > 0 is cDPO.

    Args:
        policy, reference, lengths, beta: as at the top of this file; lengths are not read.
        label_smoothing: ε in [0, 0.5], the share of labels taken to be flipped.
        margin: m, `[pairs]` or one number; the chosen reward must exceed the rejected by it.

    Raises:
        ValueError: ε outside [0, 0.5].

    >>> import torch
    >>> at_reference = torch.tensor([[-4.0, -9.0]], dtype=torch.float64)
    >>> sigmoid(at_reference, at_reference, torch.tensor([[2, 3]]), 0.1).item()  # log 2
    0.6931471805599453
    """
    if not 0.0 <= label_smoothing <= 0.5:
        raise ValueError(f"label_smoothing must lie in [0, 0.5] for the sigmoid loss, not {label_smoothing}")
    logits = beta * difference(policy - reference) - margin
    if label_smoothing == 0.0:
        return -logsigmoid(logits)
    return -(1.0 - label_smoothing) * logsigmoid(logits) - label_smoothing * logsigmoid(-logits)


def robust(
    policy: Pairs, reference: Pairs, lengths: PairLengths, beta: float, *, label_smoothing: float = 0.0
) -> PerPair:
    """`[−(1−ε) log σ(βd) + ε log σ(−βd)] / (1−2ε)`: unbiased under labels flipped at ε (arXiv 2403.00409).

    Args:
        policy, reference, lengths, beta: as at the top of this file; lengths are not read.
        label_smoothing: ε in [0, 0.5), the flip rate. Above 0 the loss is unbounded below.

    Raises:
        ValueError: ε outside [0, 0.5).

    >>> import torch
    >>> pair = torch.tensor([[-4.0, -9.0]], dtype=torch.float64)
    >>> round(robust(pair, pair, torch.tensor([[2, 3]]), 0.1, label_smoothing=0.2).item(), 12)  # log 2
    0.69314718056
    """
    if not 0.0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must lie in [0, 0.5) for the robust loss, not {label_smoothing}")
    logits = beta * difference(policy - reference)
    unscaled = label_smoothing * logsigmoid(-logits) - (1.0 - label_smoothing) * logsigmoid(logits)
    return unscaled / (1.0 - 2.0 * label_smoothing)


def hinge(policy: Pairs, reference: Pairs, lengths: PairLengths, beta: float) -> PerPair:
    """`max(0, 1 − βd)`: SLiC's hinge on DPO's rewards (arXiv 2305.10425). Lengths are not read.

    >>> import torch
    >>> hinge(torch.tensor([[-1.0, -9.0]]), torch.tensor([[-4.0, -9.0]]), torch.tensor([[2, 3]]), 0.25).item()
    0.25
    """
    return relu(1.0 - beta * difference(policy - reference))


def ipo(policy: Pairs, reference: Pairs, lengths: PairLengths, beta: float) -> PerPair:
    """`(c/|y_w| − r/|y_l| − 1/(2β))²`: IPO (arXiv 2310.12036, eq. 17), normalised by length as TRL does.

    Lengths are those of each completion, never of a batch or a pack.

    >>> import torch
    >>> ipo(torch.tensor([[-1.0, -9.0]]), torch.tensor([[-4.0, -9.0]]), torch.tensor([[2, 3]]), 0.5).item()
    0.25
    """
    return (difference(per_token(policy - reference, lengths)) - 1.0 / (2.0 * beta)).square()


def ipo_sum(policy: Pairs, reference: Pairs, lengths: PairLengths, beta: float) -> PerPair:
    """`(d − 1/(2β))²`: IPO as printed (arXiv 2310.12036, eq. 17) and as in its code. Lengths are not read.

    >>> import torch
    >>> policy, reference = torch.tensor([[-1.0, -9.0]]), torch.tensor([[-4.0, -9.0]])
    >>> ipo_sum(policy, reference, torch.tensor([[2, 3]]), 0.5).item()
    4.0
    """
    return (difference(policy - reference) - 1.0 / (2.0 * beta)).square()


def simpo(
    policy: Pairs, reference: Pairs | None, lengths: PairLengths, beta: float, *, gamma: float = 0.5
) -> PerPair:
    """`−log σ(β(p_w/|y_w| − p_l/|y_l|) − γ)`: SimPO (arXiv 2405.14734, eq. 6). The reference is not read.

    >>> import torch
    >>> simpo(torch.tensor([[-2.0, -9.0]]), None, torch.tensor([[2, 3]]), 2.0, gamma=4.0).item()  # log 2
    0.6931471824645996
    """
    return -logsigmoid(beta * difference(per_token(policy, lengths)) - gamma)


def orpo(
    policy: Pairs, reference: Pairs | None, lengths: PairLengths, beta: float, *, odds_weight: float = 0.1
) -> PerPair:
    """`−p_w/|y_w| − λ log σ(logit p̄_w − logit p̄_l)`: ORPO (arXiv 2403.07691, eqs. 6 and 7).

    `odds_weight` is λ. Neither the reference nor β is read.

    >>> import torch
    >>> alike = torch.tensor([[-2.0, -2.0]], dtype=torch.float64)
    >>> orpo(alike, None, torch.tensor([[2, 2]]), 0.1, odds_weight=1.0).item()  # 1 + log 2
    1.6931471805599454
    """
    return -per_token(policy[..., 0], lengths[..., 0]) - odds_weight * logsigmoid(
        difference(log_odds(policy, lengths))
    )


def unlikelihood(
    policy: Pairs,
    reference: Pairs | None,
    lengths: PairLengths,
    beta: float,
    *,
    unlikelihood_weight: float = 0.1,
) -> PerPair:
    """`−p_w + α p_l`: unlikelihood (arXiv 1908.04319), as the DPO paper's baseline has it (2305.18290, section 6).

    `unlikelihood_weight` is α. Above 0 it is unbounded below, so that training has to stop early; at 0 it is
    Preferred-FT, math.md (11), over pairs. Lengths, the reference and β are not read.

    Raises:
        ValueError: α outside [0, 1].

    >>> import torch
    >>> unlikelihood(torch.tensor([[-2.0, -9.0]]), None, torch.tensor([[2, 3]]), 0.1, unlikelihood_weight=0.5).item()
    -2.5
    """
    if not 0.0 <= unlikelihood_weight <= 1.0:
        raise ValueError(f"unlikelihood_weight must lie in [0, 1], not {unlikelihood_weight}")
    return unlikelihood_weight * policy[..., 1] - policy[..., 0]


def difference(values: Pairs) -> PerPair:
    """Chosen less rejected: `[pairs, 2]` to `[pairs]`.

    >>> import torch
    >>> difference(torch.tensor([[5.0, 2.0]])).tolist()
    [3.0]
    """
    return values[..., 0] - values[..., 1]
