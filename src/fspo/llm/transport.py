"""One request to an OpenAI-compatible server over HTTP: what it gave, or what kind of failure it was."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import ssl
import urllib.request
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from fspo.errors import ConfigError, FspoError, ModelError
from fspo.files import to_json
from fspo.llm import background
from fspo.llm.endpoint_config import EndpointConfig, need_client
from fspo.llm.http_errors import causes_named, flagged, retry_after, told, used_up
from fspo.llm.parameters import Names, body_of, lesson
from fspo.llm.replies import Kind, Read, Unusable, read_reply
from fspo.llm.types import CompletionRequest

if TYPE_CHECKING:
    import aiohttp

__all__ = [
    "Failure",
    "Otherwise",
    "Outcome",
    "Refusal",
    "Retry",
    "Transport",
    "WebTransport",
    "certificates",
    "proxy_for",
]

_OVERLOADED = frozenset({408, 409, 425, 429})
"""And whatever is the server's own fault: above 500."""
_FAULT = 500
"""Often the fault of one request, such as a text that the server's template can't show, and no sign of an overload."""
_CONNECTING = 30.0
"""Seconds until a server counts as away that does not take the connection."""
_LATE = frozenset({408, 504, 524})
"""A proxy stopped waiting for a server that may be at work."""
_NO_SUCH_PLACE = re.compile(
    r"unexpected endpoint|unknown (?:url|path|endpoint|request url)|invalid (?:url|path|endpoint)|no (?:such )?route"
    r"|(?:route|path|url|page|endpoint) .{0,60}not found|cannot post|method not allowed",
    re.IGNORECASE,
)
"""The words of a server that is asked at the wrong path."""


@dataclass(frozen=True)
class Retry:
    """No answer, and one may come if the request is sent again.

    Attributes:
        error: what to say if none comes.
        kind: of a reply that is no answer, from a server that is there; None where it can't keep up or is away.
        wait: seconds that the server asks to wait.
        unreachable: whether there is no connection.
        late: whether the server may have worked on it.
        used: tokens of the prompt and of what was written, as the server counts them.
        patient: whether it may take a while until the server is well; else a reply that is no answer is asked again
            soon, and seldom.
        foreign: what to say where nothing else has come from there: it may be no such server at all.
    """

    error: FspoError
    kind: Kind | None = None
    wait: float = 0.0
    unreachable: bool = False
    late: bool = False
    used: tuple[int, int] | None = None
    patient: bool = False
    foreign: ModelError | None = None


@dataclass(frozen=True)
class Otherwise:
    """The server refuses the request with these parameters, and says how it may be asked: `names` is to be tried."""

    names: Names
    words: str
    """Its own."""


class Refusal(ModelError):
    """The endpoint refuses this one request each time."""


class Failure(ModelError):
    """This one request failed; others, and it another time, may not."""


Outcome = Read | Retry | Otherwise | FspoError
"""An error that is neither a `Refusal` nor a `Failure` would meet every other request too."""


class Transport(Protocol):
    """The way to a server and back."""

    async def send(self, request: CompletionRequest, names: Names) -> Outcome:
        """Ask once, with these names of parameters."""


