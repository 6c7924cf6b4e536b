"""The page: self-contained, escaped, honest, and legible to a parser."""

from __future__ import annotations

import math
import random
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest

from likelier.engines.sampling import SampledCompletion, SampledPrompt
from likelier.report.comparison import Change, compare
from likelier.report.dial import Dial, at_strength
from likelier.report.page import DemoPage, Example, SideBySide, environment, render_page
from likelier.stats import Estimate

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> & {{ 7 * 7 }}"
VOID = {"meta", "br", "img", "hr", "input", "link"}


def samples(count: int) -> list[SampledPrompt]:
    answer = SampledCompletion(text=EVIL, tokens=[1, 2, 3], logp=-1.0, finish="length")
    return [
        SampledPrompt(id=str(number), prompt=EVIL, prompt_tokens=[1], completions=[answer, answer])
        for number in range(count)
    ]


STRENGTHS = (0.0, 0.5, 1.0, 1.5)


def dialled(*, prompts: int = 6, beyond: float = 0.1) -> Dial:
    """Rewards 0, 0.4, 0.8 and, at 1.5, `beyond` more, a little more from prompt to prompt; KL λ² of 1, 2, 3, …"""
    rewards = [0.0, 0.4, 0.8, 0.8 + beyond]
    settings = []
    for strength, reward in zip(STRENGTHS, rewards, strict=True):
        answer = SampledCompletion(
            text=f"{EVIL} at {strength:g}", tokens=[1, 2, 3], logp=-1.0, finish="length"
        )
        sampled = [replace(one, completions=[answer]) for one in samples(prompts)]
        own = [[reward * (1 + place / 100) - place / 50] for place in range(prompts)]
        kl = [[strength**2 * (1 + place)] for place in range(prompts)]
        settings.append(at_strength(strength, sampled, rewards=own, kl=kl))
    return Dial(prompts=[EVIL] * prompts, of_prompts=64, estimator="rao_blackwell", settings=settings)


def page(*, gain: float = 0.5, margin: float = 1.0, **more: Any) -> DemoPage:
    draw = random.Random(0)
    before = [[draw.gauss(0, 0.2), draw.gauss(0, 0.2)] for _ in range(12)]
    after = [[value + gain + draw.gauss(0, 0.05) for value in row] for row in before]
    comparison = compare(
        samples(12),
        samples(12),
        rewards_before=before,
        rewards_after=after,
        kl=[[1.0, 2.0]] * 12,
        kl_estimator="rao_blackwell",
    )
    example = Example(
        prompt=EVIL,
        chosen=EVIL,
        rejected="no",
        chosen_score=0.9,
        rejected_score=-0.5,
        beta=0.1,
        reference_logps=(-50.0, -60.0),
        policy_logps=(-50.0 + 10 * margin, -60.0),
    )
    duel = SideBySide(subject=EVIL, prompt=EVIL, before=EVIL, after="", reward_before=0.0, reward_after=1.0)
    steps = [
        {"step": step, "loss": 0.7 - step / 10, "rewards/margins": step / 10, "rewards/accuracies": 0.5}
        for step in range(1, 4)
    ]
    fields: dict[str, Any] = {
        "model": EVIL,
        "reward": "regex:" + EVIL,
        "reward_meaning": EVIL,
        "beta": 0.1,
        "num_train_prompts": 5,
        "num_train_answers": 20,
        "num_pairs": 30,
        "num_undecided": 1,
        "num_skipped": 1,
        "train_subjects": [EVIL],
        "held_out_subjects": [EVIL],
        "metrics": steps,
        "notes": [EVIL],
        "comparison": comparison,
        "dial": dialled(),
        "example": example,
        "side_by_side": [duel],
        "gained": [duel],
        "lost": [duel],
        "max_new_tokens": 28,
        "settings": [("out", EVIL)],
        "commands": [(EVIL, f"likelier check --data {EVIL}")],
        "seconds": 100.0,
        "quick": False,
    }
    return DemoPage(**(fields | more))


