"""The page at `/`, on which a person tries the server: its files, and written pairs to answer."""

from __future__ import annotations

import json
import random
from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel
from starlette.responses import Response

from fspo.serving.api_errors import not_found
from fspo.serving.page_headers import page_headers
from fspo.serving.texts import MOST_OF_DESCRIPTION

__all__ = ["WrittenPair", "page_router", "written_pairs"]

_HEADERS = page_headers(forms=False)
_KINDS = {"page.js": "text/javascript", "page.css": "text/css", "icon.svg": "image/svg+xml"}
_LONGEST_ANSWER = 200  # tokens; an answer that people compare at a glance
_PAIRS = 40


class WrittenPair(BaseModel):
    """A prompt with two responses, to choose between."""

    prompt: str
    first: str
    second: str


def page_router(longest: int, *, asks: bool, reads_description: bool) -> APIRouter:
    """The routes of the page; none needs a key, and none shows anything of a user.

    Args:
        longest: the longest answer that the server usually gives, in tokens.
        asks: whether the server has questions of its own; the page shows random written pairs if not.
        reads_description: whether the model reads what users write about themselves.
    """
    router = APIRouter(include_in_schema=False)
    environment = Environment(
        loader=PackageLoader("fspo.serving", "page_files"), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("page.html.j2").render(
        max_tokens=min(_LONGEST_ANSWER, longest),
        asks=asks,
        reads_description=reads_description,
        most_of_description=MOST_OF_DESCRIPTION,
    )

    @router.get("/")
    def show_page() -> Response:
        return Response(page, media_type="text/html", headers=_HEADERS | {"cache-control": "no-cache"})

    @router.get("/page/pairs")
    def show_pairs() -> Response:
        text = json.dumps([pair.model_dump() for pair in written_pairs(_PAIRS)])
        return Response(text, media_type="application/json", headers=_HEADERS | {"cache-control": "no-store"})

    @router.get("/page/{name}")
    def show_file(name: str) -> Response:
        if name not in _KINDS:
            raise not_found("file")
        content = files("fspo.serving").joinpath("page_files", name).read_bytes()
        return Response(content, media_type=_KINDS[name], headers=_HEADERS | {"cache-control": "no-cache"})

    return router


def written_pairs(count: int) -> list[WrittenPair]:
    """Random questions of the domains with written responses, each with two of its responses."""
    chance = random.SystemRandom()
    pairs = []
    for prompt, texts in chance.sample(_written(), min(count, len(_written()))):
        first, second = chance.sample(texts, 2)
        pairs.append(WrittenPair(prompt=prompt, first=first, second=second))
    return pairs


@cache
def _written() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Questions with their responses. They are read as data: serving does not import how datasets are made."""
    found: dict[str, dict[str, None]] = {}
    for folder in sorted(files("fspo").joinpath("synthesis", "domains").iterdir(), key=lambda one: one.name):
        rows = folder.joinpath("responses.jsonl")
        if not rows.is_file():
            continue
        for line in rows.read_text("utf-8").splitlines():
            row = json.loads(line)
            found.setdefault(row["question"], {})[row["text"]] = None
    return tuple((question, tuple(texts)) for question, texts in found.items() if len(texts) > 1)
