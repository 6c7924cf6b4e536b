"""What the training step knows about a loss, and how a user's own loss becomes one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from likelier.objectives.rankings import best_token_loss
from likelier.objectives.shapes import Counts, Values

Kind = Literal["pair", "ranking", "scores", "sft"]
Rewards = Callable[[Tensor, Tensor | None, Tensor, float], Tensor]
LossFunction = TypeVar("LossFunction", bound=Callable[..., Tensor])


def implicit_reward(policy: Values, reference: Values | None, lengths: Counts, beta: float) -> Values:
    """`r̂ = β log(π_θ(y|x) / π_ref(y|x))`: math.md (8). All arguments of one shape, which the rewards keep.

    Raises:
        ValueError: there is no reference.

    >>> import torch
    >>> implicit_reward(torch.tensor([-1.0]), torch.tensor([-3.0]), torch.tensor([4]), 0.5).tolist()
    [1.0]
    """
    if reference is None:
        raise ValueError("the implicit reward needs the reference's log-probabilities")
    return beta * (policy - reference)


def _no_value(beta: float, **options: object) -> None:
    """A loss whose value at θ = ref is not known beforehand."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A loss with everything that logs, checks and the training step ask of it.

    >>> import torch
    >>> def gap(policy, reference, lengths, beta):
    ...     return policy[:, 1] - policy[:, 0]
    >>> objective = Objective(name="gap", function=gap)
    >>> objective(torch.tensor([[-1.0, -3.0]]), torch.zeros(1, 2), torch.ones(1, 2), 0.1).tolist()
    [-2.0]
    """

    name: str
    function: Callable[..., Tensor]
    """`f(policy, reference, lengths, beta, **options)`, one loss per pair or tree (per branch for sft)."""
    kind: Kind = "pair"
    """pair: `[pairs, 2]`; ranking, scores: `[trees, K]` with `mask` and `ranks` or `scores`; sft: any."""
    rewards: Rewards = implicit_reward
    """The rewards that this loss compares, of the shape of `policy`: what is logged is what is optimised."""
    at_reference: Callable[..., float | None] = _no_value
    """`at_reference(beta, **options)`: the loss at θ = ref, or None where it has no value of its own there.

    A ranking is asked with one tree's `ranks=[…]`, scores with `scores=[…]`, a margin as one number.
    """
    options: tuple[str, ...] = ()
    """The keyword options that `function` reads, labels (`mask`, `ranks`, `scores`) not counted."""
    needs_reference: bool = True
    reads_beta: bool = True
    stepwise: bool = False
    """Takes the whole step at once: its value for a pair depends on the other pairs."""
    formula: str = ""
    source: str = ""

    def __call__(
        self, policy: Tensor, reference: Tensor | None, lengths: Tensor, beta: float, **options: Any
    ) -> Tensor:
        """The loss per pair or tree.

        Raises:
            ValueError: the function did not return one value per pair or tree.
        """
        losses = self.function(policy, reference, lengths, beta, **options)
        expected = policy.shape if self.kind == "sft" else policy.shape[:-1]
        if not isinstance(losses, Tensor) or losses.shape != expected:
            got = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise ValueError(f"loss `{self.name}` returned {got}; it must return shape {tuple(expected)}")
        return losses

    def denominators(self, weights: Tensor, lengths: Tensor) -> Tensor:
        """What a step's Σ w ℓ is divided by, per item: its weight, or for sft its weighted scored tokens.

        `weights`: the shape of the loss; `lengths`: the shape of the log-probs. Sum over the step.

        >>> import torch
        >>> Objective(name="mine", function=torch.sub).denominators(torch.ones(2), torch.ones(2, 2)).tolist()
        [1.0, 1.0]
        """
        return weights * lengths if self.kind == "sft" else weights


def with_sft(objective: Objective, *, weight: float) -> Objective:
    """`objective` plus `−α p_w/|y_w|`, the token loss of the chosen (best) answer (RPO, arXiv 2404.19733).

    Best means column 0 of a pair, rank 0 of a ranking, the highest of scores; tied ones share it equally.
    At θ = ref the sum is known once the chosen answers' mean token loss is: `chosen_token_loss=…`.

    Args:
        objective: any but sft.
        weight: α ≥ 0; at 0 the objective comes back unchanged.

    Raises:
        ValueError: a negative weight, or an sft objective.

    >>> import torch
    >>> from likelier.objectives import OBJECTIVES
    >>> both = with_sft(OBJECTIVES["hinge"], weight=0.5)
    >>> pair = torch.tensor([[-4.0, -9.0]])
    >>> both.name, both(pair, pair, torch.tensor([[2, 3]]), 0.1).item()
    ('hinge+sft', 2.0)
    >>> both.at_reference(0.1, chosen_token_loss=2.0)
    2.0
    """
    if not weight >= 0.0:
        raise ValueError(f"the weight of the SFT term must be 0 or more, not {weight}")
    if objective.kind == "sft":
        raise ValueError("an SFT term cannot be added to sft itself: drop the weight or choose another loss")
    if weight == 0.0:
        return objective

    def function(
        policy: Tensor, reference: Tensor | None, lengths: Tensor, beta: float, **options: Any
    ) -> Tensor:
        losses = objective(policy, reference, lengths, beta, **options)
        return losses + weight * best_token_loss(policy, lengths, _best(objective.kind, policy, options))

    def at_reference(beta: float, *, chosen_token_loss: float | None = None, **options: Any) -> float | None:
        value = objective.at_reference(beta, **options)
        return None if value is None or chosen_token_loss is None else value + weight * chosen_token_loss

    return replace(
        objective,
        name=f"{objective.name}+sft",
        function=function,
        at_reference=at_reference,
        formula=f"{objective.formula} − α p_w/|y_w|",
        source=f"{objective.source}; 2404.19733",
    )


def _best(kind: Kind, policy: Tensor, options: dict[str, Any]) -> Tensor:
    """Which answers the SFT term trains, `[items, K]` bool."""
    if kind == "pair":
        return torch.tensor([True, False], device=policy.device).expand(policy.shape)
    mask: Tensor = options["mask"]
    if kind == "ranking":
        return mask.logical_and(options["ranks"] == 0)
    scores: Tensor = options["scores"].masked_fill(~mask, -torch.inf)
    return mask.logical_and(scores == scores.amax(dim=-1, keepdim=True))
