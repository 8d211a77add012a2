"""Texts as HTML: formatting stays, everything that could act, load or lead away is gone."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from fspo.study.rendering import as_html, as_paragraphs

PIECES = st.sampled_from(
    [
        *("<script>", "</p>", "<img src=x onerror=y>", "<b style=x>", "&lt;"),
        *("[a](javascript:b)", "![a](http://b/c)", "**c**", "# d", "`", "\n\n", "- e", "|f|\n|-|\n|g|"),
    ]
)


@given(st.lists(PIECES | st.text(max_size=20), max_size=12))
def test_no_text_becomes_more_than_formatting(pieces: list[str]) -> None:
    for tag in re.findall(r"<[^>]*>", as_html("".join(pieces))):
        assert re.fullmatch(r"</?[a-z0-9]+>", tag), tag
        assert tag.strip("</>") not in {"script", "img", "a", "style", "iframe", "b", "h1", "h2"}


def test_formatting_and_wording_stay() -> None:
    html = as_html("# Title\n\nSome **bold** words, 1 < 2.\n\n- one\n- two")
    assert html == (
        "<h3>Title</h3>\n<p>Some <strong>bold</strong> words, 1 &lt; 2.</p>\n<ul>\n<li>one</li>\n<li>two</li>\n</ul>\n"
    )


def test_only_the_studys_own_texts_have_links() -> None:
    text = "[Privacy](https://example.org/privacy) [no](javascript:x)"
    assert 'href="https://example.org/privacy"' in as_html(text, links=True)
    assert "javascript:" not in re.sub(r"\[no\]\(javascript:x\)", "", as_html(text, links=True))
    assert "href" not in as_html(text)


def test_plain_text_is_shown_as_it_is() -> None:
    text = "1986. It was <b>a</b> year of *two* parts.\n\n2) Three &amp; four"
    assert as_paragraphs(text) == (
        "<p>1986. It was &lt;b&gt;a&lt;/b&gt; year of *two* parts.</p>\n<p>2) Three &amp;amp; four</p>"
    )
