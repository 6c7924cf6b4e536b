"""The policy before its first update, or another model, kept at hand to score what is only written later."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

from torch import Tensor, nn

from likelier.data.trees import Tree
from likelier.models.adapters import adapter_is_start, adapter_off, is_adapted
from likelier.scoring.reference import content_digest
from likelier.scoring.scorer import Scorer
from likelier.training.config import TrainingConfig
from likelier.training.memory import longest_path
from likelier.training.policy import Policy
from likelier.training.reference import reference_scorer


class FrozenStart:
    """Log-probs of the policy as it is now, by the kernels that train it, however far it goes.

    With LoRA the adapter is switched off, where that was checked to be the same; else the model is copied.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.copied = not (is_adapted(policy.model) and _base_is_start(policy))
        self._scorer = _frozen_copy(policy.scorer) if self.copied else policy.scorer

    def score(self, trees: Sequence[Tree]) -> list[list[Tensor]]:
        """Per tree and branch the log-probs of its scored tokens, on the CPU."""
        # The policy's tokens per forward were chosen for other trees, perhaps.
        budget = max(self._policy.scorer.max_tokens, longest_path(trees))
        with self._start():
            return self._scorer.score(trees, max_tokens=budget)

    def _start(self) -> AbstractContextManager[None]:
        return nullcontext() if self.copied else adapter_off(self._policy.model)


class FrozenOther:
    """Log-probs of another model than the policy, by the same kernels.

    Args:
        reference: a name, a folder, or a module, which is copied.
        trees: as large as they may become.

    Raises:
        UsageError: a reference of another vocabulary, or too short a context.
    """

    def __init__(self, config: TrainingConfig, reference: Any, policy: Policy, trees: Sequence[Tree]) -> None:
        self._policy = policy
        if isinstance(reference, nn.Module):
            reference = copy.deepcopy(reference)
        # Ours alone and never given back: open as long as the run.
        self._scorer = reference_scorer(config, reference, policy, trees, ExitStack())
        self._scorer.model.requires_grad_(False)
        self.content = content_digest(self._scorer)

    def score(self, trees: Sequence[Tree]) -> list[list[Tensor]]:
        """Per tree and branch the log-probs of its scored tokens, on the CPU."""
        return self._scorer.score(trees, max_tokens=max(self._policy.scorer.max_tokens, longest_path(trees)))


def _base_is_start(policy: Policy) -> bool:
    with policy.scorer.plain() as model:
        return adapter_is_start(model)


def _frozen_copy(scorer: Scorer) -> Scorer:
    with scorer.plain() as model:
        frozen = copy.deepcopy(model).requires_grad_(False)
    return Scorer(
        frozen, dtype=scorer.dtype, way=scorer.way, own_head=scorer.own_head, max_tokens=scorer.max_tokens
    )
