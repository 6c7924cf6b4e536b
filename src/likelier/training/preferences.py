"""DPO and its family as a method of the loop: a loss over pairs or rankings, held to a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from likelier.data.trees import Tree
from likelier.training.config import DpoConfig
from likelier.training.evaluation import evaluate
from likelier.training.method import Method, in_one_update
from likelier.training.plan import first_margins, require_at_reference
from likelier.training.policy import Policy
from likelier.training.preparation import load_data, need_of
from likelier.training.step import Loss, StepResult, step_gradient

SHOWN = (
    "loss",
    "rewards/accuracies",
    "rewards/accuracies/low",
    "rewards/accuracies/high",
    "rewards/margins",
    "pairs",
)


def preferences(config: DpoConfig, loss: Loss, *, reference: Any = None) -> Method:
    """The method of `likelier dpo`: math.md (7), or any loss of the table.

    Args:
        reference: another model than the policy before its first update.
    """

    def look(result: StepResult, policy: Policy) -> str | None:
        if reference is None:
            require_at_reference(result.rewards, policy, loss)
        elif result.rewards and loss.objective.needs_reference:
            return f"against {config.reference} the first margins are {first_margins(result.rewards)}"
        return None

    return Method(
        stage="dpo",
        name=f"DPO ({loss.objective.name})",
        unit="pairs",
        read=partial(load_data, need=need_of(loss.objective), ties=config.ties),
        work=in_one_update(lambda scorer, trees, known: step_gradient(scorer, trees, known, loss)),
        evaluate=lambda scorer, trees, known: evaluate(scorer, trees, known, loss),
        shown=SHOWN,
        report=report,
        held_to=(config.reference or "the policy before its first update")
        if loss.objective.needs_reference
        else None,
        reference=reference,
        look=look,
        costs=lambda trees, max_tokens: second_forwards(trees, loss, max_tokens),
    )


def report(result: Mapping[str, Any]) -> list[str]:
    """The held-out accuracy of the implicit reward, after and before."""
    return held_out_accuracy(result, "the implicit reward")


def held_out_accuracy(result: Mapping[str, Any], of: str) -> list[str]:
    """The same of any reward."""
    if "eval/rewards/accuracies" not in result:
        return []
    before = result.get("eval/before") or {}
    first = f" (before: {_accuracy(before)})" if "eval/rewards/accuracies" in before else ""
    after = f"{_accuracy(result)}{first}, {result['eval/pairs']} pairs"
    return [f"held-out accuracy of {of} {after}"]


def _accuracy(line: Mapping[str, Any]) -> str:
    low, high = line.get("eval/rewards/accuracies/low"), line.get("eval/rewards/accuracies/high")
    interval = "" if low is None else f" [{low:.3f}, {high:.3f}]"
    return f"{line['eval/rewards/accuracies']:.3f}{interval}"


def second_forwards(trees: Sequence[Tree], loss: Loss, max_tokens: int) -> list[str]:
    """Steps that need log-probs first and the gradient through a second forward cost a third more."""
    if loss.objective.stepwise:
        return [
            f"the loss `{loss.objective.name}` takes a statistic over the whole step: log-probs come first, then the"
            " gradient through a second forward, which costs about a third more time"
        ]
    cut = sum(tree.num_tokens > max_tokens for tree in trees)
    if not cut:
        return []
    return [
        f"{cut} of {len(trees)} prompts with their answers exceed --max-tokens {max_tokens}: they run in parts"
        " that repeat the prompt, and their steps take a second forward (the same numbers, a third more time or more)"
    ]
