"""An OpenAI-compatible endpoint (OpenAI, vLLM, SGLang, llama.cpp, Ollama) as a language model to ask."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from fspo.errors import ConfigError, ModelError
from fspo.llm.types import Completion, CompletionRequest

if TYPE_CHECKING:
    from openai import OpenAI

__all__ = ["Endpoint", "EndpointConfig"]


class EndpointConfig(BaseModel):
    """Where an endpoint is and what is asked of it. The key is never part of it: it stays in the environment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(min_length=1, description="Address of the API, such as http://127.0.0.1:8000/v1.")
    model: str = Field(min_length=1, description="The model's name at the endpoint.")
    key_variable: str | None = Field(
        None, description="Environment variable that holds the key, if one is needed; no other key is ever sent."
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
        if "@" in urlsplit(base_url).netloc:
            raise ValueError(
                "the address holds a user or a password, which would be written into the run's files; put the key into "
                "an environment variable and name that as key_variable"
            )
        return base_url


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
        """One completion for each request, in order.

        Raises:
            ConfigError: the `openai` package is missing, or the endpoint refuses the key or the model's name.
            ModelError: the endpoint can't be reached, or fails on a request again and again.
        """
        client = self._connect()
        with ThreadPoolExecutor(self._config.requests_in_flight) as pool:
            return list(pool.map(lambda request: self._ask(client, request), requests))

    def _connect(self) -> OpenAI:
        if self._client is None:
            try:
                from openai import OpenAI
            except ImportError as error:
                raise ConfigError("Asking an endpoint needs the package openai; install fspo[endpoint].") from error
            config = self._config
            self._client = OpenAI(
                base_url=config.base_url,
                api_key=(os.environ.get(config.key_variable) if config.key_variable else None) or "none",
                timeout=config.timeout,
                max_retries=config.retries,
            )
        return self._client

    def _ask(self, client: OpenAI, request: CompletionRequest) -> Completion:
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
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            variable = self._config.key_variable
            remedy = (
                f"set {variable} in the environment" if variable else "name the variable that holds it: key_variable"
            )
            raise ConfigError(f"{self._config.base_url} refuses the key; {remedy}.") from error
        except openai.NotFoundError as error:
            raise ConfigError(
                f"{self._config.base_url} does not know the model '{self._config.model}'; check its name and the "
                "address."
            ) from error
        except openai.APIConnectionError as error:
            raise ModelError(
                f"{self._config.base_url} can't be reached; start the server or mend the address, then run the same "
                "command again: what was finished is kept."
            ) from error
        except openai.OpenAIError as error:
            raise ModelError(
                f"{self._config.base_url} failed on a request ({type(error).__name__}); run the same command again: "
                "what was finished is kept."
            ) from error
        return _completion(request, answer)


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
