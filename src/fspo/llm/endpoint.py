"""An OpenAI-compatible endpoint (OpenAI, vLLM, SGLang, llama.cpp, Ollama) as a language model to ask."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from fspo.errors import ConfigError, FspoError, ModelError
from fspo.llm.types import Completion, CompletionRequest

if TYPE_CHECKING:
    import openai
    from openai import OpenAI, OpenAIError

__all__ = ["Endpoint", "EndpointConfig"]

_TOLD = 200
"""Characters of a server's own message that are shown."""
_REFUSED = Completion("", 0, "refused")


class EndpointConfig(BaseModel):
    """Where an endpoint is and what is asked of it. The key is never part of it: it stays in the environment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(min_length=1, description="Address of the API, such as http://127.0.0.1:8000/v1.")
    model: str = Field(min_length=1, description="The model's name at the endpoint.")
    key_variable: str | None = Field(
        None, description="Name of the environment variable that holds the key, if one is needed; no other is sent."
    )
    requests_in_flight: int = Field(8, ge=1, description="Requests under way at once.")
    timeout: float = Field(120.0, gt=0, description="Seconds until a request counts as lost.")
    retries: int = Field(4, ge=0, description="How often the client asks again after an overload or a lost connection.")

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
    """Asks `chat/completions`; retries and back-off are the official client's."""

    def __init__(self, config: EndpointConfig) -> None:
        """Nothing is sent before the first request."""
        self._config = config
        self._client: OpenAI | None = None

    @property
    def name(self) -> str:
        """The model's name, and where it is asked."""
        return f"{self._config.model} at {self._config.base_url}"

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """One completion for each request, in order; one that is refused for what it says is empty and marked so.

        Raises:
            ConfigError: the `openai` package is missing, or the endpoint refuses the key or the model's name.
            ModelError: the endpoint can't be reached, answers in another form, refuses all requests, or fails on one
                again and again.
        """
        client = self._connect()
        with ThreadPoolExecutor(self._config.requests_in_flight) as pool:
            answers = list(pool.map(lambda request: self._ask(client, request), requests))
        refusals = [answer for answer in answers if isinstance(answer, ModelError)]
        if refusals and len(refusals) == len(answers):
            raise refusals[0]
        return [_REFUSED if isinstance(answer, ModelError) else answer for answer in answers]

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
                    max_retries=config.retries,
                )
        return self._client

    def _key(self) -> str:
        """The key in the environment, or the empty string."""
        variable = self._config.key_variable
        return os.environ.get(variable, "") if variable else ""

    def _ask(self, client: OpenAI, request: CompletionRequest) -> Completion | ModelError:
        """The completion, or why the endpoint refuses this request each time."""
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
            return _completion(request, answer)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return self._refused(error)
        except openai.OpenAIError as error:
            raise self._explained(error) from error
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ModelError(
                f"{self._config.base_url} does not answer as an OpenAI-compatible server does; check the address, "
                "which often ends in /v1."
            ) from error

    def _refused(self, error: openai.APIStatusError) -> ModelError:
        return ModelError(
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
        if isinstance(error, openai.APIConnectionError):
            return ModelError(f"{address} can't be reached; start the server or mend the address, then {again}")
        return ModelError(f"{address} failed on a request ({type(error).__name__}); {again}")


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
