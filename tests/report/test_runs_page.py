"""The page of runs: escaped, self-contained, legible to a parser, and right at desktop and phone width."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

from likelier.stages.report import report
from tests.browser import browser
from tests.report.run_folders import evaluation, step, write_run, write_winrate

__all__ = ["browser"]

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> & {{ 7 * 7 }} $x_{ --> ]]>"


class Elements(HTMLParser):
    """Elements and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def evil_runs(tmp_path: Path) -> list[Path]:
    """Everything that another may have written says `EVIL`."""
    said = [{"step": n, "prompt": EVIL, "completion": EVIL + str(n) + "\ud800\0"} for n in (0, 5)]
    manifest = {
        "notes": [EVIL, "noticed: " + EVIL],
        "inputs": {EVIL: EVIL},
        "start": EVIL,
        "command": ["likelier", "dpo", "--data", EVIL],
        "result": {"stopped": EVIL},
    }
    settings = {"loss": EVIL, "model": EVIL, EVIL: 1}
    name = "<b>x&'"
    first = write_run(tmp_path / name, settings=settings, manifest=manifest, samples=said)
    second = write_run(tmp_path / "plain", samples=said)
    third = write_winrate(tmp_path / "won", runs=[name], words=EVIL, who=EVIL)
    return [first, second, third]


def test_all_text_is_escaped(tmp_path: Path) -> None:
    report(evil_runs(tmp_path), out=tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "\0" not in text
    found = Elements(text)
    assert found.tags.count("script") == 1
    assert found.handlers == []
    assert "b" not in Elements(text[text.index("<h1>") : text.index("</h1>")]).tags
    assert "x" not in found.addresses
    assert "alert(1)</script>" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 10


def test_a_page_loads_nothing(tmp_path: Path) -> None:
    report(evil_runs(tmp_path), out=tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    assert [one for one in Elements(text).addresses if not one.startswith(("#", "data:image/"))] == []
    assert re.findall(r"@import|url\((?!#)", text) == []


def test_every_id_is_there_once_and_every_link_leads_to_one(tmp_path: Path) -> None:
    report([write_run(tmp_path / n) for n in "abc"], out=tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)


def test_headings_captions_and_pictures_can_be_read_aloud(tmp_path: Path) -> None:
    report([write_run(tmp_path / n) for n in "ab"], out=tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    levels = [int(level) for level in re.findall(r"<h(\d)", text)]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert text.count("<table") == text.count("<caption")
    drawn = re.findall(
        r'<svg(?: role="img" aria-label="([^"]+)"| class="swatch"[^>]*aria-hidden="true")', text
    )
    assert len(drawn) == len(re.findall("<svg", text))


# In a browser


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty runs with long names, answers and an evaluation."""
    folder = tmp_path_factory.mktemp("many")
    runs = []
    for number in range(20):
        lines = [
            {"step": n, "prompt": f"prompt {n}", "completion": f"answer {number} " * 30} for n in range(5)
        ]
        metrics = [*(step(n, loss=0.7 - n * number / 400) for n in range(1, 31)), evaluation(30)]
        name = f"a-rather-long-name-of-a-run-with-{number}"
        runs.append(write_run(folder / name, settings={"seed": number}, metrics=metrics, samples=lines))
    write_winrate(folder / "compared", runs=[runs[0].name], words="word " * 60)
    report(runs, out=folder / "page.html")
    return folder / "page.html"


def opened(browser: Any, page: Path, errors: list[str], **settings: Any) -> Any:
    shown = browser.new_context(**settings).new_page()
    shown.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    shown.on("pageerror", lambda error: errors.append(str(error)))
    shown.on("dialog", lambda dialog: errors.append(f"dialog {dialog.message}") or dialog.dismiss())
    shown.on(
        "request", lambda one: None if one.url.startswith(("file:", "data:")) else errors.append(one.url)
    )
    shown.goto(page.as_uri())
    return shown


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overflows_the_page(browser: Any, many: Path, width: int) -> None:
    errors: list[str] = []
    page = opened(browser, many, errors, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("[...document.querySelectorAll('table')].every(t => t.closest('.scroll'))")
    assert errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_evaluations_picture_stands_on_the_pages_ground(browser: Any, tmp_path: Path, scheme: str) -> None:
    """What an evaluation drew is black on white; by night its ground is the page's, and its ink light."""
    run = write_run(tmp_path / "run", settings={}, metrics=[step(1, loss=0.7)])
    write_winrate(tmp_path / "compared", runs=[run.name], words="word")
    square = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 200 100'><rect x='80' width='40' height='50'/></svg>"
    (tmp_path / "compared" / "winrate.svg").write_text(square)
    report([run, tmp_path / "compared"], out=tmp_path / "page.html")
    page = opened(
        browser, tmp_path / "page.html", [], viewport={"width": 1280, "height": 800}, color_scheme=scheme
    )
    drawn = page.locator(".drawn img").first
    drawn.scroll_into_view_if_needed()
    pixels = plt.imread(io.BytesIO(drawn.screenshot()))[..., :3]
    ground = page.evaluate("getComputedStyle(document.querySelector('.drawn')).backgroundColor")
    wanted = [int(part) / 255 for part in re.findall(r"\d+", ground)[:3]]
    assert pixels[20, 20] == pytest.approx(wanted, abs=0.02)
    brightness = pixels.mean(axis=2)
    ink = brightness.min() if scheme == "light" else brightness.max()
    assert abs(ink - np.mean(wanted)) > 0.5


def test_answers_are_filtered_and_runs_come_forward(browser: Any, many: Path) -> None:
    errors: list[str] = []
    page = opened(browser, many, errors, viewport={"width": 1280, "height": 800})
    shown = ".answer:visible"
    assert page.locator(shown).count() == 5 * 20 + 1
    page.fill("#words", "ANSWER 7")
    assert page.locator(shown).count() == 5
    page.fill("#words", "prompt 3")
    assert page.locator(shown).count() == 20
    page.select_option("#who", "a-rather-long-name-of-a-run-with-4")
    assert page.locator(shown).count() == 1
    assert page.locator("#filters output").inner_text() == "answers: 1, prompts: 1 of 6"
    page.click("#filters [type=reset]")
    page.wait_for_function("document.querySelectorAll('.answer[hidden]').length === 0")

    page.click(".legend button[data-run='3']")
    page.mouse.move(0, 0)
    assert page.get_attribute(".legend button[data-run='3']", "aria-pressed") == "true"
    page.evaluate("document.activeElement.blur()")
    lines = page.locator(".panels g[id$='line-3']")
    assert lines.count() == page.locator(".panels g.front").count() > 3
    assert page.locator(".panels g[id$='line-4']").first.get_attribute("class") == "back"
    assert errors == []


def test_without_script_everything_is_shown(browser: Any, many: Path) -> None:
    page = opened(browser, many, [], java_script_enabled=False)
    assert page.locator(".answer:visible").count() == 5 * 20 + 1
    assert page.locator("#filters:visible").count() == 0
    assert page.locator(".panels figure:visible").count() > 3


def test_evil_text_runs_nothing(browser: Any, tmp_path: Path) -> None:
    report(evil_runs(tmp_path), out=tmp_path / "page.html")
    errors: list[str] = []
    page = opened(browser, tmp_path / "page.html", errors)
    assert errors == []
    assert EVIL in page.locator(".prompt").first.inner_text()
    page.select_option("#who", "<b>x&'")
    assert page.locator(".answer:visible").count() >= 1