class Reader(HTMLParser):
    """Collects tags and attributes, and sees that they nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


def test_text_of_models_and_users_stays_text() -> None:
    html = render_page(page())
    reader = read(html)
    assert not {tag for tag, _ in reader.tags} & {"img", "iframe", "link", "object"}
    scripts = re.findall(r"<script(.*?)>\n(.*?)</script>", html, re.S)
    loader = environment().loader
    assert loader is not None
    assert scripts == [
        ("", loader.get_source(environment(), "dial.js")[0].rstrip("\n"))
    ]  # ours, and no other
    assert [tag for tag, _ in reader.tags].count("script") == 1
    assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)
    assert "{{ 7 * 7 }}" in render_page(page())


def test_nothing_is_loaded_from_elsewhere() -> None:
    html = render_page(page())
    for _, attributes in read(html).tags:
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_ids_are_the_pages_only_ones_and_resolve() -> None:
    html = render_page(page())
    ids = [attributes["id"] for _, attributes in read(html).tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', html)) <= set(ids)


def test_pictures_name_themselves_their_axes_and_units() -> None:
    html = render_page(page(reward="vader"))
    pictures = [attributes for tag, attributes in read(html).tags if tag == "svg"]
    assert [picture["role"] for picture in pictures] == ["img"] * 5
    assert len({picture["aria-label"] for picture in pictures}) == 5
    for axis in (
        "reward of an answer (vader)",
        "% of answers",
        "held-out prompts, by their change",
        "change of mean reward (vader)",
        "loss, nats",
        "margin u",
        "accuracy",
        "KL to the reference, nats per answer (dots: prompts)",
        "mean reward (vader)",
    ):
        assert f">{axis}</text>" in html, axis


@pytest.mark.parametrize("reward", ["regex:^$|a$", r"regex:\$\d+_{", "module:$_$" + 30 * "x"])
def test_a_rewards_name_is_no_formula(reward: str) -> None:
    assert f">reward of an answer ({reward[:19]}" in unescape(render_page(page(reward=reward)))


def test_longer_answers_are_spoken_of() -> None:
    grown = replace(
        page().comparison, length=Change(name="length", before=of(9.0), after=of(13.25), change=of(4.25))
    )
    html = " ".join(render_page(page(comparison=grown)).split())
    assert "The answers became longer by 4.2 tokens." in html
    assert "part of the gain may be length" in html
    assert "became longer" not in render_page(page())


def of(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.5, high=value + 0.5, n=12, clusters=12)


def test_what_training_noticed_is_said() -> None:
    html = render_page(page(notes=["answers grow", "tie left out 3"]))
    assert "<li>answers grow</li>\n<li>tie left out 3</li>" in html
    assert "What training noticed" not in render_page(page(notes=[]))


def test_counts_agree_with_their_nouns() -> None:
    one = render_page(page(num_pairs=1, num_undecided=1, num_skipped=1, num_train_prompts=1))
    for text in (
        "1 prompt had",
        "1 prompt with an empty answer was left out",
        "answered 1 prompt, a",
        "(1 pair)",
    ):
        assert text in " ".join(one.split())
    many = " ".join(render_page(page(num_pairs=1538, num_undecided=2, num_skipped=3)).split())
    for text in ("2 prompts had", "3 prompts with an empty answer were left out", "One of the 1,538 pairs"):
        assert text in many


def test_pictures_are_coloured_by_the_page() -> None:
    html = render_page(page())
    assert not re.search(r"#0[1-5]0[1-5]0[1-5]", html)
    for variable in ("ink", "faint", "before", "after"):
        assert f"var(--{variable})" in html


def test_a_gain_is_called_one() -> None:
    html = render_page(page(gain=0.5))
    assert "became likelier" in html
    assert "No significant change" not in html


def test_no_gain_is_called_none() -> None:
    html = render_page(page(gain=0.0))
    assert "No significant change in this run" in html
    assert "this may be chance" in html
    assert "became likelier" not in html.split("</h1>")[0]


def test_one_prompt_is_not_called_an_interval() -> None:
    comparison = compare(
        samples(1),
        samples(1),
        rewards_before=[[0.0, 0.1]],
        rewards_after=[[0.8, 0.9]],
        kl=[[1.0, 2.0]],
        kl_estimator="k1",
    )
    html = render_page(page(comparison=comparison))
    assert "No significant change in this run" in html
    assert "one prompt allows no interval, so this may be chance" in html
    assert "it holds 0" not in html


def test_a_loss_is_called_one() -> None:
    assert "made the answers worse" in render_page(page(gain=-0.5))


def test_the_story_has_the_pairs_numbers() -> None:
    html = render_page(page(margin=1.0))
    for shown in ("−50.00", "−40.00", "+10.00", "+1.000", f"{1 / (1 + math.e):.3f}", "0.313"):
        assert shown in html


def test_the_example_by_hand() -> None:
    example = page(margin=1.0).example
    assert example.log_ratios == (10.0, 0.0)
    assert example.margin == pytest.approx(1.0)
    assert example.weight == pytest.approx(1 / (1 + math.e))
    assert example.loss == pytest.approx(math.log(1 + math.exp(-1)))


@pytest.mark.parametrize(("margin", "weight", "loss"), [(5000.0, 0.0, 0.0), (-5000.0, 1.0, 5000.0)])
def test_margins_of_any_size_have_a_weight_and_a_loss(margin: float, weight: float, loss: float) -> None:
    example = page(margin=margin).example
    assert (example.weight, example.loss) == (weight, pytest.approx(loss))


def test_a_pair_still_ranked_wrongly_is_not_called_learned() -> None:
    html = render_page(page(margin=-1.0))
    assert "still\nranks this pair wrongly" in html
    assert "own probability fell" in html


def test_the_page_is_the_same_each_time() -> None:
    assert render_page(page()) == render_page(page())
