"""Model text as HTML that can do nothing: Markdown without HTML, without pictures, without links to follow.

markdown-it escapes all text and passes no tag of the source through. An address is shown as text, so that nothing
is fetched and nobody is led away. The page's content security policy would stop what this let through.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

MAX_MARKDOWN = 200_000
"""Characters; a longer text is shown as it is."""

_CONTROLS = {code: f"\\x{code:02x}" for code in range(32) if chr(code) not in "\t\n\r"} | {127: "\\x7f"}
# Marks that reorder what is read, so that an answer would look like another.
_CONTROLS |= {
    code: f"\\u{code:04x}"
    for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C)
}


class _Renderer(RendererHTML):
    """Headings below the page's own, links and pictures as text, cells without inline style."""

    def heading_open(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        return f"<{_heading(tokens[index])}>"

    def heading_close(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        return f"</{_heading(tokens[index])}>\n"

    def link_open(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        return '<span class="link">'

    def link_close(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        opening = next(token for token in reversed(tokens[:index]) if token.type == "link_open")
        written = tokens[index - 1].content
        address = str(opening.attrs.get("href", ""))
        return (
            "</span>" if address == written else f' <span class="address">({escape(address)})</span></span>'
        )

    def image(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        token = tokens[index]
        address = escape(str(token.attrs.get("src", "")))
        return f'<span class="picture">picture: {escape(token.content)} ({address})</span>'

    def fence(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        token = tokens[index]
        words = token.info.split()
        language = f'<span class="language">{escape(words[0][:30])}</span>' if words else ""
        return f'<pre tabindex="0">{language}<code>{escape(token.content)}</code></pre>\n'

    def code_block(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        return f'<pre tabindex="0"><code>{escape(tokens[index].content)}</code></pre>\n'

    def table_open(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        return '<div class="table" tabindex="0"><table>\n'

    def table_close(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        return "</table></div>\n"

    def th_open(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        return "<th>"

    def td_open(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        return "<td>"


def _heading(token: Token) -> str:
    """`h1` of a text is `h3` of the page.

    >>> _heading(Token("heading_open", "h1", 1))
    'h3'
    """
    return f"h{min(6, int(token.tag[1]) + 2)}"


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    options = {"html": False, "linkify": False, "breaks": True, "typographer": False, "maxNesting": 50}
    return MarkdownIt("commonmark", options, renderer_cls=_Renderer).enable(["table", "strikethrough"])


def as_markdown(text: str) -> str:
    r"""Markdown as safe HTML.

    >>> as_markdown("**a** <script>b</script> [c](https://d.e)")
    '<p><strong>a</strong> &lt;script&gt;b&lt;/script&gt; <span class="link">c <span class="address">(https://d.e)</span></span></p>\n'
    """
    if len(text) > MAX_MARKDOWN:
        return as_text(text)
    return str(_markdown().render(text.translate(_CONTROLS)))


def as_text(text: str) -> str:
    """Text as it is, in a block that keeps its spaces and line ends.

    >>> as_text(" a\\n<b>")
    '<div class="plain"> a\\n&lt;b&gt;</div>'
    """
    return f'<div class="plain">{escape(text.translate(_CONTROLS))}</div>'


def as_json(value: Any) -> str:
    """A tool call, or the tools themselves, as a block of code."""
    shown = json.dumps(value, indent=2, ensure_ascii=False)
    return f'<pre tabindex="0"><code>{escape(shown.translate(_CONTROLS))}</code></pre>'
