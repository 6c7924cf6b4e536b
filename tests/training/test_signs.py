"""Warnings: curves that must raise one, curves that must not, and nothing said twice."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from likelier.training.curves import change
from likelier.training.signs import Signs

Line = dict[str, Any]


def said(lines: Iterator[Line] | list[Line], *, clip: float = 0.0) -> list[str]:
    signs = Signs(clip=clip)
    return [text for line in lines for text in signs.look(line)]


def steps(
    count: int,
    chosen: Callable[[float], float],
    rejected: Callable[[float], float],
    *,
    noise: float = 0.1,
    seed: int = 0,
) -> list[Line]:
    """A run's lines: the rewards' means at the share `t` of it, with noise that both answers share partly."""
    draw = random.Random(seed)
    lines = []
    for step in range(1, count + 1):
        t = (step - 1) / count
        common = draw.gauss(0, noise)
        one = 0.0 if step == 1 else chosen(t) + common + draw.gauss(0, noise)
        other = 0.0 if step == 1 else rejected(t) + common + draw.gauss(0, noise)
        lines.append(
            {
                "step": step,
                "loss": 0.693 - 0.3 * t + (draw.gauss(0, 0.05) if step > 1 else 0.0),
                "rewards/chosen": one,
                "rewards/rejected": other,
                "rewards/margins": one - other,
                "rewards/accuracies": 0.5 if step == 1 else min(1.0, 0.55 + 0.3 * t + draw.gauss(0, 0.06)),
                "grad_norm": 8.0 + draw.gauss(0, 2.0),
            }
        )
    return lines


@pytest.mark.parametrize("count", [22, 60, 400])
@pytest.mark.parametrize("seed", range(5))
def test_a_sound_run_says_nothing(count: int, seed: int) -> None:
    assert said(steps(count, lambda t: 0.4 * t, lambda t: -0.8 * t, seed=seed)) == []


@pytest.mark.parametrize("seed", range(20))
def test_noise_alone_says_nothing(seed: int) -> None:
    """Two hundred steps at which nothing moves."""
    assert said(steps(200, lambda t: 0.0, lambda t: 0.0, noise=0.3, seed=seed)) == []


def test_one_wild_step_says_nothing() -> None:
    lines = steps(100, lambda t: 0.1 * t, lambda t: -0.3 * t)
    lines[60] |= {"rewards/chosen": -50.0, "rewards/margins": -49.0, "loss": 40.0, "grad_norm": 9000.0}
    assert said(lines) == []


@pytest.mark.parametrize(
    ("chosen", "rejected", "words"),
    [
        (-0.5, -2.5, "rejected ones faster"),
        (-2.0, -3.0, "lose more than the margin gains"),
        (-2.0, -2.0, "hardly faster"),
        (-2.0, -1.0, "hardly faster"),
    ],
    ids=["normal", "displaced", "together", "backwards"],
)
@pytest.mark.parametrize("count", [24, 200])
def test_falling_chosen_answers(chosen: float, rejected: float, words: str, count: int) -> None:
    found = said(steps(count, lambda t: chosen * t, lambda t: rejected * t))
    assert len(found) == 1
    assert words in found[0]


def test_a_small_fall_beside_a_large_margin_is_not_spoken_of() -> None:
    assert said(steps(200, lambda t: -0.1 * t, lambda t: -3.0 * t, noise=0.02)) == []


def test_falling_faster_first_and_displaced_later_are_two_warnings() -> None:
    lines = steps(400, lambda t: -0.4 * t if t < 0.5 else -8.0 * t + 3.8, lambda t: -3.0 * t - 1e-3)
    found = said(lines)
    assert ["rejected ones faster" in found[0], "lose more" in found[1]] == [True, True]


def evaluations(accuracies: list[float], *, pairs: int = 2000, every: int = 20) -> list[Line]:
    """Evaluation lines between training lines whose accuracy rises steadily."""
    lines: list[Line] = []
    for number, accuracy in enumerate(accuracies):
        lines.append(
            {"step": number * every, "eval/rewards/accuracies": accuracy, "eval/pairs": pairs, "eval/x": None}
        )
        for step in range(number * every + 1, (number + 1) * every + 1):
            rising = 0.6 + 0.3 * step / (every * len(accuracies))
            lines.append({"step": step, "rewards/accuracies": rising + 0.05 * (-1) ** step})
    return lines


def test_held_out_accuracy_falling_while_trainings_rises() -> None:
    found = said(evaluations([0.5, 0.66, 0.70, 0.66, 0.65, 0.65, 0.64]))
    assert len(found) == 1
    assert "held-out accuracy fell from 0.700 (step 40)" in found[0]
    worse = said(evaluations([0.5, 0.66, 0.70, 0.66, 0.65, 0.58, 0.57]))
    assert len(worse) == 2


@pytest.mark.parametrize(
    "accuracies",
    [
        [0.5, 0.66, 0.70, 0.69, 0.695, 0.70],
        [0.5, 0.66, 0.70, 0.60, 0.71, 0.70],
        [0.5, 0.60, 0.65, 0.70],
        [0.7, 0.5],
    ],
    ids=["level", "one dip", "rising", "too few"],
)
def test_held_out_accuracy_that_is_fine(accuracies: list[float]) -> None:
    assert said(evaluations(accuracies)) == []


def test_the_same_fall_over_few_pairs_is_chance() -> None:
    assert said(evaluations([0.5, 0.66, 0.70, 0.64, 0.64], pairs=60)) == []


def imitated(held_out: list[float], *, slope: float = -0.5) -> list[Line]:
    """SFT's lines: evaluations, and between them steps whose loss goes from 3 by `slope` over the whole run."""
    lines: list[Line] = []
    for number, loss in enumerate(held_out):
        lines.append({"step": number * 20, "eval/loss": loss, "eval/perplexity": 2.718**loss})
        for step in range(number * 20 + 1, number * 20 + 21):
            share = step / (20 * len(held_out))
            lines.append({"step": step, "loss": 3.0 + slope * share + 0.2 * (-1) ** step})
    return lines


