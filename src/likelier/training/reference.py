"""The reference's log-probs of all that a run visits: of the policy before its first update, or of another model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from likelier.data.trees import Tree
from likelier.errors import UsageError
from likelier.models.loading import load_model
from likelier.models.noise import silence_noise
from likelier.scoring.cache import LogpCache, cache_folder
from likelier.scoring.equality import choose_way
from likelier.scoring.halfway import settled_halfway
from likelier.scoring.limits import require_context, require_masters
from likelier.scoring.precision import master_dtype
from likelier.scoring.reference import branch_sums, content_digest, model_digest, reference_logps
from likelier.scoring.scorer import Scorer
from likelier.training.config import TrainingConfig
from likelier.training.estimate import flops
from likelier.training.plan import Plan
from likelier.training.policy import Policy
from likelier.training.preparation import Data


@dataclass(frozen=True, slots=True)
class Reference:
    """What a run is held to."""

    sums: list[Tensor]
    """Per tree its branches' log-probs, `[branches]` float64."""
    content: bytes
    """Hash of the model: weights and configuration."""


def load_reference(
    config: TrainingConfig,
    reference: Any,
    policy: Policy,
    trees: Sequence[Tree],
    *,
    on_progress: Callable[[int, int], None],
) -> Reference:
    """Score `trees` under the policy as it stands, which must not have been updated yet, or under another model.

    Args:
        on_progress: called with (trees scored, trees to score); never where the cache knows all.

    Raises:
        UsageError: a reference of another vocabulary, or a cache folder that cannot be written.
    """
    with LogpCache(cache_folder()) as cache:
        if reference is None:
            logps = reference_logps(
                policy.scorer, trees, cache=cache, digest=policy.digest, on_progress=on_progress
            )
            return Reference([branch_sums(own) for own in logps], policy.content)
        with ExitStack() as stack:
            scorer = reference_scorer(config, reference, policy, trees, stack)
            content = content_digest(scorer)
            digest = model_digest(scorer, content=content)
            logps = reference_logps(scorer, trees, cache=cache, digest=digest, on_progress=on_progress)
        return Reference([branch_sums(own) for own in logps], content)


@dataclass(frozen=True, slots=True)
class VisitedReference:
    """The reference's log-probs of all that a run reads; every tree's `[branches]`, float64."""

    sums: Mapping[int, Tensor]
    """By number of the tree, of those that the run will train on."""
    evaluation: Sequence[Tensor]
    """Of the held-out trees."""
    content: bytes
    flop: float
    """Of a pass over the trees that are trained on, whether or not it was cached."""


def visited_reference(
    config: TrainingConfig,
    reference: Any,
    policy: Policy,
    plan: Plan,
    data: Data,
    *,
    on_progress: Callable[[int, int], None],
) -> VisitedReference:
    """`load_reference` of the trees that the run will visit, and of the held-out ones."""
    visited = plan.visited()
    trees = [plan.trees[index] for index in visited]
    found = load_reference(*(config, reference, policy, [*trees, *data.evaluation]), on_progress=on_progress)
    return VisitedReference(
        dict(zip(visited, found.sums, strict=False)),
        found.sums[len(visited) :],
        found.content,
        flops(policy.model, trees, training=False),
    )


def reference_scorer(
    config: TrainingConfig, reference: Any, policy: Policy, trees: Sequence[Tree], stack: ExitStack
) -> Scorer:
    """Another model in the form that scores the policy; `stack` puts it back as it was.

    Raises:
        UsageError: a reference of another vocabulary, or one whose context is too short for `trees`.
    """
    other = load_model(
        reference,
        tokenizer=policy.tokenizer,
        dtype=master_dtype(policy.precision),
        device=policy.scorer.device,
        trust_remote_code=config.trust_remote_code,
    )
    _require_same_tokens(other.model, policy)
    require_masters(other.model, policy.precision)
    require_context(other.model, trees, name=other.name)
    stack.callback(silence_noise(other.model).undo)
    if policy.precision == "bfloat16":
        stack.enter_context(settled_halfway(other.model.parameters()))
    choice = choose_way(other.model)
    scorer = Scorer(
        other.model,
        dtype=policy.scorer.dtype,
        way=choice.way,
        own_head=choice.own_head,
        max_tokens=policy.scorer.max_tokens,
    )
    stack.callback(scorer.close)
    return scorer


def _require_same_tokens(model: Any, policy: Policy) -> None:
    theirs = model.get_input_embeddings().weight.shape[0]
    ours = policy.scorer.causal.get_input_embeddings().weight.shape[0]
    if theirs != ours:
        raise UsageError(
            f"--reference has a vocabulary of {theirs} tokens and the model one of {ours};"
            " the reference must read the policy's tokens"
        )
