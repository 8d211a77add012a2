"""What a request says about its sender: language, recruiting site, personal link; and the form that it carries."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from fspo.identity import digest
from fspo.study.config import StudyConfig

__all__ = ["SITE_FIELDS", "cookie_of", "language_of", "read_form", "remember", "site_of", "ticket_of"]

SITE_FIELDS = ("participant", "study", "session")
_TICKET = "ticket"
_MOST_BYTES = 2**16
_MOST_FIELDS = 100
_LONGEST = 200
"""Characters of a recruiting site's parameter."""
_YEAR = 365 * 24 * 3600
_TAG = re.compile(r"\s*([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*)\s*(?:;\s*q=([0-9.]+))?\s*")


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form from one of the study's own pages; of a repeated field the last counts.

    Raises:
        HTTPException: the form comes from another site, or is none.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403)
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > _MOST_BYTES:
            raise HTTPException(413)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content and kind != "application/x-www-form-urlencoded":
        raise HTTPException(415)
    try:
        pairs = parse_qsl(content.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise HTTPException(400) from None
    if any("\0" in text for pair in pairs for text in pair):
        raise HTTPException(400)
    return dict(pairs)


def site_of(config: StudyConfig, given: Mapping[str, str]) -> dict[str, str]:
    """What a recruiting site has passed in the address of a page; empty if a parameter is missing.

    Raises:
        HTTPException: a parameter is no id.
    """
    if config.recruiting is None:
        return {}
    names = {own: getattr(config.recruiting, own) for own in SITE_FIELDS}
    found = {own: given.get(name, "").strip() for own, name in names.items()}
    if any(len(text) > _LONGEST or not text.isprintable() for text in found.values()):
        raise HTTPException(400)
    return found if all(found.values()) else {}


def ticket_of(form: Mapping[str, str] | None = None) -> str:
    """The random text of a consent page, so that its form makes one participant however often it is sent.

    Raises:
        HTTPException: the form has none.
    """
    if form is None:
        return secrets.token_hex(16)
    ticket = form.get(_TICKET, "")
    if not re.fullmatch(r"[0-9a-f]{32}", ticket):
        raise HTTPException(400)
    return ticket


def language_of(config: StudyConfig, request: Request) -> str:
    """The language that the address asks for, or else the browser, or else the study's first."""
    wished = request.query_params.get("lang", "")
    if wished in config.languages:
        return wished
    for tag in _accepted(request.headers.get("accept-language", "")):
        for language in config.languages:
            if language.lower() == tag or language.partition("-")[0].lower() == tag.partition("-")[0]:
                return language
    return config.language


def _accepted(header: str) -> list[str]:
    found = [match for part in header[:500].split(",") if (match := _TAG.fullmatch(part))]
    return [match[1].lower() for match in sorted(found, key=lambda match: -_quality(match[2]))]


def _quality(text: str | None) -> float:
    try:
        return 1.0 if text is None else float(text)
    except ValueError:
        return 0.0


def cookie_of(study: str) -> str:
    """The name of a study's cookie: its own, because browsers send the cookies of a host to all of its ports.

    A study's name may say what is compared, so it is not readable here.
    """
    return f"fspo_study_{digest([study], 12)}"


def remember(response: Response, request: Request, study: str, key: str | None) -> Response:
    """The response, after which the browser remembers the key for this study, or forgets it."""
    settings = {
        "path": request.scope.get("root_path") or "/",
        "secure": request.url.scheme == "https",
        "httponly": True,
        "samesite": "lax",
    }
    if key is None:
        response.delete_cookie(cookie_of(study), **settings)  # type: ignore[arg-type]
    else:
        response.set_cookie(cookie_of(study), key, max_age=_YEAR, **settings)  # type: ignore[arg-type]
    return response
