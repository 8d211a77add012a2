"""An OpenAI-compatible endpoint (OpenAI, vLLM, SGLang, llama.cpp, Ollama) as a language model to ask."""

from __future__ import annotations

import json
import math
import os
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from fspo.errors import ConfigError, FspoError, ModelError
from fspo.llm.budget import Account, Budget, BudgetReached
from fspo.llm.cache import RequestCache, Spent, key_of
from fspo.llm.pacing import Pacer
from fspo.llm.types import Completion, CompletionRequest

if TYPE_CHECKING:
    import openai
    from openai import OpenAI, OpenAIError

__all__ = ["Endpoint", "EndpointConfig"]

_TOLD = 200
"""Characters of a server's own message that are shown."""
_REFUSED = Completion("", 0, "refused")
_OVERLOADED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_SHORTEST, _LONGEST = 0.5, 60.0
"""Seconds to wait before a request is sent again: the first time, and at most."""


class EndpointConfig(BaseModel):
    """Where an endpoint is and what is asked of it. The key is never part of it: it stays in the environment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(min_length=1, description="Address of the API, such as http://127.0.0.1:8000/v1.")
    model: str = Field(min_length=1, description="The model's name at the endpoint.")
    key_variable: str | None = Field(
        None, description="Name of the environment variable that holds the key, if one is needed; no other is sent."
    )
    requests_in_flight: int = Field(
        32, ge=1, description="Most requests under way at once; fewer while the server can't keep up."
    )
    timeout: float = Field(120.0, gt=0, description="Seconds until a request counts as lost.")
    retries: int = Field(
        6, ge=0, description="How often a request is sent again after an overload or a lost connection."
    )
    budget: Budget = Field(default_factory=Budget, description="What the endpoint may cost, over all calls of a run.")

    def identity(self) -> dict[str, Any]:
        """The settings that decide what is answered, ready for JSON."""
        return self.model_dump(mode="json", include={"base_url", "model"})

    @field_validator("base_url")
    @classmethod
    def _without_a_key(cls, base_url: str) -> str:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the address must begin with http:// or https://, such as http://127.0.0.1:8000/v1")
        found = "a user or a password" if "@" in parts.netloc else "a query" if parts.query or parts.fragment else ""
        if found:
            raise ValueError(
                f"the address holds {found}, which would be written into the run's files; leave it out, put the key "
                "into an environment variable and name that as key_variable"
            )
        return base_url

    @field_validator("key_variable")
    @classmethod
    def _a_name(cls, variable: str | None) -> str | None:
        if variable is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
            raise ValueError(
                "name the environment variable that holds the key, such as MY_KEY, and never the key itself"
            )
        return variable


class Endpoint:
    """Asks `chat/completions`, as many requests at once as the server can take.

    An answer is in the cache, where there is one, before it is handed out. Overloads, timeouts and lost connections are
    asked again, after as long as the server says or else ever longer; what fails in the end is noted, and asked again
    by the next call.
    """

    def __init__(self, config: EndpointConfig, cache: RequestCache | None = None) -> None:
        """Nothing is sent before the first request; `cache` holds earlier answers."""
        self._config, self._cache = config, cache
        self._client: OpenAI | None = None
        self._pacer = Pacer(config.requests_in_flight)
        self._account = Account(config.budget, cache.spent() if cache is not None else None)
        self._stopped = threading.Event()

    @property
    def name(self) -> str:
        """The model's name, and where it is asked."""
        return f"{self._config.model} at {self._config.base_url}"

    @property
    def spent(self) -> Spent:
        """What all answers have cost, those of earlier calls too, in tokens."""
        return self._account.spent

    @property
    def dollars(self) -> float:
        """The same in dollars; 0 without prices."""
        return self._account.dollars

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """One completion for each request, in order; one that is refused for what it says is empty and marked so.

        Raises:
            ConfigError: the `openai` package is missing, or the endpoint refuses the key or the model's name.
            BudgetReached: the next request might pass the budget.
            ModelError: the endpoint can't be reached, answers in another form, refuses all requests, or fails on some
                again and again; answers that came are in the cache.
        """
        client = self._connect()
        self._stopped.clear()
        with ThreadPoolExecutor(min(self._config.requests_in_flight, max(1, len(requests)))) as pool:
            answers = list(pool.map(lambda request: self._answer(client, request), requests))
        problems = [answer for answer in answers if isinstance(answer, FspoError)]
        lasting = [problem for problem in problems if not isinstance(problem, _Refusal)]
        if lasting:
            raise _worst(lasting, len(requests))
        if problems and len(problems) == len(answers):
            raise problems[0]
        return [_REFUSED if isinstance(answer, FspoError) else answer for answer in answers]

    def _connect(self) -> OpenAI:
        if self._client is None:
            try:
                from openai import OpenAI
            except ImportError as error:
                raise ConfigError("Asking an endpoint needs the package openai; install fspo[endpoint].") from error
            config = self._config
            with _nothing_else_from_the_environment():
                self._client = OpenAI(
                    base_url=config.base_url,
                    api_key=self._key() or "none",
                    timeout=config.timeout,
                    max_retries=0,  # whoever asks again must also ask less at once
                )
        return self._client

    def _key(self) -> str:
        """The key in the environment, or the empty string."""
        variable = self._config.key_variable
        return os.environ.get(variable, "") if variable else ""

    def _answer(self, client: OpenAI, request: CompletionRequest) -> Completion | FspoError:
        """The completion, from the cache or from the endpoint, or why there is none."""
        key = key_of(self._config.identity(), request)
        known = self._cache.get(key) if self._cache is not None else None
        if known is not None:
            return known
        if self._stopped.is_set():
            return _Unasked("The request was not sent, since an earlier one could not be.")
        try:
            reserved = self._account.reserve(request)
        except BudgetReached as error:
            self._stopped.set()
            return error
        found = self._asked(client, request)
        if isinstance(found, FspoError):
            self._account.release(reserved)
            if self._cache is not None and not isinstance(found, _Refusal):
                self._cache.fail(key, str(found))
            return found
        completion, prompt_tokens = found
        self._account.settle(reserved, prompt_tokens, completion.tokens)
        if self._cache is not None:
            self._cache.put(key, completion, prompt_tokens)
        return completion

    def _asked(self, client: OpenAI, request: CompletionRequest) -> tuple[Completion, int] | FspoError:
        """The completion and the tokens of its prompt; or what went wrong in the end."""
        attempt = 0
        while True:
            with self._pacer.slot() as began:
                found = self._asked_once(client, request)
            if not isinstance(found, _Overload):
                return self._judged(found)
            self._pacer.overloaded(began, found.retry_after or 0.0)
            if attempt == self._config.retries:
                if found.unreachable:
                    self._stopped.set()
                return found.error
            wait = min(_LONGEST, _SHORTEST * 2**attempt) * (0.5 + random.random() / 2)
            time.sleep(wait if found.retry_after is None else found.retry_after)
            attempt += 1

    def _judged(self, found: tuple[Completion, int] | FspoError) -> tuple[Completion, int] | FspoError:
        """The same, after drawing the conclusions for other requests."""
        if not isinstance(found, FspoError):
            self._pacer.answered()
        elif not isinstance(found, _Refusal | _Failure):
            self._stopped.set()  # the key, the name, the form of the answers: all others would fail too
        return found

    def _asked_once(self, client: OpenAI, request: CompletionRequest) -> tuple[Completion, int] | FspoError | _Overload:
        import openai

        try:
            answer = client.chat.completions.create(
                model=self._config.model,
                messages=_messages(request),
                max_tokens=request.max_tokens,
                temperature=request.temperature,
                top_p=request.top_p,
                seed=request.seed,
            )
            return _completion(request, answer), answer.usage.prompt_tokens if answer.usage else 0
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return self._refused(error)
        except openai.OpenAIError as error:
            explained = self._explained(error)
            if isinstance(error, openai.APIConnectionError):
                return _Overload(explained, unreachable=not isinstance(error, openai.APITimeoutError))
            if isinstance(error, openai.APIStatusError) and error.status_code in _OVERLOADED:
                return _Overload(explained, _retry_after(error.response.headers))
            return explained
        except (AttributeError, LookupError, TypeError, ValueError):
            return ModelError(
                f"{self._config.base_url} does not answer as an OpenAI-compatible server does; check the address, "
                "which often ends in /v1."
            )

    def _refused(self, error: openai.APIStatusError) -> _Refusal:
        return _Refusal(
            f"{self._config.base_url} refuses a request, and would each time ({_told(error.body, self._key())}); "
            "change the settings, the model or the server."
        )

    def _explained(self, error: OpenAIError) -> FspoError:
        """What went wrong, and whether the same request may work another time."""
        import openai

        address, variable = self._config.base_url, self._config.key_variable
        again = "run the same command again: what was finished is kept."
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            remedy = (
                f"set {variable} in the environment" if variable else "name the variable that holds it: key_variable"
            )
            return ConfigError(f"{address} refuses the key; {remedy}.")
        if isinstance(error, openai.NotFoundError):
            return ConfigError(
                f"{address} does not know the model '{self._config.model}'; check its name and the address."
            )
        if isinstance(error, openai.APIConnectionError) and not isinstance(error, openai.APITimeoutError):
            return ModelError(f"{address} can't be reached; start the server or mend the address, then {again}")
        return _Failure(f"{address} failed on a request ({type(error).__name__}); {again}")


