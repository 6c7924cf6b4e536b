"""The slider of the demo's page: its figures, its words, and itself in a real browser."""

from __future__ import annotations

from html import unescape
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from likelier.report.dial import evenly
from likelier.report.page import render_page
from tests.browser import browser
from tests.report.test_page import EVIL, STRENGTHS, dialled, page, read

__all__ = ["browser"]


def test_the_words_of_a_strength_by_hand() -> None:
    """KL is λ² · (1 + … + 6) / 6 = 3.5 λ²; rewards are 0.8 · (1 + place / 100) − place / 50 at 1."""
    dial = dialled(prompts=6)
    told = [one.told for one in dial.settings]
    assert told[2:] == [
        "strength 1: reward 0.77, KL 3.50",
        "strength 1.5: reward 0.87, KL 7.88",
    ]
    assert told[0] == "strength 0: reward −0.05, KL 0.00"
    assert [one.beta(0.1) for one in dial.settings] == ["∞", "0.2", "0.1", "0.0667"]
    assert (dial.policy, dial.answers, dial.first, dial.rest) == (2, 1, [0, 1, 3, 4], [2, 5])


def test_intervals_are_clustered_by_prompt() -> None:
    dial = dialled(prompts=6)
    values = [row[0] for row in dial.settings[1].point.rewards]
    expected = stats.t.interval(0.95, 5, loc=sum(values) / 6, scale=stats.sem(values))
    assert dial.settings[1].point.reward.interval == pytest.approx(expected)


@pytest.mark.parametrize(
    ("beyond", "words"),
    [
        (0.24, "+0.246 [0.241, 0.251], paired over prompts: going beyond the policy still raised"),
        (-0.24, "−0.246 [−0.251, −0.241], paired over prompts: going beyond the policy did harm"),
        (0.0, "0.000 [0.000, 0.000], paired over prompts: whether it pays"),
    ],
)
def test_whether_it_pays_to_go_beyond(beyond: float, words: str) -> None:
    """Per prompt it is `beyond · (1 + place / 100)`: of `beyond` 1.025 in the mean, ± 2.571 · √3.5 / √6 / 100."""
    html = " ".join(render_page(page(dial=dialled(beyond=beyond))).split())
    assert f"the reward changes by {words}" in html


def test_what_stands_behind_the_figures_is_said() -> None:
    html = unescape(" ".join(render_page(page()).split()))
    assert "Behind every figure here: 6 prompts of 64" in html
    assert "1 answer to each at each strength" in html
    assert "(6, 6, 6, 6 of 6 were, from the weakest strength on)" in html
    assert "KL is estimated by summing, over each answer's positions, the KL between" in html
    assert "not exactly the optimum over whole answers" in html


def test_evenly_is_below_the_whole() -> None:
    assert evenly(12, 64) == [0, 5, 10, 16, 21, 26, 32, 37, 42, 48, 53, 58]
    assert evenly(4, 4) == evenly(9, 4) == [0, 1, 2, 3]


def test_without_a_script_strength_1_is_shown() -> None:
    """Of everything that takes turns, that of the policy alone is not hidden; rows of the table never are."""
    taking_turns = [
        (tag, attributes) for tag, attributes in read(render_page(page())).tags if "data-at" in attributes
    ]
    rows = [attributes for tag, attributes in taking_turns if tag == "tr"]
    assert [row["aria-current"] for row in rows] == ["false", "false", "true", "false"]
    others = [attributes for tag, attributes in taking_turns if tag != "tr"]
    assert {tag for tag, _ in taking_turns} == {"tr", "dl", "div", "g"}
    assert {each["data-at"] for each in others if "hidden" not in each} == {"2"}
    for number in range(4):
        # Six answers, the figures, the ring in the picture and its name.
        assert sum(each["data-at"] == str(number) for each in others) == 6 + 1 + 2


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(render_page(page(reward="vader")), encoding="utf-8")
    return path


def visited(browser: Any, file: Path, **settings: Any) -> tuple[Any, list[str]]:
    """The page in a context of its own, and what went wrong or out."""
    troubles: list[str] = []
    shown = browser.new_page(**settings)
    shown.set_default_timeout(60_000)
    shown.on("console", lambda message: troubles.append(message.text))
    shown.on("pageerror", lambda error: troubles.append(str(error)))
    shown.on("dialog", lambda dialog: troubles.append(dialog.message) or dialog.dismiss())
    shown.on("request", lambda request: troubles.append(request.url))
    shown.goto(file.as_uri())
    assert troubles.pop(0) == file.as_uri()
    return shown, troubles


def visible(shown: Any, selector: str) -> list[str]:
    return [one.text_content().strip() for one in shown.locator(selector).all() if one.is_visible()]


def test_the_arrow_keys_move_everything(browser: Any, file: Path) -> None:
    shown, troubles = visited(browser, file)
    slider = shown.get_by_role("slider", name="strength λ")
    dial = dialled()

    def check(number: int) -> None:
        one = dial.settings[number]
        assert slider.get_attribute("aria-valuetext") == one.told
        answers = visible(shown, ".dial .cards .text")
        assert answers == [f"{EVIL} at {STRENGTHS[number]:g}"] * 4
        rewards = visible(shown, ".dial .cards .who span")
        assert rewards == [f"{one.point.rewards[place][0]:.2f}".replace("-", "−") for place in dial.first]
        reward, kl = visible(shown, ".dial dd")
        assert reward.split()[0] in one.told.replace(",", " ").split()
        assert f"KL {kl.split()[0]}" in one.told
        (row,) = shown.locator(".dial tr[aria-current=true]").all()
        assert row.locator("th").inner_text() == f"{STRENGTHS[number]:g}"
        assert visible(shown, '.dial g[id^="dial-name-"]') == [f"λ = {STRENGTHS[number]:g}"]
        assert len(visible(shown, '.dial g[id^="dial-ring-"]')) == 1

    assert not shown.locator(".dial .still").is_visible()
    check(2)
    slider.focus()
    heights = set()
    for key, number in (("Home", 0), ("ArrowRight", 1), ("End", 3), ("ArrowLeft", 2), ("PageDown", None)):
        shown.keyboard.press(key)
        if number is not None:
            check(number)
        heights.add(shown.evaluate("document.documentElement.scrollHeight"))
    assert len(heights) == 1  # nothing jumps
    shown.get_by_text("The other 2 prompts").click()
    assert len(visible(shown, ".dial .cards .text")) == 6
    assert troubles == []
    shown.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_stays_in_sight(width: int, scheme: str, browser: Any, file: Path) -> None:
    shown, troubles = visited(browser, file, viewport={"width": width, "height": 700}, color_scheme=scheme)
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    table = shown.locator(".dial .board .scroll")
    assert table.evaluate("element => element.scrollWidth - element.clientWidth") <= 0
    shown.locator(".dial .cards article").last.scroll_into_view_if_needed()
    box = shown.locator("#strength").bounding_box()
    assert 0 <= box["y"] < 200
    if width == 360:
        assert shown.locator(".dial .bar").bounding_box()["height"] < 190
    assert troubles == []
    shown.close()


def test_in_a_browser_without_script(browser: Any, file: Path) -> None:
    shown, troubles = visited(browser, file, java_script_enabled=False)
    assert not shown.locator("#strength").is_visible()
    assert shown.locator(".dial .still").is_visible()
    assert set(visible(shown, ".dial .cards .text")) == {f"{EVIL} at 1"}
    assert len(visible(shown, ".dial tbody tr")) == 4
    assert troubles == []
    shown.close()
