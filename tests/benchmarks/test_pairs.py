"""The pairs that both sides read."""

from pathlib import Path

import pytest

from benchmarks.pairs import (
    GROUP_LENGTHS,
    HH_LENGTHS,
    Lengths,
    at_quantiles,
    hh_rows,
    made_groups,
    made_pairs,
    pairs_of,
    usable,
)

HH = Path(__file__).parents[2] / ".." / "shared" / "data" / "hh-rlhf" / "helpful-base" / "test.jsonl.gz"


class WordTokenizer:
    """One token for each word; a special one would be added unless told not to."""

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        ids = [len(word) for word in text.split()]
        return {"input_ids": [0] * add_special_tokens + ids}


@pytest.fixture
def lengths() -> Lengths:
    return Lengths(WordTokenizer())


def test_made_pairs_have_the_lengths_of_hh(lengths: Lengths) -> None:
    assert sorted(lengths.of(row) for row in made_pairs(lengths, 24)) == sorted(HH_LENGTHS)
    assert made_pairs(lengths, 24) == made_pairs(lengths, 24)


def test_every_run_of_eight_has_one_row_of_each_eighth() -> None:
    rows = [{"size": size} for size in range(240)]
    picked = [row["size"] for row in at_quantiles(rows, range(240), 24)]
    assert len(set(picked)) == 24
    for start in (0, 8, 16):
        assert sorted(size // 30 for size in picked[start : start + 8]) == list(range(8))


@pytest.mark.parametrize("name", GROUP_LENGTHS)
def test_four_ranked_answers_are_six_pairs(lengths: Lengths, name: str) -> None:
    prompt, answer = GROUP_LENGTHS[name]
    [group] = made_groups(lengths, 1, prompt, answer)
    pairs = pairs_of(group)
    assert {lengths.of(pair) for pair in pairs} == {(prompt, answer, answer)}
    order = group["completions"]
    assert [(order.index(p["chosen"]), order.index(p["rejected"])) for p in pairs] == [
        (0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)
    ]  # fmt: skip


def test_rows_that_a_side_would_truncate_or_split_elsewhere_are_left_out(lengths: Lengths) -> None:
    good = {"prompt": "a b", "chosen": " c", "rejected": " d"}
    merging = {"prompt": "a b", "chosen": "c", "rejected": " d"}
    long = {"prompt": "a " * 512, "chosen": " c", "rejected": " d"}
    empty = {"prompt": "a", "chosen": " ", "rejected": " d"}
    assert usable([good, merging, long, empty], lengths) == [good]


@pytest.mark.skipif(not HH.exists(), reason="no ../shared/data/hh-rlhf here")
def test_hh_prompts_end_at_an_assistant_marker() -> None:
    rows = list(hh_rows(HH))
    assert len(rows) > 2300
    assert all(row["prompt"].endswith("\n\nAssistant:") for row in rows)
    assert all(row["chosen"] != row["rejected"] for row in rows)
