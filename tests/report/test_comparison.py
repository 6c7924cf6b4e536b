"""Before against after: the figures, and what may be said of them."""

from __future__ import annotations

import json

import pytest

from likelier.engines.sampling import SampledCompletion, SampledPrompt
from likelier.report.comparison import Comparison, compare, win_rate
from likelier.stats.repetition import repetition


def prompts(*answers: list[tuple[list[int], str]]) -> list[SampledPrompt]:
    return [
        SampledPrompt(
            id=str(number),
            prompt="x",
            prompt_tokens=[1],
            completions=[
                SampledCompletion(text="", tokens=tokens, logp=-1.0, finish=finish)
                for tokens, finish in group
            ],
        )
        for number, group in enumerate(answers)
    ]


def comparison(before: list[list[float]], after: list[list[float]]) -> Comparison:
    answers = [[([1, 2, 3, 1, 2, 3], "length")] * len(row) for row in before]
    stopped = [[([1, 2], "stop")] * len(row) for row in after]
    return compare(
        prompts(*answers),
        prompts(*stopped),
        rewards_before=before,
        rewards_after=after,
        kl=[[1.0, 3.0] for _ in after],
        kl_estimator="k1",
    )


def test_figures_by_hand() -> None:
    result = comparison([[0.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 0.0]])
    assert (result.reward.before.value, result.reward.after.value) == (0.25, 0.75)
    assert result.reward.change.value == 0.5
    assert result.reward.change.n == 2
    # Prompt 1: 1 > 0, 1 = 1, twice; prompt 2: 1 > 0 twice, 0 = 0 twice.
    assert result.win_rate.value == pytest.approx((2 + 2 * 0.5 + 2 + 2 * 0.5) / 8)
    assert (result.win_rate.n, result.win_rate.clusters) == (8, 2)
    assert result.kl.value == 2.0
    assert (result.length.before.value, result.length.after.value) == (6.0, 2.0)
    assert (result.repetition.before.value, result.repetition.after.value) == (0.25, 0.0)
    assert (result.stop_rate.before.value, result.stop_rate.after.value) == (0.0, 1.0)
    assert result.cut == 0
    json.dumps(result.as_dict())


def test_only_an_interval_without_zero_is_a_verdict() -> None:
    noise = [0.3, -0.25, 0.2, -0.3, 0.1, -0.1]
    before = [[0.0, 0.0]] * 6
    assert comparison(before, [[n, n] for n in noise]).verdict == "none"
    assert comparison(before, [[1 + n, 1 + n] for n in noise]).verdict == "gain"
    assert comparison(before, [[n - 1, n - 1] for n in noise]).verdict == "loss"


def test_the_change_is_paired_over_prompts() -> None:
    """Prompts that differ widely, each with the same change: the interval is narrow."""
    before = [[10.0 * number, 10.0 * number] for number in range(6)]
    after = [[a + 0.5 + 0.01 * number, b + 0.5] for number, (a, b) in enumerate(before)]
    interval = comparison(before, after).reward.change.interval
    assert interval is not None
    assert 0.49 < interval[0] < interval[1] < 0.55


def test_one_prompt_is_never_certain() -> None:
    result = comparison([[0.0, 0.0]], [[1.0, 1.0]])
    assert result.reward.change.interval is None
    assert result.verdict == "none"


def test_ties_count_half() -> None:
    assert win_rate([[1.0]], [[1.0]]).value == 0.5


@pytest.mark.parametrize(
    ("tokens", "share"),
    [([], 0.0), ([1, 1], 0.0), ([1] * 5, 2 / 3), ([1, 2, 3, 4], 0.0), ([1, 2, 1, 2, 1], 1 / 3)],
)
def test_repetition_by_hand(tokens: list[int], share: float) -> None:
    assert repetition(tokens) == pytest.approx(share)
