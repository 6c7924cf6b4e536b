"""`--sample-prompts F --sample-every N`: what the policy answers as it trains, and how far it has gone.

The same prompts with the same random numbers every time, so that answers at two steps differ by the policy
alone. KL, length, repetition and stop rate come from these answers and from nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import Tensor

from likelier.data.reading import load_records
from likelier.data.trees import Tree, tree_of
from likelier.engines.drawing import Sampler
from likelier.engines.prompts import Prompt, encode_prompts
from likelier.engines.sampling import SampledCompletion, SampledPrompt, sample
from likelier.errors import DataError
from likelier.scoring.scorer import Scorer
from likelier.stats.repetition import repetition
from likelier.training.frozen import FrozenStart
from likelier.training.memory import longest_path
from likelier.training.policy import Policy

MAX_NEW_TOKENS = 64
"""Of an answer."""
BranchLogps = Callable[[Sequence[Tree]], Sequence[Sequence[Tensor]]]
"""Per tree and branch the log-probs of its scored tokens: `Scorer.score`, or the reference's."""


def read_sample_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file of rows with a `prompt` and, if wanted, an `id`.

    Raises:
        DataError: rows without a prompt, or ids that repeat.
    """
    records, _ = load_records(path, format="prompts")
    seen: dict[str, str] = {}
    for record in records:
        if record.id in seen:
            raise DataError(
                f"{record.where}: the id {record.id!r} is that of {seen[record.id]} too; ids must differ, since "
                "answers are drawn by them"
            )
        seen[record.id] = record.where
    return [Prompt(id=record.id, content=record.prompt) for record in records]


def require_room(prompts: Sequence[Prompt], policy: Policy) -> None:
    """Refuse prompts that leave no room for an answer, before anything is scored.

    Raises:
        DataError: names the prompt.
    """
    context = getattr(policy.scorer.causal.config.get_text_config(), "max_position_embeddings", None)
    for prompt, tokens in zip(prompts, encode_prompts(policy.tokenizer, prompts), strict=True):
        if isinstance(context, int) and len(tokens) + MAX_NEW_TOKENS > context:
            raise DataError(
                f"--sample-prompts: prompt {prompt.id!r} has {len(tokens)} tokens, and {MAX_NEW_TOKENS} more of an"
                f" answer exceed the context of {policy.name}, {context}: shorten it, or leave it out"
            )


class PromptSamples:
    """Answers fixed prompts, again and again.

    Args:
        tokenizer: the policy's.
        prompts: from `read_sample_prompts`.
        write: takes each line of `samples.jsonl`.
        plain: the policy as transformers runs it, for as long as the context lasts (`Scorer.plain`).
        logps: of the policy, by the kernels that train it (`Scorer.score`).
        reference_logps: of the policy at step 0, or another reference; None reports no KL.
        max_new_tokens: answers are cut there.
        seed: with a prompt's id, the source of all random numbers.
    """

    def __init__(
        self,
        tokenizer: Any,
        prompts: Sequence[Prompt],
        *,
        write: Callable[[Mapping[str, Any]], None],
        plain: Callable[[], AbstractContextManager[Any]],
        logps: BranchLogps,
        reference_logps: BranchLogps | None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        seed: int = 0,
    ) -> None:
        self.tokenizer, self.prompts, self.write = tokenizer, list(prompts), write
        self.plain, self.logps, self.reference_logps = plain, logps, reference_logps
        self.max_new_tokens, self.seed = max_new_tokens, seed

    def take(self, *, step: int) -> dict[str, float]:
        """Draws one answer per prompt at temperature 1, writes a line for each, and measures them.

        A line is `{"step", "id", "prompt", "completion", "tokens", "finish", "logp"}`, and `"reference_logp"`
        where there is a reference; both log-probs are sums over the answer's tokens, in nats.

        Args:
            step: updates done.

        Returns:
            Means over the answers: `samples/length` in tokens, `samples/repetition` (the share of 3-grams of
            tokens that an answer has had before), `samples/stop_rate` (answers that end by themselves), and with
            a reference `samples/kl`, KL(policy ‖ reference) in nats per answer by the estimator k1 (math.md,
            "KL": the mean log-ratio of the drawn answers), which is exactly 0 at step 0. Where answers are cut,
            it is the KL of the cut process.
        """
        with self.plain() as model:
            sampled = sample(
                model,
                self.tokenizer,
                self.prompts,
                n=1,
                max_new_tokens=self.max_new_tokens,
                sampler=Sampler(seed=self.seed),
            )
        return self._measured(sampled, step=step)

    def _measured(self, sampled: Sequence[SampledPrompt], *, step: int) -> dict[str, float]:
        answers = [prompt.completions[0] for prompt in sampled]
        trees = [tree_of(prompt.prompt_tokens, [prompt.completions[0].tokens]) for prompt in sampled]
        logps = _sums(self.logps, trees)
        metrics = sample_metrics(answers)
        reference: Sequence[float | None] = [None] * len(trees)
        if self.reference_logps is not None:
            reference = known = _sums(self.reference_logps, trees)
            metrics["samples/kl"] = fmean(own - other for own, other in zip(logps, known, strict=True))
        for prompt, answer, logp, other in zip(sampled, answers, logps, reference, strict=True):
            self.write(_line(step, prompt, answer, logp, other))
        return metrics


def prompt_samples(
    policy: Policy,
    prompts: Sequence[Prompt],
    *,
    own_reference: bool,
    write: Callable[[Mapping[str, Any]], None],
    seed: int,
) -> PromptSamples:
    """For a run's policy; its start is kept, to measure how far it has gone."""
    scorer = policy.scorer
    return PromptSamples(
        policy.tokenizer,
        prompts,
        write=write,
        plain=scorer.plain,
        logps=_whole(scorer),
        reference_logps=FrozenStart(policy).score if own_reference else None,
        seed=seed,
    )


def _whole(scorer: Scorer) -> BranchLogps:
    """Its scores, however long an answer was sampled: `max_tokens` was chosen for the data."""
    return lambda trees: scorer.score(trees, max_tokens=max(scorer.max_tokens, longest_path(trees)))


def sample_metrics(answers: Sequence[SampledCompletion]) -> dict[str, float]:
    """Means over answers: their tokens, repeated 3-grams, and the share that ended by itself.

    >>> cut = SampledCompletion(text="", tokens=[1, 2, 3, 1, 2, 3], logp=-1.0, finish="length")
    >>> sample_metrics([cut])
    {'samples/length': 6.0, 'samples/repetition': 0.25, 'samples/stop_rate': 0.0}
    """
    return {
        "samples/length": fmean(len(answer.tokens) for answer in answers),
        "samples/repetition": fmean(repetition(answer.tokens) for answer in answers),
        "samples/stop_rate": fmean(answer.finish == "stop" for answer in answers),
    }


def _sums(logps: BranchLogps, trees: Sequence[Tree]) -> list[float]:
    return [float(branches[0].double().sum()) for branches in logps(trees)]


def _line(
    step: int, prompt: SampledPrompt, answer: SampledCompletion, logp: float, reference: float | None
) -> dict[str, Any]:
    line = {
        "step": step,
        "id": prompt.id,
        "prompt": prompt.prompt,
        "completion": answer.text,
        "tokens": answer.tokens,
        "finish": answer.finish,
        "logp": logp,
    }
    return line if reference is None else {**line, "reference_logp": reference}
