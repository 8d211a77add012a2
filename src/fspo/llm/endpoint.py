"""An OpenAI-compatible endpoint (OpenAI, vLLM, SGLang, llama.cpp, Ollama) as a language model to ask."""

from __future__ import annotations

import math
import os
import random
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from fspo.errors import ConfigError, FspoError, ModelError, StorageError
from fspo.llm.budget import Account, Budget, BudgetReached, Reserved
from fspo.llm.cache import RequestCache, Spent, key_of
from fspo.llm.pacing import Pacer
from fspo.llm.types import Completion, CompletionRequest
from fspo.llm.wire import LONGEST_WAIT, completion_of, counted, messages_of, retry_after, told

if TYPE_CHECKING:
    import openai
    from openai import OpenAI, OpenAIError

__all__ = ["Endpoint", "EndpointConfig"]

_REFUSED = Completion("", 0, "refused")
_OVERLOADED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_SHORTEST = 0.5
"""Seconds to wait before a request is sent again the first time."""


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
        self._last_answer = -math.inf
        self._reused: list[str] = []

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

    @property
    def reused(self) -> int:
        """Answers that came from the cache."""
        return len(self._reused)

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
            try:
                answers = list(pool.map(lambda request: self._answer(client, request), requests))
            except BaseException:  # an interrupt: what is under way is waited for and kept, and nothing else is sent
                self._stopped.set()
                raise
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
        try:
            key = key_of(self._config.identity(), request)
            known = self._cache.get(key) if self._cache is not None else None
            if known is not None:
                self._reused.append(key)
                return known
            found = self._asked(client, request)
            if isinstance(found, FspoError):
                if self._cache is not None and not isinstance(found, _Refusal | _Unasked | BudgetReached):
                    self._cache.fail(key, str(found))
                return found
            completion, prompt_tokens = found
            if self._cache is not None:
                self._cache.put(key, completion, prompt_tokens)
            return completion
        except (BudgetReached, StorageError) as error:  # no room for another answer, in the budget or on the disk
            self._stopped.set()
            return error
        except BaseException:
            self._stopped.set()
            raise

    def _asked(self, client: OpenAI, request: CompletionRequest) -> tuple[Completion, int] | FspoError:
        """The completion and the tokens of its prompt; or what went wrong in the end."""
        attempt, first = 0, time.monotonic()
        while True:
            reserved = self._account.reserve(request, self._stopped)
            with self._pacer.slot(self._stopped) as began:
                if reserved is None or began is None:
                    self._account.release(reserved)
                    return _Unasked("The request was not sent, since an earlier one could not be.")
                found = self._asked_once(client, request)
            if not isinstance(found, _Overload):
                return self._judged(found, request, reserved)
            # What took too long may have been worked on, and be paid for.
            (self._account.settle if found.late else self._account.release)(reserved)
            self._pacer.overloaded(began, found.wait)
            if attempt == self._config.retries:
                if found.unreachable or self._last_answer < first:
                    self._stopped.set()  # nobody was answered all the while
                return found.error
            wait = min(LONGEST_WAIT, _SHORTEST * 2**attempt) * (0.5 + random.random() / 2)
            self._stopped.wait(max(wait, found.wait))
            attempt += 1

    def _judged(
        self, found: _Answered | FspoError, request: CompletionRequest, reserved: Reserved
    ) -> tuple[Completion, int] | FspoError:
        """What is handed out, after drawing the conclusions for other requests and for the budget."""
        if isinstance(found, FspoError):
            self._account.release(reserved)
            if not isinstance(found, _Refusal | _Failure):
                self._stopped.set()  # the key, the name, the form of the answers: all others would fail too
            return found
        self._pacer.answered()
        self._last_answer = time.monotonic()
        completion, prompt_tokens = found.completion, found.prompt_tokens
        if prompt_tokens is None:  # a server that doesn't count: at most so many
            prompt_tokens = round(reserved.prompt)
            completion = replace(completion, tokens=min(request.max_tokens, len(completion.text.encode())))
        self._account.settle(reserved, prompt_tokens, completion.tokens)
        return completion, prompt_tokens

    def _asked_once(self, client: OpenAI, request: CompletionRequest) -> _Answered | FspoError | _Overload:
        import openai

        try:
            answer = client.chat.completions.create(
                model=self._config.model,
                messages=messages_of(request),
                max_tokens=request.max_tokens,
                temperature=request.temperature,
                top_p=request.top_p,
                seed=request.seed,
            )
            return _Answered(completion_of(request, answer), counted(answer, "prompt_tokens"))
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return self._refused(error)
        except openai.OpenAIError as error:
            explained = self._explained(error)
            if isinstance(error, openai.APIConnectionError):
                lost = not isinstance(error, openai.APITimeoutError)
                unreachable = lost or type(error.__cause__).__name__ == "ConnectTimeout"
                return _Overload(explained, unreachable=unreachable, late=not unreachable)
            if isinstance(error, openai.APIStatusError) and error.status_code in _OVERLOADED:
                return _Overload(explained, retry_after(error.response.headers))
            return explained
        except (AttributeError, LookupError, TypeError, ValueError):
            return ModelError(
                f"{self._config.base_url} does not answer as an OpenAI-compatible server does; check the address, "
                "which often ends in /v1."
            )

    def _refused(self, error: openai.APIStatusError) -> _Refusal:
        return _Refusal(
            f"{self._config.base_url} refuses a request, and would each time ({told(error.body, self._key())}); "
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
        why = type(error).__name__
        if isinstance(error, openai.APIStatusError):
            why = f"{error.status_code}: {told(error.body, self._key())}"
        return _Failure(f"{address} failed on a request ({why}); {again}")


class _Refusal(ModelError):
    """The endpoint refuses this one request each time."""


class _Failure(ModelError):
    """This one request failed; others, and it another time, may not."""


class _Unasked(ModelError):
    """A request that was not sent."""


@dataclass(frozen=True)
class _Answered:
    """What the server gave, and how many tokens it counted in the prompt, if it counts."""

    completion: Completion
    prompt_tokens: int | None


@dataclass(frozen=True)
class _Overload:
    """The server can't keep up or is away: what to say if it stays so, and when to ask again."""

    error: FspoError
    wait: float = 0.0
    """Seconds, where the server says so."""
    unreachable: bool = False
    late: bool = False
    """Whether the server may have worked on it."""


def _worst(problems: Sequence[FspoError], asked: int) -> FspoError:
    """The one problem to tell of: what stops everything, or else how many requests failed and why the first did."""
    told = [problem for problem in problems if not isinstance(problem, _Unasked)]
    stopping = [problem for problem in told if not isinstance(problem, _Failure)]
    if stopping:
        return stopping[0]
    if len(told) == 1:
        return told[0]
    return ModelError(f"{len(told)} of {asked} requests failed; the first: {told[0]}")


@contextmanager
def _nothing_else_from_the_environment() -> Iterator[None]:
    """Hide the variables that the client would send on by itself, such as further headers and an organisation."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("OPENAI_")}
    try:
        yield
    finally:
        os.environ.update(hidden)
