"""Training a reward model as a method of the loop: one number for each answer, Bradley–Terry or Plackett–Luce."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from likelier.data.trees import Tree
from likelier.errors import UsageError
from likelier.models.centring import MOST_SPREAD, Centring, centring
from likelier.models.reward_model import load_start
from likelier.objectives import REWARD_OBJECTIVES, check_options
from likelier.scoring.packing import make_pack, split_tree
from likelier.scoring.scorer import Scorer
from likelier.training.config import RewardConfig
from likelier.training.evaluation import evaluate
from likelier.training.method import Method, in_one_update
from likelier.training.policy import Policy
from likelier.training.preferences import SHOWN, held_out_accuracy, second_forwards
from likelier.training.preparation import load_data, need_of
from likelier.training.step import Loss, StepResult, step_gradient

CENTRED_ON = 1024
"""Answers whose mean reward is set to 0, at most: their states cost a forward each."""
USAGE = """## Use

A sequence classifier with one output: the reward of an answer, read at its last token that is not padding. Only
differences between answers of one prompt mean something. The text is the prompt, the answer and the end of turn, as
in training, and nothing after it (a template's last line break, say):

```python
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32")
turns = [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]
text = tokenizer.apply_chat_template(turns, tokenize=False).rstrip()
reward = model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits[0, 0]
```

`likelier score --reward FOLDER --data F.jsonl` reads a prompt once for all its answers."""


def rewarding(config: RewardConfig) -> Method:
    """The method of `likelier reward`: math.md (3), or (2) over whole rankings.

    Raises:
        UsageError: an option that the loss does not read.
    """
    loss = resolve_reward_loss(config)

    def finish(policy: Policy, trees: Sequence[Tree]) -> Sequence[str]:
        return [centre(policy.scorer, trees)] if config.centre else []

    return Method(
        stage="reward",
        name=f"reward modelling ({loss.objective.name})",
        unit="pairs",
        read=partial(load_data, need=need_of(loss.objective), ties=config.ties),
        work=in_one_update(lambda scorer, trees, _: Figures(step_gradient(scorer, trees, None, loss))),
        evaluate=lambda scorer, trees, _: without_logps(evaluate(scorer, trees, None, loss)),
        shown=SHOWN,
        report=lambda result: held_out_accuracy(result, "the reward model"),
        load=load_start,
        costs=lambda trees, max_tokens: second_forwards(trees, loss, max_tokens),
        finish=finish,
        merges=True,
        likelihoods=False,
        task="text-classification",
        usage=USAGE,
    )


def resolve_reward_loss(config: RewardConfig) -> Loss:
    """The objective and its options; values are compared as they are, so β is 1.

    Raises:
        UsageError: an option that the loss does not read.
    """
    options = {} if config.label_smoothing is None else {"label_smoothing": config.label_smoothing}
    objective = REWARD_OBJECTIVES[config.loss]
    try:
        check_options(objective, options)
    except ValueError:
        raise UsageError(
            f"--label-smoothing: the loss `{config.loss}` does not read it; bradley_terry does"
        ) from None
    return Loss(objective, 1.0, options)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of a step; a reward model has no log-probs."""

    result: StepResult

    def metrics(self) -> Mapping[str, float]:
        """The loss, and the rewards' own figures."""
        return without_logps(self.result.metrics())


def without_logps(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that are of rewards."""
    return {name: value for name, value in metrics.items() if "logps/" not in name}


@torch.no_grad()
def centre(scorer: Scorer, trees: Sequence[Tree]) -> str:
    """Fold the mean reward over `trees` into the head, which has no bias; says what was done: math.md (3).

    Left as it is where that would add more than `MOST_SPREAD` standard deviations of the reward.
    """
    head = scorer.value_head
    assert head is not None
    states = end_states(scorer, trees, most=CENTRED_ON)
    found = centring(states, head.weight[0].cpu())
    # For whoever reads the model's config.json: what is left of the mean.
    scorer.causal.config.reward_mean = 0.0 if found.allowed else found.mean
    if not found.allowed:
        return (
            f"not centred: the mean reward over {found.answers:,} answers is {found.mean:+.4g} (standard deviation"
            f" {found.deviation:.4g}), and a head without a bias could be rid of it only by adding"
            f" {found.spread:.2g} standard deviations of spread (allowed: {MOST_SPREAD}); subtract it where it matters"
        )
    head.weight[0] -= found.shift.to(head.weight)
    scorer.kernels.refresh()
    return _said(found)


def _said(found: Centring) -> str:
    return (
        f"centred: the mean reward over {found.answers:,} answers was {found.mean:+.4g} (standard deviation"
        f" {found.deviation:.4g}) and is 0 now, which adds a spread of {found.spread:.2g} standard deviations"
    )


def end_states(scorer: Scorer, trees: Sequence[Tree], *, most: int) -> Tensor:
    """Final hidden states at the answers' ends, `[answers, D]`; past `most` answers, of some trees, evenly spread."""
    answers = sum(len(tree.branches) for tree in trees)
    step = max(1, -(-answers // most))
    parts = [part for tree in trees[::step] for part in split_tree(tree, max_tokens=scorer.max_tokens)]
    found: dict[int, Tensor] = {}
    for indices in scorer.make_packs(parts):
        states = scorer.end_states(make_pack([parts[i] for i in indices])).cpu()
        counts = [len(parts[i].branches) for i in indices]
        found |= dict(zip(indices, states.split(counts), strict=True))
    return torch.cat([found[i] for i in range(len(parts))])
