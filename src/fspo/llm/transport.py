"""One request to an OpenAI-compatible server, by the official client: what it gave, or what kind of failure it was."""

from __future__ import annotations

import asyncio
import importlib.util
import ipaddress
import os
import re
import urllib.request
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from fspo.errors import ConfigError, FspoError, ModelError
from fspo.keys import ENVIRONMENT
from fspo.llm import background
from fspo.llm.endpoint_config import EndpointConfig
from fspo.llm.http_errors import causes_named, flagged, retry_after, told, used_up
from fspo.llm.installed import need_client
from fspo.llm.parameters import Manner, body_of, lesson
from fspo.llm.replies import Kind, Read, Unusable, read_reply
from fspo.llm.types import Completion, CompletionRequest

if TYPE_CHECKING:
    import openai

__all__ = [
    "Answered",
    "Failure",
    "Garbled",
    "Odd",
    "Otherwise",
    "Outcome",
    "Overload",
    "Refusal",
    "Transport",
    "WebTransport",
]

_OVERLOADED = frozenset({408, 409, 425, 429})
"""And whatever is the server's own fault: above 500."""
_FAULT = 500
"""Often the fault of one request, such as a text that the server's template can't show, and no sign of an overload."""
_NOT_CONNECTED = frozenset({"ConnectError", "ConnectTimeout", "ProxyError"})
"""A refused connection is a ConnectTimeout to the client over aiohttp, and so is one that was cut."""
_CUT = "ServerDisconnectedError"
_LATE = frozenset({408, 504, 524})
"""A proxy stopped waiting for a server that may be at work."""
_NO_SUCH_PLACE = re.compile(
    r"unexpected endpoint|unknown (?:url|path|endpoint|request url)|invalid (?:url|path|endpoint)|no (?:such )?route"
    r"|(?:route|path|url|page|endpoint) .{0,60}not found|cannot post|method not allowed",
    re.IGNORECASE,
)
"""The words of a server that is asked at the wrong path."""


@dataclass(frozen=True)
class Answered:
    """What the server gave, and how many tokens it counted in the prompt, if it counts.

    Attributes:
        completion: the answer.
        prompt_tokens: as the server counts them.
        kinds: what was odd about the reply.
        orphan: whether it closed reasoning that nothing in it had opened.
    """

    completion: Completion
    prompt_tokens: int | None
    kinds: tuple[Kind, ...] = ()
    orphan: bool = False


@dataclass(frozen=True)
class Overload:
    """The server can't keep up or is away: what to say if it stays so, and when to ask again."""

    error: FspoError
    wait: float = 0.0
    """Seconds, where the server says so."""
    unreachable: bool = False
    late: bool = False
    """Whether the server may have worked on it."""


@dataclass(frozen=True)
class Odd:
    """A reply that is no answer, from a server that is there: asked again soon, since it may be one then."""

    error: Failure
    kind: Kind
    garbled: Garbled | None = None
    """What to say where nothing else has come from there: it may be no such server at all."""
    used: tuple[int, int] | None = None
    """Tokens of the prompt and of what was written, as the server counts them."""
    late: bool = False
    """Whether the server may have worked on it."""
    patient: bool = False
    """Whether it may take a while until the server is well."""


@dataclass(frozen=True)
class Otherwise:
    """The server refuses the request in this manner, and says how it may be asked: `manner` is to be tried."""

    manner: Manner
    words: str
    """Its own."""


class Refusal(ModelError):
    """The endpoint refuses this one request each time."""


class Failure(ModelError):
    """This one request failed; others, and it another time, may not."""


class Garbled(ModelError):
    """What came is no answer of such a server: the wrong address, or one torn answer."""


Outcome = Answered | Overload | Odd | Otherwise | FspoError
"""An error that is neither a `Refusal` nor a `Failure` would meet every other request too."""


class Transport(Protocol):
    """The way to a server and back."""

    async def send(self, request: CompletionRequest, manner: Manner) -> Outcome:
        """Ask once, in this manner."""


