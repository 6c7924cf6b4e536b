"""Win rates: of one set of answers against another, and over sampling temperatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from likelier.report.charts import FAINT, Form, crosses, drawn, errors_of, legend_names, look, short
from likelier.stats import Estimate, accuracy_interval, ratio_interval
from likelier.stats.best import drops_from_best
from likelier.stats.length_control import LengthControl, control_length


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Two answers to a prompt, and which of them is better."""

    prompt: int
    outcome: float | None
    """1 where the first is better, 0 where the second is, one half for a tie; None where nobody could say."""
    lengths: tuple[int, int]
    """Characters."""
    weight: float = 1
    """Of best-of-N the chance that the first answer is the one kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Win:
    """How often the first's answers are preferred to the second's."""

    first: str
    second: str
    temperature: float | None
    """That the first's answers were sampled at; None for answers from a file."""
    strength: float | None
    """That the first mixed its reference at; None for a model as it is."""
    win_rate: Estimate
    """Ties half, clustered by prompt."""
    controlled: LengthControl
    lengths: tuple[Estimate, Estimate]
    """Mean characters of both."""
    wins: float
    ties: float
    losses: float
    """All three of best-of-N how many are expected, a prompt counting one."""
    unjudged: dict[str, int]
    """Comparisons without a verdict, by reason: in no figure."""
    cut: float
    """Answers of the first that the length limit cut; of best-of-N how many of the kept ones are expected to be."""
    per_prompt: dict[int, float]
    """Mean outcome of each prompt that has one."""
    judge: dict[str, Any] = field(default_factory=dict)
    """What its verdicts say about a judge: bias for a place, agreement with itself; empty for a reward."""
    best_of: int | None = None
    """N, where the first is the best of N answers."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def win_of(
    compared: Sequence[Compared],
    *,
    first: str,
    second: str,
    temperature: float | None,
    unjudged: Mapping[str, int],
    cut: float,
    strength: float | None = None,
    best_of: int | None = None,
    judge: Mapping[str, Any],
) -> Win:
    """The figures of comparisons of which at least one has an outcome.

    >>> pairs = [Compared(prompt=p, outcome=o, lengths=(3, 2)) for p, o in ((0, 1.0), (1, 0.5), (2, None))]
    >>> win = win_of(pairs, first="a", second="b", temperature=None, unjudged={"timeout": 1}, cut=0, judge={})
    >>> win.win_rate.value, win.wins, win.ties, win.losses, win.lengths[0].value
    (0.75, 1, 1, 0, 3.0)
    """
    decided = [(one, one.outcome) for one in compared if one.outcome is not None]
    outcomes, prompts = [outcome for _, outcome in decided], [one.prompt for one, _ in decided]
    gaps = [one.lengths[0] - one.lengths[1] for one, _ in decided]
    weights = [one.weight for one, _ in decided]
    ours, theirs = ([one.weight * one.lengths[side] for one, _ in decided] for side in (0, 1))
    return Win(
        first=first,
        second=second,
        temperature=temperature,
        strength=strength,
        win_rate=accuracy_interval(
            [outcome - 0.5 for outcome in outcomes], clusters=prompts, weights=weights
        ),
        controlled=control_length(outcomes, gaps, clusters=prompts, weights=weights),
        lengths=(
            ratio_interval(ours, weights, clusters=prompts),
            ratio_interval(theirs, weights, clusters=prompts),
        ),
        wins=sum(one.weight for one, outcome in decided if outcome == 1.0),
        ties=sum(one.weight for one, outcome in decided if outcome == 0.5),
        losses=sum(one.weight for one, outcome in decided if outcome == 0.0),
        unjudged=dict(unjudged),
        cut=cut,
        per_prompt={
            prompt: _mean([(one.weight, outcome) for one, outcome in decided if one.prompt == prompt])
            for prompt in dict.fromkeys(prompts)
        },
        judge=dict(judge),
        best_of=best_of,
    )


def _mean(weighted: Sequence[tuple[float, float]]) -> float:
    return fmean([value for _, value in weighted], weights=[weight for weight, _ in weighted])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A model's win rates over temperatures, on the same prompts."""

    run: str
    wins: tuple[Win, ...]
    """By temperature, ascending."""
    drops: tuple[Estimate, ...]
    """From the best temperature, whichever that is: `stats.best`."""

    @property
    def best(self) -> Win:
        """At the temperature that came out best."""
        return max(self.wins, key=lambda win: win.win_rate.value)

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "run": self.run,
            "best": self.best.temperature,
            "temperatures": [
                {**win.as_dict(), "drop": asdict(drop)}
                for win, drop in zip(self.wins, self.drops, strict=True)
            ],
        }