def test_held_out_loss_rising_while_trainings_falls() -> None:
    (found,) = said(imitated([3.0, 2.6, 2.5, 2.6, 2.62]))
    assert "held-out loss rose from 2.500 (step 40) to 2.620 while training's fell" in found
    assert "memorised" in found
    assert len(said(imitated([3.0, 2.6, 2.5, 2.6, 2.62, 2.9, 2.95]))) == 2


@pytest.mark.parametrize(
    "losses",
    [[3.0, 2.5, 2.53, 2.5, 2.52], [3.0, 2.5, 2.9, 2.4], [3.0, 2.5, 2.2, 2.1], [2.5, 3.0]],
    ids=["level", "one peak", "falling", "too few"],
)
def test_held_out_loss_that_is_fine(losses: list[float]) -> None:
    assert said(imitated(losses)) == []


def test_held_out_loss_rising_with_trainings_is_another_trouble() -> None:
    assert not any("memorised" in text for text in said(imitated([3.0, 2.5, 2.6, 2.7, 2.9], slope=0.5)))


def test_held_out_accuracy_falling_with_trainings_is_another_trouble() -> None:
    lines = evaluations([0.5, 0.66, 0.70, 0.60, 0.58])
    for line in lines:
        if "rewards/accuracies" in line:
            line["rewards/accuracies"] = 0.9 - 0.001 * line["step"]
    assert said(lines) == []


def test_held_out_rewards_are_compared_with_the_first_evaluation() -> None:
    lines = [
        {"step": n, "eval/rewards/chosen": -0.3 * n, "eval/rewards/rejected": -0.35 * n} for n in range(4)
    ]
    found = said(lines)
    assert len(found) == 1
    assert "held-out chosen answers lose more" in found[0]


def test_a_policy_that_does_not_move() -> None:
    still = {"loss": 0.693, "rewards/margins": 0.0, "rewards/accuracies": 0.5}
    assert len(said([{"step": n, **still} for n in range(1, 40)])) == 1
    moving = [{"step": n, **still, "rewards/margins": 0.0 if n < 9 else 1e-7} for n in range(1, 40)]
    assert said(moving) == []


def test_a_loss_that_rises() -> None:
    draw = random.Random(1)
    rising = [{"step": n, "loss": 0.69 + 0.01 * n + draw.gauss(0, 0.05)} for n in range(60)]
    found = said(rising)
    assert "training loss rises" in found[0]
    assert len(found) <= 2
    assert said(rising[::-1]) == []


def test_clipping_of_every_update_and_growing_gradients() -> None:
    draw = random.Random(2)
    level = [{"step": n, "grad_norm": 8 + draw.random()} for n in range(120)]
    assert "all of the last 50 updates were clipped" in said(level, clip=1.0)[0]
    assert len(said(level, clip=1.0)) == 1
    assert said(level) == []
    assert said(level, clip=8.5) == []
    growing = [{"step": n, "grad_norm": 2.0 * 1.05**n} for n in range(120)]
    assert ["gradient norms grew" in text for text in said(growing)] == [True]