class WebTransport:
    """The way over HTTP. All calls come from the loop of `background`."""

    def __init__(self, config: EndpointConfig) -> None:
        """Make the client; nothing is sent.

        Raises:
            ConfigError: the `openai` package is missing, or the key is none that can be sent.
        """
        self._config = config
        self._key = config.key()
        proxy = _proxy_variable(config.base_url)
        self._where = f"{config.base_url} (by the proxy in {proxy})" if proxy else config.base_url
        self._remedy = f"start the server, or correct the address or {proxy}" if proxy else ""
        self._client = _client(config, self._key)
        # The client's connections are the loop's, and are closed there.
        weakref.finalize(self, _close, self._client)

    async def send(self, request: CompletionRequest, manner: Manner) -> Outcome:
        """Ask once; what takes longer than the timeout is lost."""
        import openai

        body = body_of(self._config.model, request, manner, self._config.extra_body)
        try:
            async with asyncio.timeout(self._config.timeout):
                # The client's own way for requests of any kind: its way for chats takes half as long again.
                reply: Any = await self._client.post("/chat/completions", cast_to=object, body=body)
        except TimeoutError:
            return Overload(self._failure("timed out"), late=True)
        except openai.APIStatusError as error:
            return self._by_status(error.status_code, error.body, error.response.headers, request, manner)
        except openai.APIConnectionError as error:
            return self._by_connection(error)
        except Exception:  # the client's own, on what is no JSON, no HTTP, or torn: whatever it is, it is no reply
            return self._garbled()
        found = read_reply(request, reply)
        if isinstance(found, Read):
            return Answered(found.completion, found.prompt_tokens, found.kinds, found.orphan)
        return self._odd(found, request, manner)

    def _odd(self, reply: Unusable, request: CompletionRequest, manner: Manner) -> Outcome:
        """What a reply that is no answer comes to."""
        used = None if reply.tokens is None else (reply.prompt_tokens or 0, reply.tokens)
        late = reply.kind in ("half an answer", "a tool call")
        if reply.kind == "not readable":
            return self._garbled(reply.said)
        if reply.said is None:
            return Odd(self._failure(f"its reply: {reply.kind}"), reply.kind, used=used, late=late)
        body, status = {"error": reply.said}, reply.status or 0
        if used_up(status or 429, body, 0.0):
            return self._used_up(status, body)
        if reply.kind == "an error in place of an answer":
            found = self._by_status(status or _FAULT, body, {}, request, manner)
            if not isinstance(found, Odd):
                return found
        odd = Odd(self._failure(told(body, self._key)), reply.kind, used=used, late=late)
        return replace(odd, garbled=self._foreign(body)) if _NO_SUCH_PLACE.search(causes_named(body)[0]) else odd

    def _by_status(
        self, status: int, body: object, headers: Any, request: CompletionRequest, manner: Manner
    ) -> Outcome:
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
            learned = _lesson(body, request, manner)
            if learned is not None:
                return Otherwise(learned, said)
        if status in (400, 422):
            return self._refusal(said)
        failure = self._failure(f"{status}: {said}")
        if status == _FAULT:
            return Odd(failure, "an error in place of an answer", patient=True)
        if status in _OVERLOADED or status > _FAULT:
            return Overload(failure, wait, late=status in _LATE)
        return failure

    def _by_connection(self, error: openai.APIConnectionError) -> Outcome:
        import openai

        causes = _causes(error)
        connected = _CUT in causes or not causes & _NOT_CONNECTED
        if isinstance(error, openai.APITimeoutError) and connected and _CUT not in causes:
            return Overload(self._failure("timed out"), late=True)
        remedy = self._remedy or "start the server or correct the address"
        away = ModelError(
            f"{self._where} can't be reached; {remedy}, then run the same command again: what was finished is kept."
        )
        return Overload(away, unreachable=True, late=connected)

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
            else "name the variable that holds it: key_variable"
        )
        return ConfigError(f"{address} refuses requests without a key; {remedy}.")

    def _used_up(self, status: int, body: object) -> ModelError:
        code = f"{status}: " if status else ""
        return ModelError(
            f"{self._config.base_url} has no quota or credit left for this key ({code}{told(body, self._key)}); raise "
            "it, then run the same command again: what was finished is kept."
        )

    def _garbled(self, said: object = None) -> Odd:
        return Odd(self._failure("its reply: not readable"), "not readable", self._foreign(said), late=True)

    def _foreign(self, said: object) -> Garbled:
        words = f" ({told(said, self._key)})" if said else ""
        return Garbled(
            f"{self._where} does not answer as an OpenAI-compatible server does{words}; check the address, which often "
            "ends in /v1."
        )

    def _failure(self, why: str) -> Failure:
        return Failure(
            f"{self._where} failed on a request ({why}); run the same command again: what was finished is kept."
        )


def _lesson(body: object, request: CompletionRequest, manner: Manner) -> Manner | None:
    said, named = causes_named(body)
    return lesson(said, named, request, manner)


def _client(config: EndpointConfig, key: str) -> openai.AsyncOpenAI:
    need_client()
    import openai

    # aiohttp takes half the time of the usual client for each request.
    quick = importlib.util.find_spec("aiohttp") is not None
    kind = openai.DefaultAioHttpClient if quick else openai.DefaultAsyncHttpxClient
    with _explained(config.base_url), _nothing_else_from_the_environment():
        return openai.AsyncOpenAI(
            base_url=config.base_url,
            api_key=key or "none",
            timeout=config.timeout,
            max_retries=0,  # a request that is sent again goes through the pacer
            # No proxy knows this machine's own addresses.
            http_client=kind(timeout=config.timeout, trust_env=not _on_this_machine(config.base_url)),
        )


def _on_this_machine(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _proxy_variable(base_url: str) -> str:
    """The variable of the environment whose proxy requests to this address go by; empty where there is none."""
    parts = urlsplit(base_url)
    if _on_this_machine(base_url) or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    names = (f"{parts.scheme}_proxy", "all_proxy")
    return next((name for low in names for name in (low, low.upper()) if os.environ.get(name)), "")


def _causes(error: BaseException) -> set[str]:
    """The kinds of all errors behind this one, which differ by the client's way to the network."""
    found: set[str] = set()
    cause = error.__cause__
    while cause is not None:
        found.add(type(cause).__name__)
        cause = cause.__cause__
    return found


def _close(client: openai.AsyncOpenAI) -> None:
    background.finish(client.close())


@contextmanager
def _nothing_else_from_the_environment() -> Iterator[None]:
    """Hide the variables that the client would send on by itself, such as further headers and an organisation.

    No other thread reads a key meanwhile.
    """
    with ENVIRONMENT:
        hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("OPENAI_")}
        try:
            yield
        finally:
            os.environ.update(hidden)


@contextmanager
def _explained(base_url: str) -> Iterator[None]:
    """An address that the client can't read becomes one sentence; `EndpointConfig` finds the usual faults before."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "InvalidURL":  # the name in all packages that the client may use
            raise
        raise ConfigError(f"base_url: {base_url} is no valid address ({error}); correct it.") from error
