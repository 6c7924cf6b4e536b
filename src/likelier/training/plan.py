"""What a run will do: its steps in order, its learning rates, and the identity that a resume must match."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from likelier.data.grouping import num_pairs
from likelier.data.order import Order, tree_hash
from likelier.data.trees import Tree
from likelier.errors import WorkError
from likelier.scoring.reference import arithmetic
from likelier.training.checkpoint import Identity, Position
from likelier.training.config import UPDATE_FREE, TrainingConfig
from likelier.training.optimizer import learning_rate, warmup_steps
from likelier.training.policy import Policy, peak_rate
from likelier.training.preparation import Data
from likelier.training.step import Loss


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of a run and the learning rate of each."""

    trees: list[Tree]
    order: Order
    total: int
    """Updates until the run is done; `max_steps` ends it, but does not move the schedule of longer runs."""
    horizon: int
    """Updates that the schedule is made for."""
    warmup: int
    config: TrainingConfig

    @classmethod
    def of(cls, config: TrainingConfig, data: Data) -> Plan:
        """The plan for `data` under `config`."""
        order = Order(
            data.train, batch_size=config.batch_size, seed=config.seed, content_hash=data.content_hash
        )
        horizon = order.total(config.epochs)
        warmup = warmup_steps(horizon) if config.warmup_steps is None else config.warmup_steps
        return cls(data.train, order, min(horizon, config.max_steps or horizon), horizon, warmup, config)

    def visited(self) -> list[int]:
        """The trees that the run will train on, as indices, each once, in no particular order."""
        if self.total >= self.order.total(1):
            return list(range(len(self.trees)))
        return sorted({index for step in range(self.total) for index in self.order.step(step)})

    @property
    def peak(self) -> float:
        """The learning rate after the warm-up."""
        return peak_rate(self.config)

    def rate(self, step: int) -> float:
        """The learning rate of update `step`, counted from 0."""
        return learning_rate(
            step, peak=self.peak, total=self.horizon, warmup=self.warmup, schedule=self.config.schedule
        )

    def epoch(self, step: int) -> float:
        """Epochs done after update `step`, the part of one by its steps."""
        epoch, index = self.order.locate(step)
        return epoch + (index + 1) / len(self.order.epoch(epoch))


def identity(
    config: TrainingConfig, data: Data, policy: Policy, reference: bytes, *, held: Mapping[str, str]
) -> Identity:
    """What a checkpoint of this run belongs to.

    Args:
        reference: the content of the reference.
        held: by the setting that names it, the content of what else enters an update.
    """
    settings = {k: v for k, v in config.model_dump(mode="json").items() if k not in UPDATE_FREE}
    # As resolved: a default that is now written out is no change.
    settings |= {"precision": policy.precision, "learning_rate": peak_rate(config), **held}
    start = f"{policy.content.hex()} {reference.hex()}"
    trained_on = tree_hash(data.train) + data.drawn_by
    return Identity(trained_on, start, settings, machine=arithmetic(policy.scorer))


def require_at_reference(rewards: Sequence[Tensor], policy: Policy, loss: Loss) -> None:
    """Stop where the policy before its first update is not its own reference: a wrong reference trains silently.

    Raises:
        WorkError: margins that are not 0 (on CUDA: beyond what the precision spreads).
    """
    if not loss.objective.needs_reference or not rewards:
        return
    worst = float(torch.cat(list(rewards)).abs().max())
    allowed = 0.0 if policy.scorer.device.type == "cpu" else 0.5 * loss.beta
    if worst > allowed:
        raise WorkError(
            f"before the first update the policy differs from its reference (a reward of {worst:.3g}, not 0);"
            " the cache of reference log-probs may be from another machine: set LIKELIER_CACHE to a new folder"
        )


def first_margins(rewards: Sequence[Tensor]) -> str:
    """In words, how far a policy is from a reference of another origin, `[pairs, 2]` rewards of its first step."""
    margins = torch.cat(list(rewards)).double()
    margins = margins[:, 0] - margins[:, 1]
    return f"{float(margins.mean()):+.4g} on average ({float(margins.min()):+.4g} to {float(margins.max()):+.4g})"


class Clock:
    """Times of steps, for rates; evaluation, sampling and checkpoints are not counted."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started = time.perf_counter()

    def start(self) -> None:
        """A step begins."""
        self._started = time.perf_counter()

    def stop(self) -> float:
        """It ended; returns its seconds."""
        seconds = time.perf_counter() - self._started
        self.seconds += seconds
        return max(seconds, 1e-9)


class Seen(NamedTuple):
    """What an update was made on."""

    pairs: int
    tokens: int


def advance(position: Position, trees: Sequence[Tree], *, flop: float) -> Seen:
    """Moves the position past an update on `trees` that took `flop` operations."""
    seen = Seen(sum(num_pairs(tree) for tree in trees), sum(tree.num_tokens for tree in trees))
    position.step += 1
    position.pairs_seen += seen.pairs
    position.tokens_seen += seen.tokens
    position.flop += flop
    return seen
