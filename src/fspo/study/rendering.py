"""The texts of questions and answers as safe HTML, the same for every arm."""

from __future__ import annotations

from functools import cache

import nh3
from markdown_it import MarkdownIt
from markupsafe import Markup

__all__ = ["as_html", "as_paragraphs"]

_TAGS = {"p", "br", "hr", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li"} | {
    "h3", "table", "thead", "tbody", "tr", "th", "td"
}  # fmt: skip
"""No images and, in answers, no links: an answer must neither load anything nor lead away."""


@cache
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


def as_html(text: str, *, links: bool = False) -> Markup:
    """Markdown as HTML with a few tags; raw HTML is shown as it is written.

    Headings of all levels become those of the third, below the heading of the answer. `links` is for texts of the
    study itself.
    """
    parser = _parser()
    tokens = parser.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = "h3"
    rendered = parser.renderer.render(tokens, parser.options, {})
    tags, attributes = (_TAGS | {"a"}, {"a": {"href"}}) if links else (_TAGS, {})
    return Markup(nh3.clean(rendered, tags=tags, attributes=attributes, url_schemes={"https", "http", "mailto"}))


def as_paragraphs(text: str) -> Markup:
    """Text without markup as HTML: every character is shown as it is, and an empty line ends a paragraph."""
    return Markup("\n").join(Markup("<p>{}</p>").format(part) for part in text.split("\n\n"))
