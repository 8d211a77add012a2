"""Where an endpoint is and what is asked of it, as it is configured."""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib.util import find_spec
from typing import Any
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, ValidationInfo, field_validator

from fspo.errors import ConfigError
from fspo.identity import endpoint_identity
from fspo.keys import looks_like_key, read_key, secret_in
from fspo.llm.budget import Budget
from fspo.llm.parameters import PARAMETERS
from fspo.pydantic_errors import Section

__all__ = ["EndpointConfig", "need_client"]


class EndpointConfig(Section):
    """Where an endpoint is, and how to ask it. The key is not part of it: it stays in the environment."""

    base_url: str = Field(min_length=1, description="Address of the API, such as http://127.0.0.1:8000/v1.")
    model: str = Field(min_length=1, description="The model's name at the endpoint.")
    key_variable: str | None = Field(
        None,
        description="Name of the environment variable that holds the key, if the endpoint needs one. No other "
        "key is sent.",
    )
    requests_in_flight: int = Field(
        32, ge=1, description="Maximum requests at the same time; fewer while the server can't keep up."
    )
    timeout: float = Field(120.0, gt=0, description="Seconds to wait for an answer before a request counts as lost.")
    retries: int = Field(
        6,
        ge=0,
        description="How often to send a request again after an overload or a lost connection, with growing "
        "pauses. With 6, an endpoint that can't be reached is given up after half a minute.",
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict,
        description="More fields for every request, such as {chat_template_kwargs: {enable_thinking: false}}.",
    )
    parameters: dict[str, str | None] = Field(
        default_factory=dict,
        description="Other names for parameters at this server, or null to leave one out, such as "
        "{max_tokens: max_completion_tokens, seed: null}. `system` is the name of the role. fspo "
        "itself learns to leave out what a server refuses.",
    )
    budget: Budget = Field(
        default_factory=Budget, description="Limits of what the endpoint may cost, over all calls of a run."
    )

    @property
    def name(self) -> str:
        """The model's name, and where it is asked."""
        return f"{self.model} at {self.base_url}"

    @property
    def server(self) -> tuple[str, str]:
        """The model's name and the address: endpoints that agree in them share an account and a file of answers."""
        return self.model, self.base_url.rstrip("/")

    @property
    def lacks_key(self) -> bool:
        """Whether the variable that is to hold the key is not set here, so that requests go without one."""
        return self.key_variable is not None and not self.key()

    def key(self) -> str:
        """The key, from the environment; empty for none.

        Raises:
            ConfigError: the variable holds what can't be a key.
        """
        return read_key(self.key_variable)

    def identity(self) -> dict[str, Any]:
        """The settings that decide what is answered, ready for JSON; neither the address nor a key."""
        return self.identity_without()

    def identity_without(self, left_out: Collection[str] = ()) -> dict[str, Any]:
        """The same where these parameters are left out anyway, since the server refuses them."""
        return endpoint_identity({**self.model_dump(mode="json", exclude={"parameters"}), **self._left_out(left_out)})

    def server_identity(self) -> dict[str, Any]:
        """The same without any parameter: what is learned of the server's parameters is kept by it."""
        return self.identity_without(PARAMETERS)

    def _left_out(self, anyway: Collection[str] = ()) -> dict[str, Any]:
        left_out = sorted(name for name, other in self.parameters.items() if other is None and name not in anyway)
        return {"left_out": left_out} if left_out else {}  # another name changes no answer

    @field_validator("base_url")
    @classmethod
    def _without_a_key(cls, base_url: str, info: ValidationInfo) -> str:
        if re.search(r"\s", base_url) or not base_url.isprintable():
            raise ValueError("the address must not hold a space or a line break")
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the address must begin with http:// or https://, such as http://127.0.0.1:8000/v1")
        _check_port(parts)
        found = "a user or a password" if "@" in parts.netloc else "a query" if parts.query or parts.fragment else ""
        if found:
            raise ValueError(
                f"the address holds {found}, which would be written into files and logs; {_key_advice(info)}"
            )
        return base_url

    @field_validator("parameters")
    @classmethod
    def _known(cls, parameters: dict[str, str | None]) -> dict[str, str | None]:
        for name, other in parameters.items():
            if name not in PARAMETERS:
                raise ValueError(
                    f"fspo sends no parameter '{name}', but {', '.join(PARAMETERS)}; add others by extra_body"
                )
            if other is not None and not other.strip():
                raise ValueError(f"the other name of '{name}' is empty; null leaves it out")
        return parameters

    @field_validator("key_variable")
    @classmethod
    def _a_name(cls, variable: str | None) -> str | None:
        if variable is not None and (not re.fullmatch(r"[A-Za-z_]\w*", variable, re.ASCII) or looks_like_key(variable)):
            raise ValueError(
                "name the environment variable that holds the key, such as MY_KEY, and never the key itself"
            )
        return variable

    @field_validator("extra_body")
    @classmethod
    def _no_secrets(cls, body: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        place = secret_in(body)
        if place:
            raise ValueError(
                f"'{place}' looks like a secret, which would be written into files and logs; {_key_advice(info)}"
            )
        return body


def _key_advice(info: ValidationInfo) -> str:
    """Where a key belongs. The context of a validation may have the reader's name for the setting: `key_setting`."""
    setting = (info.context or {}).get("key_setting", "key_variable")
    return f"leave it out, put the key into an environment variable and name that as {setting}"


def _check_port(parts: SplitResult) -> None:
    try:
        valid = parts.port is None or parts.port > 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("the port after the host must be a number from 1 to 65535, such as http://127.0.0.1:8000/v1")


def need_client() -> None:
    """Check that the package that asks endpoints is installed.

    Raises:
        ConfigError: it is missing.
    """
    if find_spec("aiohttp") is None:
        raise ConfigError(
            "Asking an endpoint needs the package aiohttp; install fspo with the extra 'endpoint' "
            "(pip install -e '.[endpoint]' in the project's folder)."
        )
