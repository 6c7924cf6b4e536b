"""The figures of the results page, by hand, and on real votes against the independent library."""

from __future__ import annotations

import json
from pathlib import Path

import krippendorff
import numpy as np
import pytest

from likelier.data.reading import read
from likelier.labelling.items import build_items
from likelier.labelling.results import results
from tests.labelling.desks import answer, choosing, given, open_desk, pairs
from tests.labelling.test_export import labelled, say


def test_counts_and_agreement_by_hand(tmp_path: Path) -> None:
    """Items 00, 01, 11, tt, t0: of five pairs of labels three are equal; without ties two of three."""
    told = results(labelled(tmp_path, ["00", "01", "11", "tt", "t0", ".."]).state)
    assert (told.items, told.complete, told.labels, told.wanted) == (6, 5, 10, 12)
    with_ties, without = told.with_ties, told.without_ties
    assert with_ties.percent is not None
    assert without.percent is not None
    assert (with_ties.percent.value, with_ties.percent.n) == (pytest.approx(3 / 5), 5)
    assert (without.percent.value, without.percent.n) == (pytest.approx(2 / 3), 3)
    # n_0 = 4, n_1 = 3, n_t = 3, n = 10; unequal ordered pairs 4: α = 1 − 9 · 4 / (100 − 16 − 9 − 9)
    assert with_ties.alpha is not None
    assert with_ties.alpha.value == pytest.approx(1 - 36 / 66)
    # 00, 01, 11: n_0 = n_1 = 3, n = 6, unequal 2: α = 1 − 5 · 2 / 18
    assert without.alpha is not None
    assert without.alpha.value == pytest.approx(1 - 10 / 18)
    first, second = told.annotators
    assert (first.name, first.labels, first.ties, first.both_bad, first.skips) == ("p0", 5, 2, 0, 0)
    assert (second.labels, second.ties) == (5, 1)


def test_real_votes_give_the_librarys_alpha(tmp_path: Path, shared_data: Path) -> None:
    votes = json.loads((shared_data / "pandalm-testset" / "testset-v1.json").read_text("utf-8"))[:150]
    rows = [{"prompt": f"{n}", "completions": ["first", "second"]} for n in range(len(votes))]
    desk = open_desk(tmp_path / "s", build_items(read(rows)).items, overlap=3, repeat_share=0.0)
    for number in (1, 2, 3):
        turn = desk.next(f"p{number}", "t")
        for vote in votes:
            turn = say(desk, f"p{number}", turn, {1: "0", 2: "1", 0: "t"}[vote[f"annotator{number}"]])
    table = np.array([[vote[f"annotator{number}"] for vote in votes] for number in (1, 2, 3)], float)
    told = results(desk.state)
    for agreement, matrix in (
        (told.with_ties, table),
        (told.without_ties, np.where(table == 0, np.nan, table)),
    ):
        assert agreement.alpha is not None
        wanted = krippendorff.alpha(matrix, level_of_measurement="nominal")
        assert agreement.alpha.value == pytest.approx(wanted, abs=1e-12)


def test_left_and_self(tmp_path: Path) -> None:
    """One who always takes the left answer says the opposite when sides are swapped; one who reads does not."""
    desk = open_desk(tmp_path / "s", pairs(40), overlap=2, repeat_share=0.5)
    for name in ("lefty", "reader"):
        turn = desk.next(name, name)
        while turn.showing is not None:
            turn = answer(desk, name, name, given(turn) if name == "lefty" else choosing(turn, 0))
    lefty, reader = results(desk.state).annotators
    assert lefty.left is not None
    assert lefty.self_agreement is not None
    assert (lefty.left.value, lefty.self_agreement.value) == (1.0, 0.0)
    assert lefty.left.excludes(0.5)
    assert reader.left is not None
    assert reader.self_agreement is not None
    assert reader.self_agreement.value == 1.0
    assert not reader.left.excludes(0.5)
    assert lefty.repeats == lefty.self_agreement.n > 5


def test_what_is_to_be_adjudicated(tmp_path: Path) -> None:
    desk = labelled(tmp_path, ["00", "01", "t0", "11"])
    flagged = desk.state.of_annotator["p0"][pairs(4)[3].id]
    desk.flag("p0", "k", flagged.id, "a strange prompt")
    contested = results(desk.state).contested
    assert [(one.name, one.undecided, one.decided) for one in contested] == [
        ("row1", True, False), ("row2", True, False), ("row3", False, False),
    ]  # fmt: skip
    assert contested[0].votes == "1 × 1 > 2, 1 × 2 > 1"
    assert contested[2].flags == ["a strange prompt"]
    say(desk, "eve", desk.adjudicate("eve", "e", contested[0].item), "0")
    assert [(one.name, one.decided) for one in results(desk.state).contested][-1] == ("row1", True)


def test_nothing_yet(tmp_path: Path) -> None:
    told = results(open_desk(tmp_path / "s", pairs(3)).state)
    assert (told.labels, told.left, told.self_agreement, told.with_ties.alpha, told.contested) == (
        0,
        None,
        None,
        None,
        [],
    )