class WebTransport:
    """The way over HTTP. All requests come from the loop of `background`.

    The only thing that goes from the environment to the server is the key that the settings name.
    """

    def __init__(self, config: EndpointConfig, *, keeps: bool = True, key_setting: str = "key_variable") -> None:
        """Nothing is sent.

        Args:
            config: where the server is.
            keeps: whether the command keeps its answers, so that its errors may say so.
            key_setting: what the user calls the setting that names the variable with the key.

        Raises:
            ConfigError: the package aiohttp is missing, the key can't be sent, or the proxy is of an unknown kind.
        """
        need_client()
        self._config = config
        self._key, self._key_setting = config.key(), key_setting
        self._again = "run the same command again" + (": what was finished is kept" if keeps else "")
        self._address = f"{config.base_url.rstrip('/')}/chat/completions"
        variable, self._proxy = proxy_for(config.base_url)
        self._where = f"{config.base_url} (by the proxy in {variable})" if variable else config.base_url
        self._remedy = f"correct the address or {variable}" if variable else "correct the address"
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: CompletionRequest, names: Names) -> Outcome:
        """Ask once; what takes longer than the timeout is lost."""
        import aiohttp
        from aiohttp.http_exceptions import ContentEncodingError

        body = body_of(self._config.model, request, names, self._config.extra_body)
        try:
            async with self._open().post(self._address, json=body, proxy=self._proxy) as reply:
                status, headers, said = reply.status, reply.headers, _value_of(await reply.read())
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError):
            return Retry(self._away(), unreachable=True)
        except TimeoutError:
            return Retry(self._failure("timed out"), late=True)
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            if isinstance(error.__cause__, ContentEncodingError):
                return self._garbled()
            # cut
            return Retry(self._away(), unreachable=True, late=True)
        except Exception:  # the client's own, on what is no HTTP: whatever it is, it is no reply
            return self._garbled()
        if status >= 400:
            return self._by_status(status, said, headers, request, names)
        found = read_reply(request, said)
        return found if isinstance(found, Read) else self._without_answer(found, request, names)

    def _open(self) -> aiohttp.ClientSession:
        """The connections; they belong to the loop that makes them, and are closed there."""
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=certificates(self._address)),
                timeout=aiohttp.ClientTimeout(total=self._config.timeout, sock_connect=_CONNECTING),
                headers={"Authorization": f"Bearer {self._key or 'none'}", "User-Agent": "fspo"},
                cookie_jar=aiohttp.DummyCookieJar(),
                json_serialize=to_json,
            )
            weakref.finalize(self, _close, self._session)
        return self._session

    def _without_answer(self, reply: Unusable, request: CompletionRequest, names: Names) -> Outcome:
        """The outcome of a reply that holds no answer: send the request again, refuse it, or end the run."""
        if reply.kind == "not readable":
            return self._garbled(reply.said)
        used = None if reply.tokens is None else (reply.prompt_tokens or 0, reply.tokens)
        late = reply.kind in ("half an answer", "a tool call")
        if reply.said is None:
            return Retry(self._failure(f"its reply: {reply.kind}"), reply.kind, used=used, late=late)
        body, status = {"error": reply.said}, reply.status or 0
        if used_up(status or 429, body, 0.0):
            return self._used_up(status, body)
        if reply.kind == "an error in place of an answer":
            found = self._by_status(status or _FAULT, body, {}, request, names)
            if not (isinstance(found, Retry) and found.kind):
                return found
        foreign = self._foreign(body) if _NO_SUCH_PLACE.search(causes_named(body)[0]) else None
        return Retry(self._failure(told(body, self._key)), reply.kind, used=used, late=late, foreign=foreign)

    def _by_status(self, status: int, body: object, headers: Any, request: CompletionRequest, names: Names) -> Outcome:
        """What a refusal or a failure with a status comes to."""
        address, said = self._config.base_url, told(body, self._key)
        wait = retry_after(headers)
        if used_up(status, body, wait):
            return self._used_up(status, body)
        if status == 403 and flagged(body):  # the words are refused, and not the key
            return self._refusal(said)
        if status in (401, 403):
            return self._without_access()
        if status == 404:
            return ConfigError(
                f"{address} does not know the model '{self._config.model}' ({said}); check its name and the address."
            )
        if status in (400, 422, _FAULT):
            learned = lesson(*causes_named(body), request, names)
            if learned is not None:
                return Otherwise(learned, said)
        if status in (400, 422):
            return self._refusal(said)
        failure = self._failure(f"{status}: {said}")
        if status == _FAULT:
            return Retry(failure, "an error in place of an answer", patient=True)
        if status in _OVERLOADED or status > _FAULT:
            return Retry(failure, wait=wait, late=status in _LATE)
        return failure

    def _away(self) -> ModelError:
        return ModelError(f"{self._where} can't be reached; start the server, or {self._remedy}, then {self._again}.")

    def _refusal(self, said: str) -> Refusal:
        return Refusal(
            f"{self._config.base_url} refuses a request, and would each time ({said}); change the settings, such as "
            "endpoint.parameters, the model or the server."
        )

    def _without_access(self) -> ConfigError:
        address, variable = self._where, self._config.key_variable
        if self._key:
            return ConfigError(f"{address} refuses the key in {variable}; set {variable} to another.")
        remedy = (
            f"{variable} is not set in the environment; set it"
            if variable
            else f"name the variable that holds it: {self._key_setting}"
        )
        return ConfigError(f"{address} refuses requests without a key; {remedy}.")

    def _used_up(self, status: int, body: object) -> ModelError:
        code = f"{status}: " if status else ""
        return ModelError(
            f"{self._config.base_url} has no quota or credit left for this key ({code}{told(body, self._key)}); raise "
            f"it, then {self._again}."
        )

    def _garbled(self, said: object = None) -> Retry:
        error = self._failure("its reply: not readable")
        return Retry(error, "not readable", late=True, foreign=self._foreign(said))

    def _foreign(self, said: object) -> ModelError:
        words = f" ({told(said, self._key)})" if said else ""
        return ModelError(
            f"{self._where} does not answer as an OpenAI-compatible server does{words}; check the address, which often "
            "ends in /v1."
        )

    def _failure(self, why: str) -> Failure:
        return Failure(f"{self._where} failed on a request ({why}); {self._again}.")


def _value_of(said: bytes) -> Any:
    """A body as JSON, or else as text."""
    try:
        return json.loads(said)
    except (ValueError, RecursionError):
        return said.decode("utf-8", "replace")


def certificates(address: str) -> ssl.SSLContext | bool:
    """For aiohttp: those of the system and of certifi, since some systems give Python none; True without HTTPS."""
    if not address.startswith("https"):
        return True
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _on_this_machine(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def proxy_for(base_url: str) -> tuple[str, str | None]:
    """The variable of the environment that names the proxy for this address, and the proxy.

    Raises:
        ConfigError: it is no proxy for HTTP.
    """
    parts = urlsplit(base_url)
    if _on_this_machine(base_url) or urllib.request.proxy_bypass(parts.hostname or ""):
        return "", None
    names = (f"{parts.scheme}_proxy", "all_proxy")
    variable = next((name for low in names for name in (low, low.upper()) if os.environ.get(name)), "")
    proxy = os.environ.get(variable, "")
    proxy = proxy if "://" in proxy or not proxy else f"http://{proxy}"
    if proxy and urlsplit(proxy).scheme not in ("http", "https"):
        raise ConfigError(f"{variable} names a proxy that fspo can't use; set it to one of http:// or https://.")
    return variable, proxy or None


def _close(session: aiohttp.ClientSession) -> None:
    background.finish(session.close())
