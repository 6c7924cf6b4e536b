"""Rollouts: answers that the policy draws, their rewards, and what policy, reference and value say of each token.

The answers come from the engine of `likelier sample`. On a CPU they are a pure function of the weights, the seed, the
step and the prompt's id, so that a run that is resumed between a rollout and its updates draws it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor, nn

from likelier.data.trees import Tree, tree_of
from likelier.engines.decoding import lowered
from likelier.engines.drawing import Sampler
from likelier.engines.prompts import Prompt
from likelier.engines.rewards import Reward
from likelier.engines.sampling import SampledCompletion, sample
from likelier.scoring.packing import make_pack, split_tree
from likelier.scoring.scorer import Scorer
from likelier.training.frozen import FrozenOther, FrozenStart
from likelier.training.policy import Policy


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Rollout:
    """Answers in the order of their prompts, and per-token numbers in the order of the answers."""

    prompts: list[str]
    """Per answer, its prompt's id."""
    answers: list[SampledCompletion]
    rewards: Tensor
    """`[answers]` float64."""
    parts: list[Tree]
    """A prompt with its answers each; one over `max_tokens` in several, in order."""
    logps: Tensor
    """`[tokens]`, log π of what was drawn, under the policy that drew it, in nats."""
    reference_logps: Tensor
    """`[tokens]`."""
    entropies: Tensor
    """`[tokens]`, in nats."""
    values: Tensor | None
    """`[tokens]`, where a value is learned."""

    @property
    def lengths(self) -> list[int]:
        """Per answer, its tokens."""
        return [len(answer.tokens) for answer in self.answers]

    @property
    def log_ratios(self) -> Tensor:
        """`[tokens]` float64, log π − log π_ref."""
        return self.logps.double() - self.reference_logps.double()

    def per_answer(self, values: Tensor) -> Tensor:
        """`[tokens]` -> `[answers]`: sums."""
        return torch.stack([part.sum() for part in values.split(self.lengths)])

    def padded(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """`[tokens]` -> `[answers, longest]`, and the mask of what is there."""
        rows = nn.utils.rnn.pad_sequence(list(values.split(self.lengths)), batch_first=True)
        lengths = torch.tensor(self.lengths)
        return rows, torch.arange(rows.shape[1]) < lengths[:, None]


def rollout_seed(seed: int, step: int) -> int:
    """The sampler's seed for the rollout after `step` updates' worth of rollouts: no two steps share their noise.

    >>> rollout_seed(0, 1) == rollout_seed(0, 1), rollout_seed(0, 1) == rollout_seed(1, 0)
    (True, False)
    """
    return int.from_bytes(blake2b(f"rollout {seed} {step}".encode(), digest_size=8).digest(), "little") >> 1


def draw_rollout(
    policy: Policy,
    reference: FrozenStart | FrozenOther,
    reward: Reward,
    prompts: Sequence[Prompt],
    *,
    n: int,
    max_new_tokens: int,
    sampler: Sampler,
) -> Rollout:
    """`n` answers to each prompt, rewarded and scored; `sampler` draws from the policy's own distribution.

    Raises:
        WorkError: a reward that fails or is no finite number; names the prompt.
    """
    with policy.scorer.plain() as model:
        sampled = sample(
            *(_drawn_from(model, policy), policy.tokenizer, prompts),
            n=n,
            max_new_tokens=max_new_tokens,
            sampler=sampler,
        )
    answers = [answer for prompt in sampled for answer in prompt.completions]
    trees = [
        tree_of(prompt.prompt_tokens, [answer.tokens for answer in prompt.completions], id=prompt.id)
        for prompt in sampled
    ]
    parts = [part for tree in trees for part in split_tree(tree, max_tokens=policy.scorer.max_tokens)]
    rewards = reward(
        [prompt.content for prompt in prompts for _ in range(n)],
        [answer.text for answer in answers],
        places=[f"prompt {prompt.id!r}, answer {number + 1}" for prompt in prompts for number in range(n)],
    )
    logps, entropies, *values = token_numbers(policy.scorer, parts, policy.value_head)
    return Rollout(
        prompts=[prompt.id for prompt in prompts for _ in range(n)],
        answers=answers,
        rewards=torch.tensor(rewards, dtype=torch.float64),
        parts=parts,
        logps=logps,
        reference_logps=torch.cat([own for branches in reference.score(parts) for own in branches]),
        entropies=entropies,
        values=values[0] if values else None,
    )


def _drawn_from(model: nn.Module, policy: Policy) -> nn.Module:
    """The policy, in the precision of its products: half the bytes a token. What is learned from are log-probs by the
    scorer, never the sampler's."""
    return lowered(model, torch.bfloat16, copied=True) if policy.precision == "bfloat16" else model


def num_scored(tree: Tree) -> int:
    """Tokens of all branches that are scored."""
    return sum(tree.branch_length(branch) for branch in range(len(tree.branches)))


@torch.no_grad()
def token_numbers(scorer: Scorer, trees: Sequence[Tree], value_head: nn.Linear | None) -> list[Tensor]:
    """Log-probs, entropies and, with a value head, values: each `[tokens]` in the order of the branches, on the CPU."""
    found: dict[int, list[Tensor]] = {}
    for indices in scorer.make_packs(trees):
        figures = scorer.token_figures(make_pack([trees[i] for i in indices]), value_head)
        columns = [figures.logps, figures.entropies] + ([] if figures.values is None else [figures.values])
        counts = [num_scored(trees[i]) for i in indices]
        split = [column.cpu().split(counts) for column in columns]
        found |= {index: [column[place] for column in split] for place, index in enumerate(indices)}
    return [torch.cat(column) for column in zip(*(found[i] for i in range(len(trees))), strict=True)]
