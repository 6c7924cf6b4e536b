"""Two models' answers to the same prompts, compared: every figure with its interval, paired over prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from likelier.data.records import Content
from likelier.engines.sampling import SampledCompletion, SampledPrompt
from likelier.stats import Estimate, accuracy_interval, mean_interval, paired_interval
from likelier.stats.repetition import repetition


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A mean over answers before and after, and the mean change per prompt."""

    name: str
    before: Estimate
    after: Estimate
    change: Estimate
    """Paired over prompts: a prompt's mean after less its mean before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a change of model did to the answers, on prompts that both answered."""

    reward: Change
    win_rate: Estimate
    """Share of pairs (after, before) of answers to a prompt whose first scores higher; ties half."""
    kl: Estimate
    """KL(after ‖ before) in nats per answer."""
    kl_estimator: str
    cut: int
    """Answers after the change that the length limit cut."""
    length: Change
    repetition: Change
    stop_rate: Change
    rewards_before: list[list[float]]
    """[prompts][answers]."""
    rewards_after: list[list[float]]
    kl_per_prompt: list[float]

    @property
    def verdict(self) -> str:
        """`"gain"`, `"loss"` or `"none"`: what the interval of the reward's change allows to say."""
        if not self.reward.change.excludes(0.0):
            return "none"
        return "gain" if self.reward.change.value > 0 else "loss"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "verdict": self.verdict}


def compare(
    before: Sequence[SampledPrompt],
    after: Sequence[SampledPrompt],
    *,
    rewards_before: list[list[float]],
    rewards_after: list[list[float]],
    kl: list[list[float]],
    kl_estimator: str,
) -> Comparison:
    """Compares answers to the same prompts in the same order.

    Args:
        before, after: the answers.
        rewards_before, rewards_after: [prompts][answers].
        kl: per answer after the change, an estimate of KL(after ‖ before).
        kl_estimator: which, for the report.
    """
    return Comparison(
        reward=_change("reward", rewards_before, rewards_after),
        win_rate=win_rate(rewards_before, rewards_after),
        kl=_clustered(kl),
        kl_estimator=kl_estimator,
        cut=sum(answer.finish == "length" for prompt in after for answer in prompt.completions),
        length=_change("length", _per_answer(before, _length), _per_answer(after, _length)),
        repetition=_change("repetition", _per_answer(before, _repetition), _per_answer(after, _repetition)),
        stop_rate=_change("stop rate", _per_answer(before, _stopped), _per_answer(after, _stopped)),
        rewards_before=rewards_before,
        rewards_after=rewards_after,
        kl_per_prompt=[fmean(values) for values in kl],
    )


def rewards_of(
    reward: Callable[[Sequence[Content], Sequence[str]], list[float]], sampled: Sequence[SampledPrompt]
) -> list[list[float]]:
    """The reward of every answer, `[prompts][answers]`."""
    return [
        reward([prompt.prompt] * len(prompt.completions), [answer.text for answer in prompt.completions])
        for prompt in sampled
    ]


def win_rate(before: list[list[float]], after: list[list[float]]) -> Estimate:
    """How often an answer after the change scores higher than one before it, prompt by prompt, ties half.

    All pairs within a prompt are compared; the interval is clustered by prompt.

    >>> print(win_rate([[0.0], [0.0], [1.0]], [[1.0], [0.0], [2.0]]).value)
    0.8333333333333334
    """
    margins, clusters = [], []
    for prompt, (first, second) in enumerate(zip(before, after, strict=True)):
        margins += [new - old for new in second for old in first]
        clusters += [prompt] * (len(first) * len(second))
    return accuracy_interval(margins, clusters=clusters)


def _change(name: str, before: list[list[float]], after: list[list[float]]) -> Change:
    means_before, means_after = [fmean(values) for values in before], [fmean(values) for values in after]
    change = paired_interval(means_before, means_after)
    return Change(name=name, before=_clustered(before), after=_clustered(after), change=change)


def _clustered(values: list[list[float]]) -> Estimate:
    clusters = [prompt for prompt, answers in enumerate(values) for _ in answers]
    return mean_interval([value for answers in values for value in answers], clusters=clusters)


def _per_answer(prompts: Sequence[SampledPrompt], measure: Any) -> list[list[float]]:
    return [[measure(answer) for answer in prompt.completions] for prompt in prompts]


def _length(answer: SampledCompletion) -> float:
    return float(len(answer.tokens))


def _repetition(answer: SampledCompletion) -> float:
    return repetition(answer.tokens)


def _stopped(answer: SampledCompletion) -> float:
    return float(answer.finish == "stop")
