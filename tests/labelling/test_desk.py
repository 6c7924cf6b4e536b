"""Who is shown what, and what becomes of answers: overlap, leases, repeats, undo, stale pages, restarts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from likelier.labelling.assignment import LEASE_SECONDS, REPEAT_GAP, order_of
from likelier.labelling.desk import ANSWERED, Desk
from likelier.labelling.state import State
from likelier.labelling.turns import RefusalError, Turn
from tests.labelling.desks import KEYS, answer, choosing, given, label_all, open_desk, pairs


class Clock:
    """Time that stands still until it is moved."""

    time = 0.0

    def __call__(self) -> float:
        return self.time


def refused(desk: Desk, turn: Turn, name: str = "ann", **changes: object) -> RefusalError:
    with pytest.raises(RefusalError) as caught:
        answer(desk, name, "tab", replace(given(turn), **changes))  # type: ignore[arg-type]
    return caught.value


def test_items_come_in_the_files_order_once_each(tmp_path: Path) -> None:
    items = pairs(30)
    desk = open_desk(tmp_path / "s", items, repeat_share=0.0)
    assert list(label_all(desk, "ann")) == [item.id for item in items]
    assert desk.next("ann", "tab").showing is None
    assert desk.next("ben", "tab").showing is None, "one annotator per item was asked for"


@pytest.mark.parametrize(("overlap", "people"), [(2, 3), (3, 3), (1, 2)])
def test_overlap_is_met_exactly(tmp_path: Path, overlap: int, people: int) -> None:
    desk = open_desk(tmp_path / "s", pairs(20), overlap=overlap, repeat_share=0.0)
    turns = {f"p{number}": desk.next(f"p{number}", "t") for number in range(people)}
    while any(turn.showing for turn in turns.values()):
        for name, turn in turns.items():
            turns[name] = answer(desk, name, "t", given(turn)) if turn.showing else desk.next(name, "t")
    assert Counter(len(said) for said in desk.state.labels.values()) == {overlap: 20}


def test_two_tabs_of_one_annotator_get_different_items(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "s", pairs(3), repeat_share=0.0)
    first, second = desk.next("ann", "a"), desk.next("ann", "b")
    assert first.showing is not second.showing
    assert desk.next("ann", "a").showing is first.showing, "a page that is loaded again shows the same item"
    assert desk.next("ann", "b").showing is second.showing


def test_a_lease_runs_out(tmp_path: Path) -> None:
    clock = Clock()
    desk = open_desk(tmp_path / "s", pairs(1), clock=clock)
    first = desk.next("ann", "a")
    waiting = desk.next("ben", "b")
    assert (waiting.showing, waiting.waiting) == (None, True)
    clock.time = LEASE_SECONDS + 1
    second = desk.next("ben", "b")
    assert second.showing is not None
    assert second.showing.item == first.showing.item  # type: ignore[union-attr]
    answer(desk, "ben", "b", given(second))
    answer(desk, "ann", "a", given(first))  # late, but a label is a label
    assert len(desk.state.labels[second.showing.item]) == 2


def test_a_page_that_is_closed_gives_its_item_back(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "s", pairs(1))
    first = desk.next("ann", "a")
    assert first.showing is not None
    desk.leave("another", first.showing.id)
    assert desk.next("ann", "b").waiting, "only the tab that has it can give it back"
    desk.leave("a", first.showing.id)
    assert desk.next("ann", "b").showing is first.showing


def test_an_item_that_others_finished_is_not_shown_to_who_comes_back(tmp_path: Path) -> None:
    clock = Clock()
    desk = open_desk(tmp_path / "s", pairs(2), clock=clock, repeat_share=0.0)
    desk.next("ann", "a")
    clock.time = LEASE_SECONDS + 1
    answer(desk, "ben", "b", given(desk.next("ben", "b")))
    turn = desk.next("ben", "b")
    assert turn.showing is not None
    back = desk.next("ann", "again")
    assert (back.showing, back.waiting) == (None, True)


def test_order_is_drawn_per_item_and_annotator_and_stored(tmp_path: Path) -> None:
    draws = Counter(
        tuple(order_of(f"i{n}", 2, annotator=name, seed=0, role="label")) for n in range(500) for name in "ab"
    )
    assert abs(draws[0, 1] - 500) < 80  # five standard deviations of 1,000 fair draws
    assert len({tuple(order_of(f"i{n}", 4, annotator="a", seed=0, role="label")) for n in range(300)}) == 24
    desk = open_desk(tmp_path / "s", pairs(20), overlap=2)
    orders = {name: [s.order for s in _showings(desk, name)] for name in ("ann", "ben")}
    assert orders["ann"] != orders["ben"]
    other = open_desk(tmp_path / "t", pairs(20), overlap=2, seed=1)
    assert [s.order for s in _showings(other, "ann")] != orders["ann"]


def _showings(desk: Desk, name: str) -> list[object]:
    list(label_all(desk, name))
    return list(desk.state.of_annotator[name].values())


def test_a_share_is_shown_again_with_sides_swapped_and_later(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "s", pairs(400), repeat_share=0.1)
    shown = list(label_all(desk, "ann"))
    again = desk.state.repeats["ann"]
    assert 20 <= len(again) <= 62  # of 400 draws at 0.1: mean 40, standard deviation 6
    assert len(shown) == 400 + len(again)
    for item, showing in again.items():
        assert showing.order == desk.state.of_annotator["ann"][item].order[::-1]
        first, second = (place for place, name in enumerate(shown) if name == item)
        assert second - first > min(REPEAT_GAP, len(shown) - 1 - first)
    assert all(len(said) == 1 for said in desk.state.labels.values()), "a repeat is no second label"


def test_a_small_file_repeats_at_its_end(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "s", pairs(3), repeat_share=1.0)
    shown = list(label_all(desk, "ann"))
    assert shown[:3] == [item.id for item in pairs(3)]
    assert shown[3:] == shown[:2] + shown[2:3] * (len(shown) - 5)


def test_a_skipped_item_goes_to_somebody_else(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "s", pairs(1))
    turn = answer(desk, "ann", "a", given(desk.next("ann", "a"), verdict="skip", reason="no French"))
    assert turn.showing is None
    assert desk.next("ben", "b").showing is not None


def test_undo_shows_the_item_again_with_what_was_said(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "s", pairs(5), repeat_share=0.0, strength=True)
    first = desk.next("ann", "a")
    turn = answer(desk, "ann", "a", given(first, reason="clear", edit="better", strength=2))
    assert turn.undo is not None
    undone = desk.undo("ann", "a", next(KEYS), turn.undo)
    assert undone.showing is first.showing
    assert undone.previous is not None
    assert (undone.previous["reason"], undone.previous["edit"], undone.previous["strength"]) == (
        "clear",
        "better",
        2,
    )
    assert undone.undo is None
    assert undone.showing is not None
    assert desk.state.labels[undone.showing.item] == {}
    assert [event.kind for event in desk.state.events] == ["shown", "answer", "shown", "undo"]
    after = answer(desk, "ann", "a", choosing(undone, 1))
    assert after.showing is turn.showing, "then comes what was on the screen before"


def test_each_tab_takes_its_own_answer_back(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "s", pairs(5), repeat_share=0.0)
    one, two = desk.next("ann", "a"), desk.next("ann", "b")
    after_one = answer(desk, "ann", "a", given(one))
    after_two = answer(desk, "ann", "b", given(two))
    assert after_one.undo != after_two.undo
    assert desk.next("ann", "a").undo == after_one.undo
    assert after_one.undo is not None
    assert desk.undo("ann", "a", next(KEYS), after_one.undo).showing is one.showing
    with pytest.raises(RefusalError, match="taken back already"):
        desk.undo("ann", "b", next(KEYS), after_one.undo)


def test_a_stale_tab_is_told_and_changes_nothing(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "s", pairs(5))
    turn = desk.next("ann", "a")
    stale = given(turn)
    answer(desk, "ann", "a", choosing(turn, 1))
    before = len(desk.state.events)
    with pytest.raises(RefusalError) as caught:
        answer(desk, "ann", "b", stale)
    assert (caught.value.status, caught.value.message) == (409, ANSWERED)
    assert len(desk.state.events) == before


def test_what_is_sent_twice_happens_once(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "s", pairs(5))
    turn = desk.next("ann", "a")
    first = desk.answer("ann", "a", "same", given(turn))
    stale = given(turn)
    again = desk.answer("ann", "a", "same", replace(stale, version=0))
    assert again.showing is first.showing
    assert sum(event.kind == "answer" for event in desk.state.events) == 1
    with pytest.raises(RefusalError, match="used for another"):
        desk.answer("ann", "a", "same", given(first))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "s", pairs(5))
    turn = desk.next("ann", "tab")
    desk.next("ben", "tab")
    assert refused(desk, turn, showing="nothing").status == 404
    assert refused(desk, turn, name="ben").status == 404, "somebody else's"
    assert refused(desk, turn, version=1).status == 409
    for ranking in ([[0]], [[0], [0]], [[0], [2]], [[0, 1], []], [[-1], [0]], [], [[0, 1]]):
        assert refused(desk, turn, ranking=ranking).status == 400
    assert refused(desk, turn, verdict="tie").status == 400, "a tie that prefers"
    assert refused(desk, turn, verdict="skip").status == 400, "a skip that ranks"
    assert refused(desk, turn, strength=1).status == 400, "it was not asked for"
    with pytest.raises(RefusalError, match="no such answer"):
        desk.undo("ann", "tab", "k", 1)
    with pytest.raises(RefusalError, match="no such answer"):
        desk.undo("ann", "tab", "k", 99)


@pytest.mark.parametrize("name", ["", "  ", "a" * 41, "a\nb\x00", "\u202eann"])
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(RefusalError):
        open_desk(tmp_path / "s", pairs(1)).name(name)


def test_one_name_in_two_spellings_is_one_annotator(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "s", pairs(1))
    assert desk.name("Ann  Lee ") == "Ann Lee"
    assert desk.name("ann lee") == "Ann Lee"
    assert desk.name("Jose\u0301") == desk.name("José")


def test_only_those_named_may_label(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "s", pairs(1), annotators=("Ann", "Ben"))
    assert desk.name("ann") == "Ann"
    with pytest.raises(RefusalError, match="not among"):
        desk.name("Eve")


def test_an_adjudicator_decides_and_may_decide_anew(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "s", pairs(1), overlap=2)
    item = pairs(1)[0].id
    for name, index in (("ann", 0), ("ben", 1)):
        answer(desk, name, name, choosing(desk.next(name, name), index))
    turn = desk.adjudicate("eve", "e", item)
    after = answer(desk, "eve", "e", choosing(turn, 1))
    assert after.showing is None
    assert desk.state.decision(item).body["ranking"] == [[1], [0]]  # type: ignore[union-attr]
    again = desk.adjudicate("eve", "e", item)
    answer(desk, "eve", "e", choosing(again, 0))
    assert desk.state.decision(item).body["ranking"] == [[0], [1]]  # type: ignore[union-attr]
    assert len(desk.state.answers["eve"]) == 1
    with pytest.raises(RefusalError, match="no such item"):
        desk.adjudicate("eve", "e", "nothing")


def snapshot(state: State) -> object:
    """All that the state knows, to be compared."""
    return (
        {name: repr(showing) for name, showing in state.showings.items()},
        {item: dict(said) for item, said in state.labels.items() if said},
        {name: dict(said) for name, said in state.answers.items() if said},
        set(state.wanting),
        {name: set(shown) for name, shown in state.open.items() if shown},
    )


class Labelling(RuleBasedStateMachine):
    """Annotators do anything in any order; at every point the file tells the same as the memory."""

    folder: Path
    number = 0

    def __init__(self) -> None:
        super().__init__()
        Labelling.number += 1
        self.path = self.folder / f"s{self.number}"
        self.desk = open_desk(self.path, pairs(6), overlap=2, repeat_share=0.5)
        self.turns: dict[tuple[str, str], Turn] = {}

    names = st.sampled_from(["ann", "ben", "eve"])
    tabs = st.sampled_from(["1", "2"])

    @rule(name=names, tab=tabs)
    def look(self, name: str, tab: str) -> None:
        self.turns[name, tab] = self.desk.next(name, tab)

    @rule(
        name=names,
        tab=tabs,
        place=st.integers(0, 1),
        verdict=st.sampled_from(["preference", "tie", "both_bad", "skip"]),
    )
    def say(self, name: str, tab: str, place: int, verdict: str) -> None:
        turn = self.turns.get((name, tab))
        if turn is None or turn.showing is None:
            return
        ranking = [[place], [1 - place]] if verdict == "preference" else [[0, 1]]
        try:
            self.turns[name, tab] = answer(self.desk, name, tab, given(turn, ranking, verdict=verdict))
        except RefusalError as error:
            self._stale(error)
            self.turns[name, tab] = self.desk.next(name, tab)

    @rule(name=names, tab=tabs)
    def take_back(self, name: str, tab: str) -> None:
        turn = self.turns.get((name, tab))
        if turn is None or turn.undo is None:
            return
        try:
            self.turns[name, tab] = self.desk.undo(name, tab, next(KEYS), turn.undo)
        except RefusalError as error:
            self._stale(error)

    def _stale(self, error: RefusalError) -> None:
        if error.status != 409:
            raise error

    @rule()
    def restart(self) -> None:
        before = snapshot(self.desk.state)
        self.desk.store.close()
        self.desk = open_desk(self.path, overlap=2, repeat_share=0.5)
        assert snapshot(self.desk.state) == before

    @invariant()
    def what_stands_is_what_was_said_last(self) -> None:
        state = self.desk.state
        for item, said in state.labels.items():
            assert (item in state.wanting) == (len(said) < 2)
        for item, event in ((item, event) for item, said in state.labels.items() for event in said.values()):
            assert state.showings[event.showing].item == item
            assert state.showings[event.showing].answer is event

    def teardown(self) -> None:
        self.desk.store.close()


def test_anything_in_any_order_then_a_restart(tmp_path: Path) -> None:
    Labelling.folder = tmp_path
    checks = [HealthCheck.too_slow]
    run_state_machine_as_test(
        Labelling,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=checks
        ),
    )
