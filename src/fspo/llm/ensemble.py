"""Several language models as one to ask: each request goes to one of them, drawn by weight (FSPO, section 5)."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fspo.errors import ConfigError
from fspo.llm.endpoint import EndpointConfig
from fspo.llm.types import Completion, CompletionRequest, LanguageModel

__all__ = ["Ensemble", "Member", "MemberConfig"]


class MemberConfig(BaseModel):
    """One model of an ensemble, as it is configured: an endpoint, or a model on this machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: EndpointConfig | None = None
    model: str | None = None
    """The embedded model's name, a local folder, or a hub id."""
    weight: float = Field(1.0, gt=0)
    """How often it is asked, relative to the others."""
    temperature: float | None = Field(None, gt=0)
    """Takes the place of `synthesis.temperature`."""

    def identity(self) -> dict[str, Any]:
        """The settings that decide what is written, ready for JSON."""
        who = {"model": self.model} if self.endpoint is None else {"endpoint": self.endpoint.identity()}
        return {**who, "weight": self.weight, "temperature": self.temperature}

    @model_validator(mode="after")
    def _one(self) -> MemberConfig:
        if (self.endpoint is None) == (self.model is None):
            raise ValueError("name either an endpoint or a model for each member")
        return self


@dataclass(frozen=True)
class Member:
    """One model of an ensemble.

    Attributes:
        model: who answers.
        weight: how often, relative to the others.
        temperature: takes the place of a request's own; None leaves that.
    """

    model: LanguageModel
    weight: float = 1.0
    temperature: float | None = None

    @property
    def label(self) -> str:
        """The model's name, and the temperature where one is set."""
        return self.model.name if self.temperature is None else f"{self.model.name} at T={self.temperature:g}"


class Ensemble:
    """Who answers a request is a function of the request, so that asking again asks the same member."""

    def __init__(self, members: Sequence[Member]) -> None:
        """Take the members.

        Raises:
            ConfigError: there is none, or a weight is not above 0.
        """
        if not members:
            raise ConfigError("An ensemble needs at least one member.")
        if not all(member.weight > 0 for member in members):
            raise ConfigError("The weight of each member of an ensemble must be above 0.")
        self.members = tuple(members)

    @property
    def name(self) -> str:
        """All members with their weights."""
        return " + ".join(f"{member.weight:g} x {member.label}" for member in self.members)

    def member_of(self, request: CompletionRequest) -> str:
        """The label of the member that answers this request."""
        return self.members[self._place(request)].label

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """One completion for each request, in order.

        Raises:
            ModelError: a member failed; see its own `complete`.
        """
        own: dict[int, list[int]] = {}
        for index, request in enumerate(requests):
            own.setdefault(self._place(request), []).append(index)
        found: dict[int, Completion] = {}
        for place, indices in sorted(own.items()):
            member = self.members[place]
            asked = [_at(requests[index], member.temperature) for index in indices]
            found.update(zip(indices, member.model.complete(asked), strict=True))
        return [found[index] for index in range(len(requests))]

    def _place(self, request: CompletionRequest) -> int:
        text = json.dumps(request.record(), sort_keys=True)
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        weights = [member.weight for member in self.members]
        return random.Random(digest).choices(range(len(self.members)), weights)[0]


def _at(request: CompletionRequest, temperature: float | None) -> CompletionRequest:
    return request if temperature is None else replace(request, temperature=temperature)
