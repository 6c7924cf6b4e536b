"""PPO, RLOO and GRPO as a method of the loop: a step draws a rollout, and learns from it update after update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from likelier.data.order import permutation
from likelier.data.prompts import read_prompt_records
from likelier.data.records import Record
from likelier.data.splitting import hash_records, split_by_prompt
from likelier.data.trees import Node, Tree, tree_of
from likelier.engines.drawing import Sampler
from likelier.engines.prompts import Prompt, encode_prompts
from likelier.engines.rewards import Reward
from likelier.errors import DataError, UsageError, WorkError
from likelier.scoring.packing import make_pack
from likelier.scoring.precision import master_dtype
from likelier.scoring.scorer import Scorer
from likelier.training.checkpoint import Position
from likelier.training.credit import Carried, Credit, credit
from likelier.training.frozen import FrozenOther, FrozenStart
from likelier.training.memory import longest_path
from likelier.training.method import Method, Metrics, References, Update, Work
from likelier.training.policy import Policy
from likelier.training.ppo_config import PpoConfig
from likelier.training.ppo_figures import PpoFigures, evaluation_figures, report
from likelier.training.preparation import Data
from likelier.training.rollouts import Rollout, draw_rollout, num_scored, rollout_seed
from likelier.training.surrogate import TokenLosses, token_losses

SHOWN = ("reward/mean", "reward/mean/low", "reward/mean/high", "kl", "kl/low", "kl/high", "length/mean")
NAMES = {"gae": "PPO", "rloo": "RLOO", "grpo": "GRPO"}
HELD_OUT = -1
"""In place of a step, for the noise of held-out answers: the same at every evaluation."""


class PolicyGradient:
    """What `likelier ppo` has of its own: math.md (4), by samples."""

    def __init__(self, config: PpoConfig, reward: Reward, *, reference: Any = None) -> None:
        self.config, self.reward, self.other = config, reward, reference
        self.prompts: dict[str, Prompt] = {}
        self.held_out: dict[str, Prompt] = {}
        self.policy: Policy | None = None
        self.reference: FrozenStart | FrozenOther | None = None
        self.unanswered: list[Tree] = []

    def method(self) -> Method:
        """As the loop takes it."""
        updates = self.config.rollout_epochs * self.config.minibatches
        return Method(
            stage="ppo",
            name=NAMES[self.config.advantage],
            unit="answers",
            read=self.read,
            work=self.work,
            evaluate=self.evaluate,
            shown=SHOWN,
            report=report,
            held_to=self.config.reference or "the policy before its first update",
            scored_first=False,
            held=self.held,
            value_rate=self.config.value_learning_rate if self.config.advantage == "gae" else None,
            reference=self.other,
            look=self.look,
            begin=self.begin,
            grown=self.grown,
            num_updates=updates,
            # Drawing, scoring and the reference: three passes without a gradient, a third of one with it each.
            passes=self.config.rollout_epochs + 1.0,
            costs=self.costs,
            likelihoods=False,
            descends=False,
        )

    def read(self, config: PpoConfig, prompts: Any, eval_prompts: Any, tokenizer: Any) -> Data:
        """The prompts, as trees whose answers are still to be drawn."""
        notes: list[str] = []
        records = _records(config, prompts, notes)
        held_out: list[Record] = []
        if eval_prompts is not None:
            held_out = _records(config, eval_prompts, notes)
        elif config.eval_share is not None:
            if len(records) < 2:
                raise DataError("one prompt alone cannot be split; give --eval-prompts instead")
            records, held_out = split_by_prompt(records, config.eval_share, seed=0)
        self.prompts, self.held_out = _by_id(records), _by_id(held_out)
        hashes = {"train": hash_records(records)}
        if held_out:
            hashes["eval"] = hash_records(held_out)
        train = _unanswered(tokenizer, self.prompts, config.n)
        held_out_trees = _unanswered(tokenizer, self.held_out, config.n)
        self.unanswered = [*train, *held_out_trees]
        return Data(
            train,
            held_out_trees,
            hashes["train"],
            hashes,
            notes,
            drawn_by=hashes["train"],
        )

    def begin(self, policy: Policy) -> None:
        """The reference is the policy as it is now, or another model; a value begins at 0 everywhere."""
        self.policy = policy
        if self.other is None:
            self.reference = FrozenStart(policy)
        else:
            self.reference = FrozenOther(self.config, self.other, policy, self.grown(self.unanswered))
        if self.config.advantage == "gae":
            policy.value_head = _value_head(policy)

    def held(self) -> dict[str, str]:
        """The weights of a reward model and of another reference, whatever folders they lie in."""
        found = {"reward": self.reward.content}
        if isinstance(self.reference, FrozenOther):
            found["reference"] = self.reference.content.hex()
        return {name: f"a model of content {content[:16]}" for name, content in found.items() if content}

    def grown(self, trees: Sequence[Tree]) -> Sequence[Tree]:
        """With answers as long as they may be."""
        length = self.config.max_new_tokens
        answer = Node(0, np.zeros(length, np.int32), np.ones(length, np.bool_))
        return [Tree(t.id, (t.nodes[0], *[answer] * len(t.branches)), t.branches) for t in trees]

    def costs(self, trees: Sequence[Tree], max_tokens: int) -> Sequence[str]:
        """Refuses a forward that is too small for the longest answer that may come."""
        longest = longest_path(trees)
        if longest > max_tokens:
            raise UsageError(
                f"--max-tokens {max_tokens}: the longest prompt with an answer of --max-new-tokens"
                f" {self.config.max_new_tokens} has {longest}; raise it, or shorten one of the two"
            )
        return ()

    def work(self, policy: Policy, trees: Sequence[Tree], _: References, position: Position) -> Work:
        """A rollout, and the updates on it."""
        config = self.config
        rollout = self._drawn(policy, [self.prompts[tree.id] for tree in trees], position.step)
        carried = Carried.of(position.carried, config).seen(rollout.rewards, config)
        figures = PpoFigures.of(
            rollout, carried.beta, normalized=config.normalize_rewards, target=config.target_kl
        )
        found = credit(rollout, config, carried)
        figures.explained_variance = found.explained_variance
        position.carried = carried.after(rollout, config).kept()
        return Work(rollout.parts, self._updates(policy, rollout, found, figures, position.step))

    def look(self, figures: PpoFigures, policy: Policy) -> str | None:
        """Stop where the policy before its first update is not its own reference; say how far it is from another."""
        if self.other is not None:
            kl = figures.rollout["kl"]
            return f"against {self.config.reference} the first answers have a KL of {kl:.4g} nats (k1)"
        worst = figures.largest_ratio
        if worst > (0.0 if policy.scorer.device.type == "cpu" else 0.5):
            raise WorkError(
                f"before the first update the policy differs from its reference by {worst:.3g} nats in a token, not 0;"
                " run again with --debug and report this"
            )
        return None

    def evaluate(self, scorer: Scorer, trees: Sequence[Tree], _: References) -> Metrics:
        """Reward and KL of answers to held-out prompts, drawn with the same noise every time."""
        assert self.policy is not None
        rollout = self._drawn(self.policy, [self.held_out[tree.id] for tree in trees], HELD_OUT)
        return evaluation_figures(rollout, self.config.beta)

    def _drawn(self, policy: Policy, prompts: Sequence[Prompt], step: int) -> Rollout:
        assert self.reference is not None
        return draw_rollout(
            *(policy, self.reference, self.reward, prompts),
            n=self.config.n,
            max_new_tokens=self.config.max_new_tokens,
            sampler=Sampler(seed=rollout_seed(self.config.seed, step), temperature=self.config.temperature),
        )

    def _updates(
        self, policy: Policy, rollout: Rollout, found: Credit, figures: PpoFigures, step: int
    ) -> Iterator[Update]:
        """Pass after pass over the rollout, minibatch after minibatch."""
        for number in range(self.config.rollout_epochs):
            for parts in _minibatches(rollout, self.config, step, number):
                yield partial(self._gradient, policy, rollout, found, parts, figures)

    def _gradient(
        self, policy: Policy, rollout: Rollout, found: Credit, parts: Sequence[int], figures: PpoFigures
    ) -> PpoFigures | None:
        """Add the gradient of `Σ loss / Σ tokens`, the tokens of as many answers of the rollout's mean length.

        None once the policy is too far from the one that drew the rollout.
        """
        trees = [rollout.parts[i] for i in parts]
        places = _places(rollout.parts)
        denominator = sum(len(tree.branches) for tree in trees) * len(rollout.logps) / len(rollout.answers)
        total = TokenLosses.none()
        for indices in policy.scorer.make_packs(trees):
            chosen = [places[parts[i]] for i in indices]
            pack = make_pack([trees[i] for i in indices])
            now = policy.scorer.token_figures(pack, policy.value_head)
            losses = token_losses(now, rollout, found, chosen, self.config)
            require_number(losses.total, [trees[i] for i in indices])
            (losses.total / denominator).backward()
            total = total.plus(losses)
        figures.note(total, denominator)
        far = self.config.stop_kl is not None and total.approximate_kl / total.tokens > self.config.stop_kl
        if far and figures.updates > 1:
            figures.updates -= 1
            return None
        return figures


def require_number(value: Tensor, trees: Sequence[Tree]) -> None:
    """Raises `WorkError`, naming prompts, for a loss that is not finite."""
    if not bool(torch.isfinite(value)):
        named = ", ".join(tree.id for tree in trees[:8])
        raise WorkError(
            f"the loss is {float(value.detach())} on answers to the prompts {named}; the model is as it was before this"
            " update: lower --learning-rate, or set --stop-kl"
        )


def _records(config: PpoConfig, data: Any, notes: list[str]) -> list[Record]:
    return read_prompt_records(
        data,
        format=config.format,
        as_messages=config.as_ == "messages",
        skip_bad_rows=config.skip_bad_rows,
        say=notes.append,
    )


def _by_id(records: Sequence[Record]) -> dict[str, Prompt]:
    return {record.id: Prompt(id=record.id, content=record.prompt) for record in records}


def _unanswered(tokenizer: Any, prompts: Mapping[str, Prompt], n: int) -> list[Tree]:
    """A tree for each prompt, with `n` answers that are empty so far: a step takes prompts by how many they will be."""
    encoded = encode_prompts(tokenizer, list(prompts.values()))
    return [tree_of(tokens, [[]] * n, id=name) for name, tokens in zip(prompts, encoded, strict=True)]


def _value_head(policy: Policy) -> nn.Linear:
    """One linear output on the final hidden state, 0 at first."""
    width = policy.scorer.causal.get_output_embeddings().weight.shape[1]
    head = nn.Linear(width, 1, device=policy.scorer.device, dtype=master_dtype(policy.precision))
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _minibatches(rollout: Rollout, config: PpoConfig, step: int, number: int) -> Iterator[list[int]]:
    """Indices of the rollout's parts, the answers of a prompt together; another division in each pass."""
    prompts = list(dict.fromkeys(part.id for part in rollout.parts))
    order = permutation(len(prompts), seed=config.seed, epoch=number, content_hash=f"rollout {step}")
    count = min(config.minibatches, len(prompts))
    for batch in range(count):
        chosen = {prompts[place] for place in order[batch::count]}
        yield [index for index, part in enumerate(rollout.parts) if part.id in chosen]


def _places(parts: Sequence[Tree]) -> list[slice]:
    """Where each part's tokens lie among all."""
    found, start = [], 0
    for part in parts:
        found.append(slice(start, start + num_scored(part)))
        start = found[-1].stop
    return found
