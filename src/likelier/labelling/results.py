"""How far the labelling is, how well annotators agree with each other and with themselves, and what to decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import median

from likelier.labelling.events import Event
from likelier.labelling.state import Showing, State
from likelier.labelling.votes import majority, pair_votes, unanimous, votes_by_pair
from likelier.stats import Estimate, accuracy_interval, wilson
from likelier.stats.agreement import alpha_interval, percent_agreement


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Of different annotators on the same two answers; None where nothing can be said."""

    percent: Estimate | None
    alpha: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotator:
    """One annotator's work."""

    name: str
    labels: int
    ties: int
    both_bad: int
    skips: int
    repeats: int
    flags: int
    decisions: int
    """As an adjudicator."""
    seconds: float | None
    """The median per answer."""
    self_agreement: Estimate | None
    left: Estimate | None
    """How often the answer that stood further left was preferred."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contested:
    """An item for an adjudicator."""

    item: str
    name: str
    """The row's id."""
    votes: str
    undecided: bool
    """Whether not even a majority decides it."""
    flags: Sequence[str]
    decided: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All that the results page says."""

    items: int
    complete: int
    """Items with as many labels as were asked for."""
    labels: int
    wanted: int
    with_ties: Agreement
    without_ties: Agreement
    annotators: list[Annotator]
    self_agreement: Estimate | None
    left: Estimate | None
    contested: list[Contested]


def results(state: State) -> Results:
    """The figures, from all that stands."""
    labels = [list(state.labels[item].values()) for item in state.items]
    units = [votes for said in labels for votes in votes_by_pair(event.body for event in said).values()]
    decided = [[vote for vote in votes if vote in ("first", "second")] for votes in units]
    return Results(
        items=len(state.items),
        complete=len(state.items) - len(state.wanting),
        labels=sum(map(len, labels)),
        wanted=len(state.items) * state.overlap,
        with_ties=_agreement(units),
        without_ties=_agreement(decided),
        annotators=[_annotator(state, name) for name in sorted(state.annotators())],
        self_agreement=_self_agreement(state, state.annotators()),
        left=_left_rate(state, state.annotators()),
        contested=contested(state),
    )


def _agreement(units: Sequence[Sequence[Hashable]]) -> Agreement:
    return Agreement(percent=percent_agreement(units), alpha=alpha_interval(units))


def _annotator(state: State, name: str) -> Annotator:
    standing = list(state.answers[name].values())
    by_role = {
        role: [event for event in standing if state.showings[event.showing].role == role]
        for role in ("label", "repeat", "adjudication")
    }
    verdicts = Counter(event.body["verdict"] for event in by_role["label"])
    timed = [event.body["seconds"] for event in standing if "seconds" in event.body]
    shown = [*state.of_annotator[name].values(), *state.repeats[name].values()]
    return Annotator(
        name=name,
        labels=len(by_role["label"]) - verdicts["skip"],
        ties=verdicts["tie"],
        both_bad=verdicts["both_bad"],
        skips=verdicts["skip"],
        repeats=len(by_role["repeat"]),
        flags=sum(len(showing.flags) for showing in shown),
        decisions=len(by_role["adjudication"]),
        seconds=median(timed) if timed else None,
        self_agreement=_self_agreement(state, [name]),
        left=_left_rate(state, [name]),
    )


def _self_agreement(state: State, names: Sequence[str]) -> Estimate | None:
    """The share of items whose second answer, sides swapped, says what the first one said."""
    same = []
    for name in names:
        for item, again in state.repeats[name].items():
            first = state.of_annotator[name][item].answer
            if (
                again.answer is not None
                and first is not None
                and "skip" not in (_verdict(first), _verdict(again.answer))
            ):
                same.append(pair_votes(first.body) == pair_votes(again.answer.body))
    return wilson(sum(same), len(same)) if same else None


def _verdict(event: Event) -> str:
    return str(event.body["verdict"])


def _left_rate(state: State, names: Sequence[str]) -> Estimate | None:
    """The share of strict preferences for the answer further left; one half, if places do not matter."""
    margins: list[float] = []
    items: list[str] = []
    for name in names:
        for showing in (*state.of_annotator[name].values(), *state.repeats[name].values()):
            told = _left_margins(showing)
            margins += told
            items += [showing.item] * len(told)
    return accuracy_interval(margins, clusters=items) if margins else None


def _left_margins(showing: Showing) -> list[float]:
    """+1 for each two answers of which the one further left was preferred, −1 for the other."""
    if showing.answer is None:
        return []
    place = {index: at for at, index in enumerate(showing.order)}
    margins = []
    for (first, second), vote in pair_votes(showing.answer.body).items():
        if vote in ("first", "second"):
            better, worse = (first, second) if vote == "first" else (second, first)
            margins.append(1.0 if place[better] < place[worse] else -1.0)
    return margins


def contested(state: State) -> list[Contested]:
    """Items whose labels differ or that were flagged, those that no majority decides first."""
    found = []
    for name, item in state.items.items():
        bodies = [event.body for event in state.labels[name].values()]
        flags = [flag.body["reason"] for showing in state.item_showings(name) for flag in showing.flags]
        if flags or not unanimous(bodies):
            found.append(
                Contested(
                    item=name,
                    name=item.record.id,
                    votes=_votes_in_words(bodies),
                    undecided=bool(bodies) and isinstance(majority(bodies), str),
                    flags=flags,
                    decided=state.decision(name) is not None,
                )
            )
    return sorted(found, key=lambda entry: (entry.decided, not entry.undecided))


def _votes_in_words(bodies: Sequence[dict[str, object]]) -> str:
    """Each label in words, the commonest first; answers by their number in the file."""
    return ", ".join(f"{count} × {words}" for words, count in Counter(map(_in_words, bodies)).most_common())


def _in_words(body: dict[str, object]) -> str:
    if body["verdict"] != "preference":
        return "all bad" if body["verdict"] == "both_bad" else "tie"
    ranking = body["ranking"]
    assert isinstance(ranking, list)
    return " > ".join(" = ".join(str(index + 1) for index in group) for group in ranking)
