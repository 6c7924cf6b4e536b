"""The demo's page: one HTML file that needs no network; a script of a few lines moves its slider."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from likelier.report.pictures import (
    Turned,
    changes_picture,
    dial_picture,
    frontier_picture,
    rewards_picture,
    training_picture,
)
from likelier.stats import Estimate

if TYPE_CHECKING:
    from likelier.report.comparison import Comparison
    from likelier.report.dial import Dial


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A pair that was trained on, with its numbers before and after: the method on one row of data."""

    prompt: str
    chosen: str
    rejected: str
    chosen_score: float
    rejected_score: float
    beta: float
    reference_logps: tuple[float, float]
    """log π_ref of chosen and rejected."""
    policy_logps: tuple[float, float]
    """log π_θ of them, after training."""

    @property
    def log_ratios(self) -> tuple[float, float]:
        """log π_θ − log π_ref of chosen and rejected."""
        chosen, rejected = (
            policy - reference
            for policy, reference in zip(self.policy_logps, self.reference_logps, strict=True)
        )
        return chosen, rejected

    @property
    def rewards(self) -> tuple[float, float]:
        """The implicit rewards, math.md (8)."""
        chosen, rejected = self.log_ratios
        return self.beta * chosen, self.beta * rejected

    @property
    def margin(self) -> float:
        """u of math.md (7)."""
        return self.rewards[0] - self.rewards[1]

    @property
    def weight(self) -> float:
        """σ(−u), the pair's weight in the gradient, math.md (9)."""
        return math.exp(-_softplus(self.margin))

    @property
    def loss(self) -> float:
        """−log σ(u)."""
        return _softplus(-self.margin)


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBySide:
    """One prompt's answers before and after, drawn with the same random numbers."""

    subject: str
    prompt: str
    before: str
    after: str
    reward_before: float
    reward_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPage:
    """All that the page says."""

    model: str
    reward: str
    reward_meaning: str
    beta: float
    num_train_prompts: int
    num_train_answers: int
    num_pairs: int
    num_undecided: int
    num_skipped: int
    train_subjects: Sequence[str]
    held_out_subjects: Sequence[str]
    metrics: Sequence[dict[str, Any]]
    notes: Sequence[str]
    """What training said in words: rows that it left out or saw, early signs of trouble."""
    comparison: Comparison
    dial: Dial
    example: Example
    side_by_side: Sequence[SideBySide]
    """The first answers to prompts that were fixed beforehand."""
    gained: Sequence[SideBySide]
    """The prompts whose mean reward rose most."""
    lost: Sequence[SideBySide]
    """And those where it fell most."""
    max_new_tokens: int
    settings: Sequence[tuple[str, str]]
    commands: Sequence[tuple[str, str]]
    """What to do next: (what it does, the command)."""
    seconds: float
    quick: bool


def render_page(page: DemoPage) -> str:
    """The page as HTML; all text of prompts and models is escaped."""
    reward = on_an_axis(page.reward)
    pictures = {
        "rewards": rewards_picture(page.comparison, reward=reward),
        "changes": changes_picture(page.comparison, reward=reward),
        "training": training_picture(page.metrics),
        "frontier": frontier_picture(page.comparison, reward=reward),
        "dial": dial_picture(_turned(page.dial), reward=reward, shown=page.dial.policy),
    }
    # The pictures are ours: their only text is numbers, fixed labels and the reward's name, escaped in SVG.
    safe = {name: Markup(svg) for name, svg in pictures.items()}
    return environment().get_template("page.html.j2").render(page=page, pictures=safe)


def _turned(dial: Dial) -> list[Turned]:
    return [Turned(one.strength, one.point.reward, one.point.distance) for one in dial.settings]


def environment() -> Environment:
    """Where the templates of pages are found, with the filters that they use."""
    found = Environment(
        loader=PackageLoader("likelier", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        number=number,
        signed=signed,
        interval=interval,
        percent=percent,
        interval_percent=interval_percent,
        duration=duration,
        plural=plural,
    )
    return found


def on_an_axis(name: str) -> str:
    """A reward's name where there is room for 20 letters and a dollar sign begins a formula.

    >>> on_an_axis("vader"), on_an_axis("regex:^[$]" + 20 * "9")
    ('vader', 'regex:^[\\\\$]999999999…')
    """
    short = name if len(name) <= 20 else f"{name[:19]}…"
    return short.replace("$", r"\$")


def _softplus(value: float) -> float:
    """`log(1 + e^value)`, without overflow."""
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))


def number(value: float, digits: int = 2) -> str:
    """A number with a true minus sign, and no minus before a zero.

    >>> number(-0.344), number(-0.001), number(12.5, 1)
    ('−0.34', '0.00', '12.5')
    """
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    """A change, with its sign.

    >>> signed(0.151), signed(-0.151), signed(0.0)
    ('+0.15', '−0.15', '0.00')
    """
    text = number(value, digits)
    return text if text.startswith("−") or float(text) == 0 else f"+{text}"


def interval(estimate: Estimate, digits: int = 2) -> str:
    """An estimate's interval, or that there is none.

    >>> interval(Estimate(value=0.2, low=0.1, high=0.3, n=9, clusters=9))
    '[0.10, 0.30]'
    """
    if estimate.low is None or estimate.high is None:
        return "no interval"
    return f"[{number(estimate.low, digits)}, {number(estimate.high, digits)}]"


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "pair"), plural(1234, "pair")
    ('1 pair', '1,234 pairs')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def duration(seconds: float) -> str:
    """How long something took.

    >>> duration(40.2), duration(250.0)
    ('40 seconds', '4.2 minutes')
    """
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.1f} minutes"


def percent(value: float, digits: int = 0) -> str:
    """A share as per cent.

    >>> percent(0.614)
    '61 %'
    """
    return f"{number(100 * value, digits)} %"


def interval_percent(estimate: Estimate) -> str:
    """A share's interval as per cent.

    >>> interval_percent(Estimate(value=0.2, low=0.1, high=0.3, n=9, clusters=9))
    '[10 %, 30 %]'
    """
    if estimate.low is None or estimate.high is None:
        return "no interval"
    return f"[{percent(estimate.low)}, {percent(estimate.high)}]"
