"""Model text can do nothing: whatever it holds, the HTML is a few tags without handlers, links or pictures."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likelier.labelling.rendering import MAX_MARKDOWN, as_json, as_markdown, as_text

TAGS = {
    "p", "br", "hr", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "em", "strong", "s",
    "table", "thead", "tbody", "tr", "th", "td", "span", "div",
}  # fmt: skip
ATTRIBUTES = {("class", "link"), ("class", "address"), ("class", "picture"), ("class", "language"), ("class", "plain"),
              ("class", "table"), ("tabindex", "0")}  # fmt: skip

EVIL = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "![<img src=x onerror=alert(1)>](x)",
    "[<img src=x onerror=alert(1)>](x)",
    "[a](JaVaScRiPt:alert(1))",
    "[a](data:text/html;base64,PHNjcmlwdD4=)",
    "![a](javascript:alert(1))",
    '![a](x" onerror="alert(1))',
    '[a](https://x.example/"onmouseover=alert(1))',
    "<javascript:alert(1)>",
    "<https://x.example/?a=\"'><script>>",
    '```"><script>alert(1)</script>\n</code></pre><script>\n```',
    "``` <img/onerror=1>\nx\n```",
    "    <script>indented</script>",
    "`<script>`",
    "| <script> | b |\n|---|:-:|\n| <img src=x> | </td></table><script> |",
    "# <script>\n\n<h1 onclick=alert(1)>",
    "a\n===\n<svg/onload=alert(1)>",
    '[x]: javascript:alert(1) "<script>"\n\n[x]',
    "&lt;script&gt;&#60;script&#62;&#x3c;script>",
    "<!-- --><![CDATA[<script>]]><?php ?><!DOCTYPE x>",
    "</div></article></main><script>",
    "<style>*{display:none}</style>",
    "<iframe srcdoc='<script>'>",
    "\\<script\\>",
    "~~<b>~~ **<i>** _<u>_",
    "1. <li onclick=x>\n   - <ul>",
    "{{ 7 * 7 }} ${7*7} <%= 7 %>",
    "\u2028\u2029\ufeff<\u0000script>",
    '<a href="javascript&colon;alert(1)">',
]


class Reader(HTMLParser):
    """Collects tags with their attributes and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.others: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.others.append(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


def require_harmless(html: str) -> Reader:
    read = Reader(html)
    assert set(read.tags) <= TAGS, html
    assert {(name, value) for name, value in read.attributes if name != "start"} <= ATTRIBUTES, html
    assert read.others == []
    return read


@pytest.mark.parametrize("text", EVIL)
def test_what_is_meant_to_do_harm_is_text(text: str) -> None:
    require_harmless(as_markdown(text))
    assert require_harmless(as_text(text)).text.replace("\\x00", "\0") == text
    require_harmless(as_json({"call": text}))


PIECES = st.lists(
    st.one_of(
        st.sampled_from([*EVIL, "<", ">", '"', "'", "`", "```\n", "[", "](", ")", "!", "|", "\n", "&", "#"]),
        st.text(),
    )
)


@given(PIECES.map("".join))
def test_any_text_is_harmless(text: str) -> None:
    require_harmless(as_markdown(text))


def test_what_markdown_means_is_shown() -> None:
    html = as_markdown(
        "# Title\n\n**bold** _it_ ~~no~~ `x < y`\n\n- a\n- b\n\n| n | m |\n|---|---|\n| 1 | 2 |\n\n> q\n"
    )
    for part in ("<h3>Title</h3>", "<strong>bold</strong>", "<em>it</em>", "<s>no</s>", "<code>x &lt; y</code>",
                 "<li>a</li>", "<th>n</th>", "<td>2</td>", "<blockquote>"):  # fmt: skip
        assert part in html


def test_code_keeps_its_signs_and_names_its_language() -> None:
    html = as_markdown("```python\nif a < b:\n    pass  # &\n```")
    assert '<span class="language">python</span><code>if a &lt; b:\n    pass  # &amp;\n</code>' in html


def test_line_ends_stay_line_ends() -> None:
    assert as_markdown("one\ntwo") == "<p>one<br />\ntwo</p>\n"


def test_addresses_are_text() -> None:
    assert require_harmless(as_markdown("[a](https://b.c/d?e=f&g)")).text == "a (https://b.c/d?e=f&g)\n"
    assert require_harmless(as_markdown("<https://b.c>")).text == "https://b.c\n"
    assert (
        require_harmless(as_markdown("![cat](https://b.c/d.png)")).text
        == "picture: cat (https://b.c/d.png)\n"
    )


def test_signs_that_reorder_or_hide_are_shown() -> None:
    for html in (as_markdown("a\u202eb\x07c\u2066"), as_text("a\u202eb\x07c\u2066")):
        assert "\u202e" not in html
        assert "a\\u202eb\\x07c\\u2066" in html


@pytest.mark.parametrize(
    "text",
    [
        "[" * 20_000,
        "*" * 20_000,
        "> " * 5_000,
        "`" * 20_001,
        "- " * 3_000,
        "|a" * 3_000 + "\n" + "|-" * 3_000,
        "![" * 5_000,
    ],
)
def test_markdown_made_to_be_slow_ends(text: str) -> None:
    require_harmless(as_markdown(text))


def test_a_very_long_text_is_shown_as_it_is() -> None:
    text = "*a* " * (MAX_MARKDOWN // 4 + 1)
    assert as_markdown(text) == as_text(text)
