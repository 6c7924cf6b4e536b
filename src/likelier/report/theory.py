"""The page of `likelier theory`: the table of statements, the world, and the pictures, in one file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from likelier.report.page import environment, number
from likelier.theory.optimum import log_partition, optimal_policy
from likelier.theory.statement import Statement
from likelier.theory.verdict import Verdict
from likelier.theory.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A picture on the page, with what it says."""

    title: str
    words: str
    svg: str
    """Ours: its only text is numbers and fixed labels."""

    @property
    def picture(self) -> Markup:
        """For the template, unescaped."""
        return Markup(self.svg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Pictures that belong together."""

    title: str
    words: str
    pictures: Sequence[Shown]


@dataclass(frozen=True, slots=True, kw_only=True)
class TheoryPage:
    """All that the page says."""

    statements: Sequence[Statement]
    worlds: str
    """Where they were checked, in words."""
    world: World
    """The one that is shown."""
    beta: float
    sections: Sequence[Section]
    verdict: Verdict | None
    seconds: float

    @property
    def failed(self) -> list[Statement]:
        """Statements that do not hold."""
        return [one for one in self.statements if not one.holds]


class Row(NamedTuple):
    """A completion's numbers."""

    prompt: str | None
    """Of the first row of each prompt."""
    completions: int
    text: str
    reference: float
    reward: float
    policy: float
    member: float
    """`r − β log Z`, Theorem 1's reward of the class."""


SHOWN = 40
"""Completions of the world's table; a larger world is not shown."""


def world_rows(world: World, beta: float) -> list[Row]:
    """The world cell by cell, with π* and the class's own reward.

    >>> [round(row.policy, 3) for row in world_rows(World.random(0, prompts=1, completions=2), 0.5)]
    [0.025, 0.975]
    """
    policy = optimal_policy(world.log_reference, world.reward, beta).exp()
    member = world.reward - beta * log_partition(world.log_reference, world.reward, beta).unsqueeze(-1)
    reference = world.log_reference.exp()
    return [
        Row(
            prompt=world.prompts[x] if y == 0 else None,
            completions=len(names),
            text=text,
            reference=float(reference[x, y]),
            reward=float(world.reward[x, y]),
            policy=float(policy[x, y]),
            member=float(member[x, y]),
        )
        for x, names in enumerate(world.completions)
        for y, text in enumerate(names)
    ]


def render_theory(page: TheoryPage) -> str:
    """The page as HTML; the text of prompts, completions and losses is escaped."""
    rows = world_rows(page.world, page.beta)
    made = environment()
    made.filters.update(error=error, probability=probability)
    return made.get_template("theory.html.j2").render(page=page, rows=rows if len(rows) <= SHOWN else [])


def error(value: float) -> str:
    """An error or a bound, short.

    >>> error(0.0), error(3.26e-16), error(float("inf")), error(0.25)
    ('0', '3e−16', '∞', '0.25')
    """
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "∞"
    if value == 0.0 or value >= 1e-3:
        return f"{value:.2g}"
    return f"{value:.0e}".replace("e-0", "e-").replace("-", "−")


def probability(value: float) -> str:
    """Three places, or the power of ten where they would all be 0.

    >>> probability(0.25), probability(2e-13), probability(0.0)
    ('0.250', '2e−13', '0')
    """
    return number(value, 3) if value >= 0.0005 else error(value)