class _Refusal(ModelError):
    """The endpoint refuses this one request each time."""


class _Failure(ModelError):
    """This one request failed; others, and it another time, may not."""


class _Unasked(ModelError):
    """A request that was not sent."""


@dataclass(frozen=True)
class _Overload:
    """The server can't keep up or is away: what to say if it stays so, and when to ask again."""

    error: FspoError
    retry_after: float | None = None
    """Seconds, where the server says so."""
    unreachable: bool = False


def _worst(problems: Sequence[FspoError], asked: int) -> FspoError:
    """The one problem to tell of: what stops everything, or else how many requests failed and why the first did."""
    told = [problem for problem in problems if not isinstance(problem, _Unasked)]
    stopping = [problem for problem in told if not isinstance(problem, _Failure)]
    if stopping:
        return stopping[0]
    if len(told) == 1:
        return told[0]
    return ModelError(f"{len(told)} of {asked} requests failed; the first: {told[0]}")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, at most `_LONGEST`."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            try:
                until = parsedate_to_datetime(value)
            except (TypeError, ValueError):
                continue
            seconds = until.timestamp() - time.time()
        if math.isfinite(seconds):
            return min(_LONGEST, max(0.0, seconds))
    return None


@contextmanager
def _nothing_else_from_the_environment() -> Iterator[None]:
    """Hide the variables that the client would send on by itself, such as further headers and an organisation."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("OPENAI_")}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _told(body: object, key: str) -> str:
    """A server's own message on one line, without the key and not longer than a sentence."""
    told = (body.get("message") or body.get("detail") or body) if isinstance(body, dict) else body
    if not told:
        return "it does not say why"
    text = told if isinstance(told, str) else json.dumps(told, ensure_ascii=False)
    text = text.replace(key, "***") if key else text
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line.rstrip(".") if len(line) <= _TOLD else f"{line[: _TOLD - 3]}..."


def _messages(request: CompletionRequest) -> list[Any]:
    turns = [{"role": message.role, "content": message.content} for message in request.messages]
    if request.prefix:
        turns[-1]["content"] += f"\n\nBegin your answer with these words: {request.prefix}"
    return turns


def _completion(request: CompletionRequest, answer: Any) -> Completion:
    # An answer without text, such as a refusal that came as one, is an empty text: a reject further on, not a crash.
    choice = answer.choices[0] if answer.choices else None
    text = (choice.message.content or "").strip() if choice else ""
    tokens = answer.usage.completion_tokens if answer.usage else 0
    begun = request.prefix.strip()
    taken_up = text.lower().startswith(begun.lower())
    return Completion(
        text[len(begun) :] if taken_up else text,
        tokens,
        "length" if choice and choice.finish_reason == "length" else "stop",
        anew=bool(begun) and not taken_up,
    )
