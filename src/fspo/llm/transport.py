"""One request to an OpenAI-compatible server, by the official client: what it gave, or what kind of failure it was."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from fspo.errors import ConfigError, FspoError, ModelError
from fspo.llm import background
from fspo.llm.endpoint_config import EndpointConfig
from fspo.llm.installed import need_client
from fspo.llm.types import Completion, CompletionRequest
from fspo.llm.wire import completion_of, counted, logprobs_of, messages_of, retry_after, told

if TYPE_CHECKING:
    import openai

__all__ = ["Answered", "Failure", "Garbled", "Outcome", "Overload", "Refusal", "Transport", "WebTransport"]

_OVERLOADED = frozenset({408, 409, 425, 429})
"""And whatever is the server's own fault: 500 and above."""
_NOT_CONNECTED = frozenset({"ConnectError", "ConnectTimeout"})
"""A refused connection is a ConnectTimeout to the client over aiohttp, and so is one that was cut."""
_CUT = "ServerDisconnectedError"
_LATE = frozenset({408, 504, 524})
"""Somebody on the way lost patience with a server that may be at work."""


@dataclass(frozen=True)
class Answered:
    """What the server gave, and how many tokens it counted in the prompt, if it counts."""

    completion: Completion
    prompt_tokens: int | None


@dataclass(frozen=True)
class Overload:
    """The server can't keep up or is away: what to say if it stays so, and when to ask again."""

    error: FspoError
    wait: float = 0.0
    """Seconds, where the server says so."""
    unreachable: bool = False
    late: bool = False
    """Whether the server may have worked on it."""


class Refusal(ModelError):
    """The endpoint refuses this one request each time."""


class Failure(ModelError):
    """This one request failed; others, and it another time, may not."""


class Garbled(ModelError):
    """What came is no answer of such a server: the wrong address, or one torn answer."""


Outcome = Answered | Overload | FspoError
"""An error that is neither a `Refusal` nor a `Failure` would meet every other request too."""


class Transport(Protocol):
    """The way to a server and back."""

    async def send(self, request: CompletionRequest) -> Outcome:
        """Ask once."""


class WebTransport:
    """The way over HTTP. All calls come from the loop of `background`."""

    def __init__(self, config: EndpointConfig) -> None:
        """Make the client; nothing is sent.

        Raises:
            ConfigError: the `openai` package is missing, or the key is none that can be sent.
        """
        self._config = config
        self._key = config.key()
        self._client = _client(config, self._key)
        # The client's connections are the loop's, and are closed there.
        weakref.finalize(self, _close, self._client)

    async def send(self, request: CompletionRequest) -> Outcome:
        """Ask once; what takes longer than the timeout is lost."""
        import openai

        try:
            async with asyncio.timeout(self._config.timeout):
                # The client's own way for requests of any kind: its way for chats takes half as long again.
                answer: Any = await self._client.post("/chat/completions", cast_to=object, body=self._body(request))
            if isinstance(answer, dict) and answer.get("error") and not answer.get("choices"):
                return self._failure(told(answer["error"], self._key))
            return Answered(completion_of(request, answer), counted(answer, "prompt_tokens"))
        except TimeoutError:
            return Overload(self._failure("timed out"), late=True)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return self._refused(error)
        except openai.OpenAIError as error:
            return self._failed(error)
        except (AttributeError, LookupError, TypeError, ValueError):
            return Garbled(
                f"{self._config.base_url} does not answer as an OpenAI-compatible server does; check the address, "
                "which often ends in /v1."
            )

    def _body(self, request: CompletionRequest) -> dict[str, Any]:
        return {
            "model": self._config.model,
            "messages": messages_of(request),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            **logprobs_of(request),
            **self._config.extra_body,
        }

    def _failed(self, error: openai.OpenAIError) -> Outcome:
        """What went wrong, and whether the same request may work another time."""
        import openai

        address, variable = self._config.base_url, self._config.key_variable
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            if self._key:
                return ConfigError(f"{address} refuses the key in {variable}; set {variable} to another.")
            remedy = (
                f"{variable} is not set in the environment; set it"
                if variable
                else "name the variable that holds it: key_variable"
            )
            return ConfigError(f"{address} refuses requests without a key; {remedy}.")
        if isinstance(error, openai.NotFoundError):
            return ConfigError(
                f"{address} does not know the model '{self._config.model}'; check its name and the address."
            )
        causes = _causes(error)
        connected = _CUT in causes or not causes & _NOT_CONNECTED
        if isinstance(error, openai.APITimeoutError) and connected and _CUT not in causes:
            return Overload(self._failure("timed out"), late=True)
        if isinstance(error, openai.APIConnectionError):
            away = ModelError(
                f"{address} can't be reached; start the server or mend the address, then run the same command again: "
                "what was finished is kept."
            )
            return Overload(away, unreachable=True, late=connected)
        if isinstance(error, openai.APIStatusError):
            failure = self._failure(f"{error.status_code}: {told(error.body, self._key)}")
            if error.status_code in _OVERLOADED or error.status_code >= 500:
                return Overload(failure, retry_after(error.response.headers), late=error.status_code in _LATE)
            return failure
        return self._failure(type(error).__name__)

    def _refused(self, error: openai.APIStatusError) -> Refusal:
        return Refusal(
            f"{self._config.base_url} refuses a request, and would each time ({told(error.body, self._key)}); "
            "change the settings, the model or the server."
        )

    def _failure(self, why: str) -> Failure:
        return Failure(
            f"{self._config.base_url} failed on a request ({why}); run the same command again: what was finished is "
            "kept."
        )


def _client(config: EndpointConfig, key: str) -> openai.AsyncOpenAI:
    need_client()
    import openai

    # aiohttp takes half the time of the usual client for each request.
    quick = importlib.util.find_spec("aiohttp") is not None
    with _nothing_else_from_the_environment():
        return openai.AsyncOpenAI(
            base_url=config.base_url,
            api_key=key or "none",
            timeout=config.timeout,
            max_retries=0,  # whoever asks again must also ask less at once
            http_client=openai.DefaultAioHttpClient(timeout=config.timeout) if quick else None,
        )


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
    """Hide the variables that the client would send on by itself, such as further headers and an organisation."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("OPENAI_")}
    try:
        yield
    finally:
        os.environ.update(hidden)
