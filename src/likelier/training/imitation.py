"""Supervised fine-tuning as a method of the loop: answers are made likelier, token by token."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from likelier.data.selection import Need
from likelier.data.trees import Tree
from likelier.models.loading import Loaded
from likelier.objectives import OBJECTIVES
from likelier.scoring.packing import split_tree
from likelier.scoring.scorer import Scorer
from likelier.stats import Estimate, ratio_interval
from likelier.training.evaluation import branch_numbers
from likelier.training.method import Method, Metrics, as_loaded, in_one_update
from likelier.training.preparation import load_data
from likelier.training.step import Loss, step_gradient

_TOKEN_LOSS = Loss(OBJECTIVES["sft"], beta=1.0)
"""β is not read."""
_SHOWN = ("loss", "loss/low", "loss/high", "perplexity", "tokens", "examples")


def imitation(*, need: Need, prepare: Callable[[Loaded], Loaded] = as_loaded) -> Method:
    """The method of `likelier sft`: `−Σ log π(y_t | x, y_<t)` over the step's scored tokens, by their number.

    Args:
        need: `"examples"`, or `"best"` for the preferred answers of preferences: math.md (11).
        prepare: the model to train, from the model as loaded.
    """
    return Method(
        stage="sft",
        name="SFT",
        unit="examples",
        read=partial(load_data, need=need),
        work=in_one_update(lambda scorer, trees, _: gradient(scorer, trees)),
        evaluate=lambda scorer, trees, _: evaluate(scorer, trees),
        shown=_SHOWN,
        report=report,
        prepare=prepare,
        costs=repeated_prompts,
    )


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """The loss of a step per scored token, and how many there were."""

    loss: float
    tokens: int

    def metrics(self) -> dict[str, float]:
        """`perplexity` is `exp(loss)`."""
        return {"loss": self.loss, "perplexity": perplexity(self.loss), "tokens": self.tokens}


def gradient(scorer: Scorer, trees: Sequence[Tree]) -> TokenLoss:
    """Add the gradient of `Σ w nll / Σ w tokens` over the step's trees.

    Branches are independent: a tree over `max_tokens` runs in parts that repeat its trunk, in one forward.
    """
    parts = [part for tree in trees for part in split_tree(tree, max_tokens=scorer.max_tokens)]
    result = step_gradient(scorer, parts, None, _TOKEN_LOSS)
    return TokenLoss(result.loss, sum(map(sum, _lengths(trees))))


def evaluate(scorer: Scorer, trees: Sequence[Tree]) -> Metrics:
    """Loss and perplexity per token over all tokens of `trees`, as `eval/…`, their intervals clustered by prompt."""
    lengths = _lengths(trees)
    logps = torch.cat(branch_numbers(scorer, trees)).tolist()
    weights = [tree.weight for tree in trees for _ in tree.branches]
    found = ratio_interval(
        [-weight * logp for weight, logp in zip(weights, logps, strict=True)],
        [weight * n for weight, n in zip(weights, (n for own in lengths for n in own), strict=True)],
        clusters=[index for index, tree in enumerate(trees) for _ in tree.branches],
    )
    return {
        **_with_bounds("eval/loss", found),
        **_with_bounds("eval/perplexity", found, of=perplexity),
        "eval/tokens": sum(map(sum, lengths)),
        "eval/examples": len(logps),
        "eval/prompts": len(trees),
    }


def perplexity(loss: float) -> float:
    """`exp(loss)`: among how many equally likely tokens a model as uncertain as that would choose.

    >>> perplexity(math.log(8)), perplexity(1e6)
    (7.999999999999998, inf)
    """
    return math.exp(loss) if loss < 700 else math.inf


def report(result: Mapping[str, Any]) -> list[str]:
    """Held-out perplexity, after and before."""
    if "eval/perplexity" not in result:
        return []
    before = result.get("eval/before") or {}
    first = f" (before: {_perplexity(before)})" if "eval/perplexity" in before else ""
    count = f"{result['eval/tokens']:,} tokens of {result['eval/examples']:,} examples"
    return [f"held-out perplexity per token {_perplexity(result)}{first}, {count}"]


def repeated_prompts(trees: Sequence[Tree], max_tokens: int) -> list[str]:
    """Trees that no single forward holds run in parts."""
    cut = sum(tree.num_tokens > max_tokens for tree in trees)
    if not cut:
        return []
    return [
        f"{cut} of {len(trees)} prompts with their answers exceed --max-tokens {max_tokens}: they run in parts"
        " that repeat the prompt (the same numbers, more time)"
    ]


def _lengths(trees: Sequence[Tree]) -> list[list[int]]:
    """Per tree and branch its scored tokens."""
    return [[tree.branch_length(branch) for branch in range(len(tree.branches))] for tree in trees]


def _with_bounds(name: str, found: Estimate, *, of: Callable[[float], float] = float) -> Metrics:
    low, high = found.interval or (None, None)
    return {
        name: of(found.value),
        # A token's loss is never below 0, whatever a symmetric interval says of few rows.
        f"{name}/low": None if low is None else of(max(0.0, low)),
        f"{name}/high": None if high is None else of(high),
    }


def _perplexity(line: Mapping[str, Any]) -> str:
    low, high = line.get("eval/perplexity/low"), line.get("eval/perplexity/high")
    interval = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    return f"{line['eval/perplexity']:.2f}{interval}"
