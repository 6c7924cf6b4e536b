"""The demo's slider: its answers are plain samples, its figures those of the answers in the folder."""

from __future__ import annotations

import json
import shlex
from html.parser import HTMLParser
from typing import Any

import pytest
from scipy import stats

from likelier.cli import main
from likelier.engines.decoding import generation_copy
from likelier.models.loading import load_model
from likelier.report.page import number
from likelier.stages.demo import demo
from likelier.stages.demo_config import DemoConfig
from likelier.stages.demo_dial import STRENGTHS
from likelier.stages.demo_report import next_commands
from likelier.stages.sample import sample
from tests.engines.test_mixing import by_hand
from tests.stages.test_demo import lines, settings

Rows = dict[float, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Any) -> DemoConfig:
    config = settings(tmp_path_factory.mktemp("demo"), tiny_llama)
    demo(config)
    return config


@pytest.fixture(scope="module")
def rows(done: DemoConfig) -> Rows:
    """By strength, a row per prompt."""
    found: Rows = {}
    for row in lines(done.out / "samples-strengths.jsonl"):
        found.setdefault(row["strength"], []).append(row)
    return found


def tokens(rows: list[dict[str, Any]]) -> list[Any]:
    return [(row["id"], row["completions"][0]["tokens"]) for row in rows]


def test_every_strength_is_what_sample_draws_at_it(done: DemoConfig, rows: Rows) -> None:
    """With the reference itself at 0, and the trained model itself at 1."""
    size: dict[str, Any] = {"n": 1, "max_new_tokens": 8, "seed": done.seed + 1}
    asked, trained = done.out / "prompts-held-out.jsonl", str(done.out / "run" / "model")
    assert tuple(rows) == STRENGTHS
    for strength in STRENGTHS:
        mixed = sample(trained, asked, strength=strength, **size)
        assert tokens(rows[strength]) == tokens(mixed)
    assert tokens(rows[0.0]) == tokens(sample(done.model, asked, **size))
    assert tokens(rows[1.0]) == tokens(sample(trained, asked, **size))
    assert tokens(rows[0.0]) == tokens(lines(done.out / "samples-before.jsonl"))
    assert tokens(rows[1.0]) == tokens(lines(done.out / "samples-after.jsonl"))
    assert len({str(tokens(rows[strength])) for strength in STRENGTHS}) > 3  # training moved it


class Table(HTMLParser):
    """The cells of the table of strengths."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self._inside = "data-at" in dict(attrs)
            self.rows += [[]] if self._inside else []
        if self._inside and tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "tr"

    def handle_data(self, data: str) -> None:
        if self._inside and self.rows[-1]:
            self.rows[-1][-1] = " ".join([*self.rows[-1][-1].split(), *data.split()])


def shown(values: list[float]) -> str:
    """Mean and Student's interval as the page writes them, by scipy."""
    mean, error = sum(values) / len(values), stats.sem(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=error) if error else (mean, mean)
    return f"{number(mean)} [{number(low)}, {number(high)}]"


def test_the_pages_figures_are_those_of_the_answers(done: DemoConfig, rows: Rows) -> None:
    """Rewards counted anew from the texts, KL by plain forwards of the two models that the folder names."""
    reference, policy = (
        generation_copy(load_model(str(name)).model) for name in (done.model, done.out / "run" / "model")
    )
    asked = {row["id"]: row["prompt"] for row in lines(done.out / "prompts-held-out.jsonl")}
    tokenizer = load_model(str(done.model)).tokenizer
    page = Table()
    page.feed((done.out / "page.html").read_text())
    results = json.loads((done.out / "results.json").read_text())["dial"]
    assert [cells[0] for cells in page.rows] == [f"{strength:g}" for strength in STRENGTHS]
    for cells, strength, told in zip(page.rows, STRENGTHS, results["strengths"], strict=True):
        own = rows[strength]
        words = [float(len(row["completions"][0]["text"].split())) for row in own]
        assert [row["rewards"][0] for row in own] == words
        assert cells[2] == shown(words)
        kl = [row["kl"][0] for row in own]
        assert cells[3] == (shown(kl) if strength else "0.00")
        lengths = [len(row["completions"][0]["tokens"]) for row in own]
        assert cells[4] == number(sum(lengths) / len(lengths), 1)
        assert (told["strength"], told["reward"]["n"], told["kl"]["clusters"]) == (strength, 4, 4)
        for row, found in zip(own, kl, strict=True):
            start, drawn = tokenizer(asked[row["id"]])["input_ids"], row["completions"][0]["tokens"]
            mixed, base = (
                by_hand(policy, reference, at, start + drawn)[len(start) - 1 : -1] for at in (strength, 0.0)
            )
            expected = float((mixed.exp() * (mixed - base)).sum())
            # The models are in bfloat16 where the processor has it, and were then read in other shapes.
            assert found == pytest.approx(expected, rel=0.05, abs=0.01)
    assert max(row["kl"][0] for row in rows[2.0]) > 0.1
    assert (results["prompts"], results["answers_per_prompt"], results["estimator"]) == (
        4,
        1,
        "rao_blackwell",
    )


def test_the_answers_on_the_page_are_those_of_the_file(done: DemoConfig, rows: Rows) -> None:
    from markupsafe import escape

    page = (done.out / "page.html").read_text()
    cards = page.split('<div class="cards">')[1]
    for strength in STRENGTHS:
        for row in rows[strength]:
            assert f'<p class="text">{escape(row["completions"][0]["text"] or "(nothing)")}</p>' in cards
    assert f"Behind every figure here: {len(rows[1.0])} prompts of 4" in " ".join(page.split())


def test_the_next_command_draws_the_sliders_answers(done: DemoConfig, rows: Rows) -> None:
    (command,) = (line for _, line in next_commands(done, model=str(done.model)) if "--strength" in line)
    words = shlex.split(command)
    assert main(words[1:]) == 0
    strength = float(words[words.index("--strength") + 1])
    assert tokens(lines(done.out / "stronger.jsonl")) == tokens(rows[strength])
