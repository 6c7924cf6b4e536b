"""Who says which of two answers is better: a reward, or a judge that sees both orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from likelier.data.reading import load_records
from likelier.data.records import Completion, Record
from likelier.engines.judge_figures import figures_of
from likelier.engines.judges import Judge
from likelier.engines.judging import judge_cases, judge_notes, judge_of
from likelier.engines.rewards import Reward
from likelier.engines.verdicts import Case, Judged, counted_reasons, labelled_cases, why_not
from likelier.errors import DataError, WorkError
from likelier.stages.evaluate_config import EvaluateConfig
from likelier.stages.evaluate_output import Say
from likelier.stages.evaluate_rewards import Given, check_reward, resolved

SAME = "the same answer"


class Referee(Protocol):
    """Who says which of two answers is better."""

    name: str
    how: str
    """For people: a reward and its meaning, or a judge, the order, and what it says."""

    def outcomes(
        self, records: Sequence[Record], pairs: Sequence[tuple[int, str, str]]
    ) -> tuple[list[float | str], dict[str, Any]]:
        """Of each pair (prompt, first answer, second answer) 1, 0 or one half, or why there is no verdict; and what
        all of them together say about the referee."""

    def close(self) -> None:
        """Lets go of what was loaded."""


class ByReward:
    """The answer of the higher reward is better."""

    def __init__(self, reward: Given, *, name: str) -> None:
        self._given = reward
        self._reward: Reward | None = None
        self._known: dict[tuple[int, str], float] = {}
        self.name = reward if isinstance(reward, str) else name
        self.how = f"by the reward {self.name}"
        check_reward(reward)

    def outcomes(
        self, records: Sequence[Record], pairs: Sequence[tuple[int, str, str]]
    ) -> tuple[list[float | str], dict[str, Any]]:
        """By the sign of the difference; equal rewards are a tie."""
        if self._reward is None:
            self._reward = resolved(self._given, name=self.name)
        texts = {(prompt, text) for prompt, *both in pairs for text in both}
        asked_for = sorted(texts - self._known.keys())
        scores = self._reward(
            [records[prompt].prompt for prompt, _ in asked_for],
            [text for _, text in asked_for],
            places=[f"an answer to prompt {records[prompt].id!r}" for prompt, _ in asked_for],
        )
        self._known |= dict(zip(asked_for, scores, strict=True))
        gaps = [self._known[prompt, first] - self._known[prompt, second] for prompt, first, second in pairs]
        return [0.5 if gap == 0 else float(gap > 0) for gap in gaps], {}

    def close(self) -> None:
        """The reward model, if it is one, goes with this."""
        self._reward = None


class ByJudge:
    """A language model that sees both orders; what does not survive the swap is a tie."""

    def __init__(self, config: EvaluateConfig, model: Any, tokenizer: Any, *, say: Say) -> None:
        self._config, self._model, self._tokenizer, self._say = config, model, tokenizer, say
        self._judge: Judge | None = None
        self.name = str(config.judge_model)
        verdict = "log-odds" if config.verdict == "log-odds" else "verdicts"
        self.how = f"by the judge {self.name} ({verdict}, both orders, disagreement a tie)"

    def outcomes(
        self, records: Sequence[Record], pairs: Sequence[tuple[int, str, str]]
    ) -> tuple[list[float | str], dict[str, Any]]:
        """Equal answers are a tie that nobody is asked about."""
        cases = {
            place: _case(records[prompt], prompt, first, second)
            for place, (prompt, first, second) in enumerate(pairs)
            if first != second
        }
        judged, known = judge_cases(self._loaded(), list(cases.values()), self._config, say=self._say)
        found: list[float | str] = [0.5] * len(pairs)
        for place, one in zip(cases, judged, strict=True):
            found[place] = _outcome(one)
        figures = figures_of(judged, asked=2 * len(cases) - known, known=known) if judged else {}
        return found, {**figures, SAME: len(pairs) - len(cases)}

    def agreement(self, labels: str) -> dict[str, Any]:
        """How often it agrees with people, on their own pairs.

        Raises:
            DataError: rows that cannot be read, or in which nobody prefers anything.
            WorkError: not one verdict could be had.
        """
        records, faults = load_records(labels, skip_bad_rows=True)
        cases = labelled_cases(records)
        if not cases:
            raise DataError(f"--human-labels {labels}: in no row is one answer better than another")
        self._say(f"{len(cases)} pairs that people labelled in {labels}")
        judged, known = judge_cases(self._loaded(), cases, self._config, say=self._say)
        figures = figures_of(judged, asked=2 * len(cases) - known, known=known)
        if not figures["judged"]:
            raise WorkError(_no_verdict(self.name, judged))
        return {"file": labels, "pairs": len(cases), "skipped": len(faults), **figures}

    def close(self) -> None:
        """The judge's model as it was, and away."""
        if self._judge is not None:
            for note in judge_notes(self._judge):
                self._say(note)
            self._judge.close()
            self._judge = None

    def _loaded(self) -> Judge:
        """Only once the answers are there: no more models in memory than needed."""
        if self._judge is None:
            precision = self._config.precision
            self._judge = judge_of(self._config, self._model, self._tokenizer, precision=precision)
        return self._judge


def referee_of(
    config: EvaluateConfig, reward: Any, judge_model: Any, tokenizer: Any, *, say: Say
) -> ByReward | ByJudge:
    """Who says which answer is better, as the settings name it.

    Raises:
        UsageError: no such reward.
    """
    if config.judge_model is not None:
        return ByJudge(config, judge_model, tokenizer, say=say)
    return ByReward(reward, name=config.reward or "")


def judge_words(figures: Mapping[str, Any]) -> list[str]:
    """What the verdicts say about a judge."""
    lines = []
    for name, meaning in (
        ("first_shown_wins", "the answer shown first wins (one half is no bias)"),
        ("orders_agree", "both orders say the same"),
    ):
        if figures.get(name) is not None:
            lines.append(f"{meaning}: {figures[name]['told']}")
    if figures.get("unparsable"):
        lines.append(f"answers of the judge without a verdict: {figures['unparsable']}")
    return lines


def agreement_words(agreement: Mapping[str, Any]) -> str:
    """Whether the judge may be believed."""
    told = agreement["accuracy"]["told"]
    return f"the judge agrees with people ({agreement['file']}), a tie being one half: {told}"


def failures_in(figures: Mapping[str, Any]) -> int:
    """Questions that a server did not answer."""
    return sum((figures.get("failures") or {}).values())


def _case(record: Record, prompt: int, first: str, second: str) -> Case:
    answers = [Completion(content=first), Completion(content=second)]
    return Case(replace(record, completions=answers), prompt, None)


def _outcome(one: Judged) -> float | str:
    if not one.labelled:
        return why_not(one)
    return 0.5 if one.winner is None else float(one.winner == 0)


def _no_verdict(name: str, judged: Sequence[Judged]) -> str:
    return f"{name} gave no verdict on any of {len(judged)} pairs ({counted_reasons(judged)})"
