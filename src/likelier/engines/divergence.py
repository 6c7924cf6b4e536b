"""KL(policy ‖ reference) of whole answers, estimated along answers that the policy drew (math.md, "KL").

The answers must be drawn at temperature 1 without top-p or top-k. Answers cut at a length limit estimate the
KL of the cut process; the estimate carries their number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from likelier.engines.decoding import Prefix, read_prompts, width_of
from likelier.engines.mixing import Mixture, mixed_logits
from likelier.engines.sampling import SampledPrompt

POSITIONS = 2048
"""Answer tokens in one forward at most: the logits of all of them are held at once."""
ROWS = 64
"""Answers in one forward at most."""

Estimator = Literal["rao_blackwell", "k1"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KlEstimate:
    """Per answer, in nats; the mean over answers estimates KL(policy ‖ reference)."""

    estimator: Estimator
    values: list[list[float]]
    """[prompts][answers]."""
    cut: int
    """Answers that a length limit cut."""


@torch.inference_mode()
def estimate_kl(
    policy: Any,
    reference: Any,
    sampled: Sequence[SampledPrompt],
    *,
    estimator: Estimator = "rao_blackwell",
    strengths: Sequence[float] | None = None,
) -> KlEstimate:
    """Estimates KL(policy ‖ reference) along answers drawn from the policy at temperature 1.

    `"rao_blackwell"` sums over an answer's positions the KL between the two next-token distributions there,
    over the whole vocabulary: the same expectation as `"k1"`, the answer's log-ratio, with less variance.

    Args:
        policy: a causal language model, in evaluation mode.
        reference: one with the same vocabulary.
        sampled: answers with their tokens; each prompt with at least one.
        estimator: which of the two.
        strengths: by number of the answer, where each prompt's were drawn from the two models mixed at these
            (`dialling.py`); the KL is then that of the mixture, and still each model reads an answer once.
    """
    values: list[list[float]] = [[0.0] * len(prompt.completions) for prompt in sampled]
    for block in _blocks(sampled):
        answers = [sampled[number].completions[index].tokens for number, index in block]
        prompts = [sampled[number].prompt_tokens for number, _ in block]
        policy_logits, reference_logits = _both_logits(policy, reference, prompts, answers)
        for row, (number, index) in enumerate(block):
            length = len(answers[row])
            drawn = torch.tensor(answers[row], device=policy_logits.device)
            own, other = policy_logits[row, :length], reference_logits[row, :length]
            if strengths is not None:
                own = mixed_logits(other, own, strengths[index])
            values[number][index] = _answer_kl(own, other, drawn, estimator)
    cut = sum(answer.finish == "length" for prompt in sampled for answer in prompt.completions)
    return KlEstimate(estimator=estimator, values=values, cut=cut)


def _blocks(sampled: Sequence[SampledPrompt]) -> Iterator[list[tuple[int, int]]]:
    """(prompt number, answer number), prompts of one width together, answers of a prompt side by side."""
    by_width: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for number, prompt in enumerate(sampled):
        rows = [(number, index) for index in range(len(prompt.completions))]
        by_width[width_of(len(prompt.prompt_tokens))] += rows
    longest = max(len(answer.tokens) for prompt in sampled for answer in prompt.completions)
    size = max(1, min(ROWS, POSITIONS // longest))
    for _, rows in sorted(by_width.items()):
        yield from (rows[start : start + size] for start in range(0, len(rows), size))


def _both_logits(
    policy: Any, reference: Any, prompts: list[list[int]], answers: list[list[int]]
) -> tuple[Tensor, Tensor]:
    """Of policy and reference, which see the same shapes: equal weights give exactly 0."""
    theirs = _answer_logits(reference, prompts, answers)
    if isinstance(policy, Mixture) and policy.reference is reference and policy.strength is not None:
        # A mixture with this very reference has read it already.
        own = _answer_logits(policy.policy, prompts, answers)
        return mixed_logits(theirs, own, policy.strength), theirs
    return _answer_logits(policy, prompts, answers), theirs


def _answer_logits(model: Any, prompts: list[list[int]], answers: list[list[int]]) -> Tensor:
    """[answers, longest answer, vocabulary]: the logits that predict each answer's tokens."""
    different = list(dict.fromkeys(map(tuple, prompts)))
    prefix: Prefix = read_prompts(model, different)
    rows = torch.tensor([different.index(tuple(prompt)) for prompt in prompts], device=prefix.logits.device)
    longest = max(map(len, answers))
    state = prefix.select(rows, room=longest)
    if longest == 1:
        return state.logits[:, None]
    # What is fed after an answer's end is never looked at by what comes before it.
    fed = [answer[: longest - 1] + [0] * (longest - 1 - len(answer)) for answer in answers]
    later = state.append(torch.tensor(fed, device=rows.device))
    return torch.cat([state.logits[:, None], later], dim=1)


def _answer_kl(policy: Tensor, reference: Tensor, drawn: Tensor, estimator: Estimator) -> float:
    policy, reference = policy.float().log_softmax(dim=-1), reference.float().log_softmax(dim=-1)
    log_ratio = policy - reference
    if estimator == "k1":
        return float(log_ratio.gather(-1, drawn[:, None]).sum())
    return float((policy.exp() * log_ratio).sum())
