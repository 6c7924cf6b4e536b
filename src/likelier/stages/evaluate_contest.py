"""What `winrate` and `temperature` share: two players' answers against each other, and the figure in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from likelier.data.records import Record
from likelier.errors import WorkError
from likelier.report.winrate import Compared, Win, win_of
from likelier.stages.evaluate_players import Answers
from likelier.stages.evaluate_referees import Referee


def contest(records: Sequence[Record], first: Answers, second: Answers, referee: Referee) -> Win:
    """The first's answers against the second's: the i-th with the i-th, the shorter list again from its beginning.

    Of best-of-N each answer that may be kept counts by its chance to be, among those of its prompt that have a verdict.

    Raises:
        WorkError: not one verdict could be had.
    """
    pairs, chances = _pairs(first, second)
    outcomes, figures = referee.outcomes(records, pairs)
    reasons = Counter(outcome for outcome in outcomes if isinstance(outcome, str))
    if len(reasons) and reasons.total() == len(pairs):
        told = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common())
        raise WorkError(f"{referee.name} gave no verdict on any of {len(pairs)} pairs ({told})")
    compared = [
        Compared(
            prompt=prompt,
            outcome=None if isinstance(outcome, str) else outcome,
            lengths=(len(ours), len(theirs)),
            weight=chance,
        )
        for (prompt, ours, theirs), chance, outcome in zip(pairs, chances, outcomes, strict=True)
    ]
    return win_of(
        compared if first.best_of is None else _each_prompt_once(compared),
        first=first.who,
        second=second.who,
        temperature=first.temperature,
        strength=first.strength,
        best_of=first.best_of,
        unjudged=reasons,
        cut=first.num_cut,
        judge=figures,
    )


def _pairs(first: Answers, second: Answers) -> tuple[list[tuple[int, str, str]], list[float]]:
    """`(prompt, first's answer, second's)`, and what each counts; without those that are never kept."""
    pairs, chances = [], []
    for prompt, (ours, theirs) in enumerate(zip(first.texts, second.texts, strict=True)):
        for index in range(max(len(ours), len(theirs))):
            place = index % len(ours)
            chance = 1 if first.weights is None else first.weights[prompt][place]
            if chance > 0:
                pairs.append((prompt, ours[place], theirs[index % len(theirs)]))
                chances.append(chance)
    return pairs, chances


def _each_prompt_once(compared: Sequence[Compared]) -> list[Compared]:
    """The weights of each prompt's verdicts sum to 1."""
    totals: dict[int, float] = {}
    for one in compared:
        if one.outcome is not None:
            totals[one.prompt] = totals.get(one.prompt, 0.0) + one.weight
    return [replace(one, weight=one.weight / totals.get(one.prompt, 1.0)) for one in compared]


def win_words(win: Win) -> str:
    """The figure in words: with interval, n, ties, and what length does to it."""
    rate = win.win_rate
    text = (
        f"{win.first} against {win.second}: win rate {_percent(rate)} (95 %, {rate.n} comparisons on {rate.clusters}"
        f" prompts, clustered by prompt; {_count(win.wins)} wins, {_count(win.ties)} ties that count half,"
        f" {_count(win.losses)} losses"
    )
    if win.best_of is not None:
        text += " expected of the answers kept, one to a prompt"
    if win.unjudged:
        text += f", {sum(win.unjudged.values())} without a verdict left out"
    controlled = win.controlled.win_rate
    at = "unknown, since lengths never vary" if controlled is None else _percent(controlled)
    own, other = (round(length.value) for length in win.lengths)
    return f"{text}); at equal lengths {at}; mean lengths {own} and {other} characters"


def _count(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:.1f}"


def _percent(one: Any) -> str:
    if one.interval is None:
        return f"{100 * one.value:.1f} % (no interval)"
    return f"{100 * one.value:.1f} % [{100 * one.low:.1f}, {100 * one.high:.1f}]"