@pytest.mark.parametrize(
    ("name", "bad", "good", "words"),
    [
        ("length", [40, 50, 62, 66, 68], [40, 65, 42, 66, 41], "answers grow"),
        ("length", [4, 6, 7, 8, 9], [40, 44, 48, 52, 55], "answers grow"),
        ("repetition", [0.05, 0.1, 0.3, 0.3], [0.05, 0.4, 0.1, 0.1], "repeat themselves"),
        ("stop_rate", [0.9, 0.8, 0.5, 0.5], [0.9, 0.5, 0.9, 0.8], "no longer end"),
    ],
)
def test_samples(name: str, bad: list[float], good: list[float], words: str) -> None:
    lines = [{"step": 10 * n, f"samples/{name}": value} for n, value in enumerate(bad)]
    if bad[0] == 4:  # twice as long, but by five tokens
        assert said(lines) == []
    else:
        assert [words in text for text in said(lines)] == [True]
    assert said([{"step": 10 * n, f"samples/{name}": value} for n, value in enumerate(good)]) == []


def test_lengths_that_grow_on_are_said_again() -> None:
    lines = [{"step": n, "samples/length": 40 * 1.2**n} for n in range(12)]
    assert 2 <= len(said(lines)) <= 5


def test_a_resumed_run_that_saw_the_lines_before_says_the_same() -> None:
    lines = steps(100, lambda t: -2.0 * t, lambda t: -3.0 * t)
    whole, resumed = Signs(), Signs()
    for line in lines[:50]:
        resumed.look(line)
        whole.look(line)
    assert [whole.look(line) for line in lines[50:]] == [resumed.look(line) for line in lines[50:]]


def test_a_change_that_turned_round_is_not_certain() -> None:
    up, down = [10.0, 10.1] * 4, [-10.0, -10.1] * 4
    assert not change([0.0, 0.1] * 4 + up + down).certain
    assert change([0.0, 0.1] * 4 + down + down).certain


def test_change_is_certain_as_rarely_as_it_should_be() -> None:
    """Five standard errors in two windows: not once in a hundred curves of noise, read at every length."""
    draw = random.Random(3)
    for _ in range(100):
        values = [draw.gauss(0, 1) for _ in range(60)]
        found = [change(values[:length]) for length in range(60)]
        assert not any(each.certain for each in found if each is not None)


def rollouts(count: int, *, kl: Callable[[int], float], gain: float, price: float) -> list[Line]:
    """Of PPO held to 6 nats: beta falls by `gain` a step, a nat costs `price` deviations of the rewards."""
    return [
        {
            "step": step,
            "kl": kl(step),
            "kl/target": 6.0,
            "beta": 0.05 * (1 - gain) ** step,
            "beta/deviations": price,
            "reward/mean": 0.1,
        }
        for step in range(1, count + 1)
    ]


def test_a_reference_that_is_too_dear_to_leave() -> None:
    """As it was with a reward model whose rewards deviate by 0.045 and a beta of 0.05."""
    (told,) = said(rollouts(8, kl=lambda _: 0.3, gain=0.02, price=1.1))
    assert told.startswith("a nat of KL costs 1.1 standard deviations of the rewards")
    assert "--normalize-rewards" in told
    assert said(rollouts(7, kl=lambda _: 0.3, gain=0.02, price=1.1)) == []
    assert said(rollouts(12, kl=lambda _: 0.3, gain=0.02, price=0.9)) == []


def test_a_target_that_the_controller_does_not_reach() -> None:
    (told,) = said(rollouts(40, kl=lambda _: 0.4, gain=0.02, price=0.1))
    assert told.startswith(
        "--target-kl 6 is far: 0.4 nats after 16 steps in which beta fell from 0.049 to 0.0362;"
    )
    assert "--kl-gain" in told
    # One that it comes near, one that it has passed and fallen below, and one without a target.
    assert said(rollouts(40, kl=lambda step: 0.2 * step, gain=0.02, price=0.1)) == []
    turned = rollouts(40, kl=lambda _: 0.4, gain=0.02, price=0.1)
    turned[3]["beta"] = 0.06
    assert said(turned) == []
    assert (
        said([{**line, "kl/target": None} for line in rollouts(40, kl=lambda _: 0.4, gain=0.02, price=0.1)])
        == []
    )
