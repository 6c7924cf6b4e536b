"""What becomes of rows on their way to training, above all where none is left."""

from __future__ import annotations

from typing import Any

import pytest

from likelier.errors import DataError
from likelier.training.config import DpoConfig
from likelier.training.preparation import load_data
from tests.training.support import pairs

BAD = {"prompt": "the cat", "chosen": " sat", "rejected": None}
SAME = {"prompt": "the cat", "chosen": " sat", "rejected": " sat"}
TIE = {"prompt": "the cat", "a": " sat", "b": " ran", "winner": "tie"}


def loaded(rows: Any, tokenizer: Any, eval_rows: Any = None, **settings: Any) -> Any:
    config = DpoConfig.build({"data": ["<rows>"], **settings})
    return load_data(config, rows, eval_rows, tokenizer, need="pairs")


def test_where_no_row_is_left_the_counts_and_the_first_reason_are_repeated(tokenizer: Any) -> None:
    """One that cannot be read, two that cannot be encoded: the notes that count them would never be printed."""
    with pytest.raises(DataError) as caught:
        loaded([BAD, *pairs(2)], tokenizer, skip_bad_rows=True, max_length=4)
    said = str(caught.value)
    assert (
        "no row that can be trained on (left out as unusable: null 1, too long 2; the first: <rows>" in said
    )
    assert "row 1: `rejected` is null" in said


def test_rows_none_of_which_can_be_read_are_counted(tokenizer: Any) -> None:
    with pytest.raises(
        DataError, match=r"3 of 3 rows cannot be used \(null: 2, .*: 1\); the first: <rows>, row 1"
    ):
        loaded([BAD, SAME, {**BAD, "id": "x"}], tokenizer, skip_bad_rows=True)


def test_ties_alone_are_named_as_what_they_are(tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"no row that can be trained on \(noticed: tie left out 2\)"):
        loaded([TIE, {**TIE, "prompt": "a dog"}], tokenizer)


def test_held_out_rows_have_their_own_reasons(tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"no row that can be trained on \(noticed: tie left out 1\)"):
        loaded([*pairs(2), BAD], tokenizer, [TIE], skip_bad_rows=True)


def test_rows_that_are_left_out_are_noted_where_others_stay(tokenizer: Any) -> None:
    data = loaded([*pairs(2), BAD, SAME], tokenizer, skip_bad_rows=True)
    assert len(data.train) == 2
    assert [note for note in data.notes if note.startswith("left out")] == [
        "left out as unusable: null 1, chosen equals rejected 1"
    ]


def test_rows_that_all_weigh_nothing_are_refused(tokenizer: Any) -> None:
    """A loss over them would be 0 / 0."""
    for rows, held_out in ((pairs(3, weight=0.0), None), (pairs(3), pairs(2, seed=1, weight=0.0))):
        with pytest.raises(DataError, match="every row has `weight` 0"):
            loaded(rows, tokenizer, held_out)
    assert len(loaded([*pairs(2, weight=0.0), *pairs(1, seed=1)], tokenizer).train) == 3
