"""The page of a way walked in rounds: what each round changed, who labelled how, and the commands of all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NamedTuple

from markupsafe import Markup

from likelier.engines.sampling import SampledPrompt
from likelier.report.comparison import Comparison
from likelier.report.page import environment, on_an_axis
from likelier.report.pictures import Point, rounds_picture
from likelier.stats import Estimate, mean_interval

SHOWN = 6
"""Prompts whose first answers are shown, round by round: fixed beforehand, not chosen."""


class Labelling(NamedTuple):
    """Somebody who labelled the same answers, how, and what came of it."""

    who: str
    how: str
    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A policy's answers to the held-out prompts; round 0 is the model before all."""

    number: int
    answers: Sequence[SampledPrompt]
    rewards: list[list[float]]
    """True rewards `[prompts][answers]`."""
    pairs: int = 0
    """Trained on in this round."""
    comparison: Comparison | None = None
    """With round 0, paired over prompts; None in round 0."""
    notes: Sequence[str] = field(default_factory=list)
    """What training said in words."""

    @property
    def reward(self) -> Estimate:
        """The mean true reward, its interval clustered by prompt."""
        clusters = [prompt for prompt, answers in enumerate(self.rewards) for _ in answers]
        return mean_interval([value for answers in self.rewards for value in answers], clusters=clusters)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        comparison = None if self.comparison is None else self.comparison.as_dict()
        return {"number": self.number, "pairs": self.pairs, "comparison": comparison, "notes": [*self.notes]}


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundsPage:
    """All that the page says."""

    model: str
    reward: str
    reward_meaning: str
    prompts: Sequence[str]
    """What the held-out prompts ask."""
    rounds: Sequence[Round]
    learned: Sequence[Sequence[float]]
    """What the reward model gives each round's answers."""
    labellings: Sequence[Labelling]
    commands: Sequence[str]
    seconds: float
    max_new_tokens: int

    @property
    def last(self) -> Comparison:
        """The last round against round 0."""
        assert self.rounds[-1].comparison is not None  # a way has a round at least
        return self.rounds[-1].comparison

    @property
    def side_by_side(self) -> list[tuple[str, list[tuple[int, str, float]]]]:
        """Prompts, each with (round, first answer, its reward)."""
        count = min(SHOWN, len(self.prompts))
        indices = [number * len(self.prompts) // count for number in range(count)]
        return [(self.prompts[i], [_first(one, i) for one in self.rounds]) for i in indices]


def render_rounds(page: RoundsPage) -> str:
    """The page as HTML; all text of prompts and models is escaped."""
    points = [
        Point(one.number, one.reward, None if one.comparison is None else one.comparison.kl)
        for one in page.rounds
    ]
    # The picture is ours: its only text is numbers, fixed labels and the reward's name, escaped in SVG.
    picture = Markup(rounds_picture(points, reward=on_an_axis(page.reward)))
    return environment().get_template("rounds.html.j2").render(page=page, picture=picture, mean=fmean)


def _first(one: Round, index: int) -> tuple[int, str, float]:
    return one.number, one.answers[index].completions[0].text, one.rewards[index][0]