def sweep_of(run: str, wins: Sequence[Win]) -> Sweep:
    """Win rates with their drops, over the prompts that have an outcome at every temperature.

    Raises:
        ValueError: there is no such prompt.
    """
    shared = [p for p in wins[0].per_prompt if all(p in win.per_prompt for win in wins)]
    drops = drops_from_best([[win.per_prompt[p] for win in wins] for p in shared])
    return Sweep(run=run, wins=tuple(wins), drops=tuple(drops))


COLUMNS = [
    "first",
    "second",
    "temperature",
    "strength",
    "best_of",
    "win_rate",
    "low",
    "high",
    "n",
    "prompts",
    "controlled",
    "controlled_low",
    "controlled_high",
    "length_effect",
    "first_length",
    "second_length",
    "wins",
    "ties",
    "losses",
    "unjudged",
    "cut",
]


def row_of(win: Win) -> list[Any]:
    """A line of the table, as `COLUMNS` name it."""
    rate, controlled, effect = win.win_rate, win.controlled.win_rate, win.controlled.effect
    alone = ["", "", ""] if controlled is None else [controlled.value, controlled.low, controlled.high]
    return [
        *(win.first, win.second, win.temperature, win.strength, win.best_of),
        *(rate.value, rate.low, rate.high, rate.n, rate.clusters),
        *(*alone, "" if effect is None else effect.value, win.lengths[0].value, win.lengths[1].value),
        *(win.wins, win.ties, win.losses, sum(win.unjudged.values()), win.cut),
    ]


def winrate_picture(wins: Sequence[Win], *, form: Form) -> bytes:
    """Raw and at equal lengths, one under the other, a line for each comparison."""
    return drawn(lambda: _bars(wins), form=form)


def temperature_picture(sweeps: Sequence[Sweep], *, form: Form) -> bytes:
    """Win rate over temperature on the left, the drop from the best on the right."""
    return drawn(lambda: _curves(sweeps), form=form)


def _bars(wins: Sequence[Win]) -> Figure:
    figure = Figure(figsize=(7, 1.3 + 0.8 * len(wins)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(50, color=FAINT, linewidth=1, linestyle=":")
    kinds: dict[str, list[Estimate | None]] = {
        "raw": [win.win_rate for win in wins],
        "at equal lengths": [win.controlled.win_rate for win in wins],
    }
    for number, (kind, rates) in enumerate(kinds.items()):
        known = [(place, rate.scaled(100)) for place, rate in enumerate(rates) if rate is not None]
        axes.errorbar(
            [rate.value for _, rate in known],
            [len(wins) - 1 - place + 0.12 - 0.24 * number for place, _ in known],
            xerr=errors_of([rate for _, rate in known]),
            linestyle="none",
            capsize=3,
            **look(number, kind),
        )
    names = [f"{short(win.first, limit=28)}\nagainst {short(win.second, limit=28)}" for win in wins]
    axes.set_yticks(range(len(wins)), names[::-1])
    axes.set(xlabel="win rate, % (ties half; 95 %)", xlim=(-2, 102), ylim=(-0.6, len(wins) - 0.4))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def _curves(sweeps: Sequence[Sweep]) -> Figure:
    figure = Figure(figsize=(9, 3.9), layout="constrained")
    rates, drops = figure.subplots(1, 2)
    rates.axhline(50, color=FAINT, linewidth=1, linestyle=":")
    drops.axhline(0, color=FAINT, linewidth=1, linestyle=":")
    names = legend_names([sweep.run for sweep in sweeps])
    for number, (name, sweep) in enumerate(zip(names, sweeps, strict=True)):
        # Side by side, so that intervals of several can be told apart.
        at = [(win.temperature or 0.0) + 0.008 * (number - (len(sweeps) - 1) / 2) for win in sweep.wins]
        style = {"linewidth": 1.2, **look(number, name)}
        crosses(rates, at, [win.win_rate.scaled(100) for win in sweep.wins], **style)
        crosses(drops, at, [drop.scaled(100) for drop in sweep.drops], **style)
    rates.set(xlabel="sampling temperature", ylabel="win rate, % (ties half; 95 %)")
    drops.set(xlabel="sampling temperature", ylabel="points below the best temperature (95 %)")
    figure.legend(*rates.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure
