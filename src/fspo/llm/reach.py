"""Whether an endpoint can be used, before anything depends on it."""

from __future__ import annotations

import json
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from fspo.llm.budget import Budget
from fspo.llm.endpoint import Endpoint
from fspo.llm.endpoint_config import EndpointConfig
from fspo.llm.transport import Failure, Refusal, Transport, proxy_for
from fspo.llm.types import CompletionRequest, Message

__all__ = ["check_endpoint"]

_TOKENS = 16
"""Most tokens of an answer; the smallest limit that every server takes."""
_PATIENCE = 10.0
"""Seconds until the list of models counts as not given."""
_LONGEST = 1 << 24
"""Bytes of that list that are read."""


def check_endpoint(config: EndpointConfig, *, answers: bool = True, transport: Transport | None = None) -> None:
    """Check that an endpoint can be reached and takes the key.

    Its list of models costs nothing, and says so. If it says less, the endpoint gets one short request, outside of its
    budget. A server that refuses or fails on this one request passes: others may succeed.

    If `answers`, it must know the model too. `transport` is the way to the server, by default HTTP.

    Raises:
        ConfigError: the package aiohttp is missing, the proxy is of an unknown kind, or the endpoint refuses the key or
            the model's name.
        ModelError: the endpoint can't be reached, is no such server, or has no quota left.
    """
    listed = _listed(config)
    if listed is not None and (config.model in listed or not answers):
        return
    endpoint = Endpoint(config.model_copy(update={"budget": Budget()}), transport=transport)
    try:
        endpoint.complete([CompletionRequest((Message("user", "Answer with one word."),), max_tokens=_TOKENS)])
    except (Refusal, Failure):
        return


class _NoRedirects(HTTPRedirectHandler):
    """Follows no redirection: it would take the key to another server."""

    def redirect_request(self, *_: object) -> None:
        """No request; the redirection becomes an HTTPError."""


def _listed(config: EndpointConfig) -> set[str] | None:
    """The models that the server lists; None if it can't be reached, fails, or refuses the key.

    Raises:
        ConfigError: the proxy is of an unknown kind.
    """
    key = config.key()
    request = Request(
        f"{config.base_url.rstrip('/')}/models", headers={"Authorization": f"Bearer {key}"} if key else {}
    )
    _, proxy = proxy_for(config.base_url)  # the same way as all other requests, since the key goes along
    proxies = {urlsplit(config.base_url).scheme: proxy} if proxy else {}
    try:
        with build_opener(_NoRedirects, ProxyHandler(proxies)).open(
            request, timeout=min(_PATIENCE, config.timeout)
        ) as reply:
            found = json.loads(reply.read(_LONGEST))
    except HTTPError as error:
        with error:
            return None if error.code in (401, 403) or error.code >= 500 else set()
    except (OSError, HTTPException):
        return None
    except (ValueError, RecursionError):
        return set()
    entries = found.get("data") if isinstance(found, dict) else None
    return (
        {str(entry.get("id")) for entry in entries if isinstance(entry, dict)} if isinstance(entries, list) else set()
    )
