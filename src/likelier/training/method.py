"""What a stage gives the training loop, which is the same for all of them: functions, and a few words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from likelier.data.trees import Tree
from likelier.models.loading import Loaded, load_model
from likelier.scoring.scorer import Scorer
from likelier.training.checkpoint import Position
from likelier.training.policy import Policy
from likelier.training.preparation import Data

Metrics = dict[str, float | int | None]
References = Sequence[Tensor] | None
"""Per tree, the reference's `[branches]` float64 log-probs; None for a method that reads none."""


class StepFigures(Protocol):
    """What a step's gradients leave behind."""

    def metrics(self) -> Mapping[str, float | None]:
        """The figures of the step, over all that it trained on; `loss` is among them."""


Gradient = Callable[[Scorer, Sequence[Tree], References], StepFigures]
"""Adds the gradient of a step's trees to the parameters' `.grad`.

Raises `WorkError`, with the rows, for a loss that is not finite."""
Update = Callable[[], StepFigures | None]
"""Adds the gradient of one update to the parameters' `.grad`; None where there is to be none, and the step is over."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a step trains on, and its updates, made one after the other: each sees the weights of those before."""

    trees: Sequence[Tree]
    updates: Iterable[Update]


def in_one_update(gradient: Gradient) -> Callable[[Policy, Sequence[Tree], References, Position], Work]:
    """The work of a method whose step is one update on the trees of the data."""

    def work(policy: Policy, trees: Sequence[Tree], reference: References, _: Position) -> Work:
        return Work(trees, [lambda: gradient(policy.scorer, trees, reference)])

    return work


def as_loaded(loaded: Loaded) -> Loaded:
    """The model just as it was loaded."""
    return loaded


def as_read(trees: Sequence[Tree]) -> Sequence[Tree]:
    """The trees of the data are what is trained on."""
    return trees


def nothing_to_add(policy: Policy) -> None:
    """The model is all that is needed."""


def nothing_else() -> Mapping[str, str]:
    """Settings, data, start and reference are all that an update depends on."""
    return {}


def nothing_to_say(figures: Any, policy: Policy) -> str | None:
    """A first step that nothing is known of beforehand."""


def no_costs(trees: Sequence[Tree], max_tokens: int) -> Sequence[str]:
    """Nothing takes longer than one would think."""
    return ()


def nothing_to_do(policy: Policy, trees: Sequence[Tree]) -> Sequence[str]:
    """The model is done."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What a stage gives the loop."""

    stage: str
    """Its command: in the manifest, and in messages."""
    name: str
    """On the model's card: `DPO (sigmoid)`."""
    unit: str
    """What `batch_size` counts, in the plural: the metrics have `pairs_seen` and `pairs_per_second`."""
    read: Callable[[Any, Any, Any, Any], Data]
    """From settings, data, held-out data and tokenizer, the trees."""
    work: Callable[[Policy, Sequence[Tree], References, Position], Work]
    """Of the step after a position, on its trees of the data."""
    evaluate: Callable[[Scorer, Sequence[Tree], References], Metrics]
    """Figures over all held-out trees, as `eval/…`; `eval/loss` is among them."""
    shown: Sequence[str]
    """Of an evaluation, the figures in the card's table, without their `eval/`."""
    report: Callable[[Mapping[str, Any]], Sequence[str]]
    """From a run's last figures (`Run.result`), what they say, a sentence each."""
    held_to: str | None = None
    """The reference in words; None where there is none."""
    scored_first: bool = True
    """Whether the reference's log-probs of all trees are scored before step 0, where there is a reference."""
    held: Callable[[], Mapping[str, str]] = nothing_else
    """By the setting that names it, the content of what else enters an update: a resume must find the same."""
    value_rate: float | None = None
    """The learning rate of a value head, where that is not the policy's."""
    reference: Any = None
    """Another model to be held to than the policy before its first update."""
    look: Callable[[Any, Policy], str | None] = nothing_to_say
    """At the figures of the first update, before it is made: may raise, or say something."""
    load: Callable[..., Loaded] = load_model
    """Reads the model to start from, and that of a finished run."""
    prepare: Callable[[Loaded], Loaded] = as_loaded
    """The model to train, from the model as loaded."""
    begin: Callable[[Policy], None] = nothing_to_add
    """With the policy before its first update, and before a resumed run's weights are back: what it needs besides."""
    grown: Callable[[Sequence[Tree]], Sequence[Tree]] = as_read
    """The trees of the data as large as they may be when they train: estimates and limits go by them."""
    num_updates: int = 1
    """In a step."""
    passes: float = 1.0
    """The arithmetic of a step, in that of one pass with its gradient over the step's trees."""
    costs: Callable[[Sequence[Tree], int], Sequence[str]] = no_costs
    """From the trees and the tokens per forward: what takes longer than one might think, said before step 0."""
    finish: Callable[[Policy, Sequence[Tree]], Sequence[str]] = nothing_to_do
    """With the trained model and the trees it was trained on: the last touch to its weights, in words."""
    merges: bool = False
    """Whether an adapter is always saved merged."""
    likelihoods: bool = True
    """Whether a reward that falls means an answer that grows less likely."""
    descends: bool = True
    """Whether the loss of a step can be held against that of the first."""
    task: str = "text-generation"
    """The saved model's, as the hub names it."""
    usage: str = ""
    """On the card: how the saved model is used."""
