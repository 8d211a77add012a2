"""Several language models as one: each request goes to one of them, drawn by weight (FSPO, section 5)."""

from __future__ import annotations

import hashlib
import json
import random
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from pydantic import Field, model_validator

from fspo.errors import ConfigError
from fspo.llm.batching import mark_unusable
from fspo.llm.endpoint_config import EndpointConfig
from fspo.llm.types import (
    Asking,
    Completion,
    CompletionRequest,
    Concurrent,
    LanguageModel,
    batch_of,
    identity_of,
    title_of,
)
from fspo.modeling.model_names import local_identity
from fspo.paths import PlaceName
from fspo.pydantic_errors import Section

__all__ = ["Ensemble", "Member", "MemberConfig"]

_PIECES = 8
"""Pieces under way at once."""

_Piece = dict[int, dict[int, CompletionRequest]]
"""Place of a member -> place in the piece -> what it is asked."""


class MemberConfig(Section):
    """One model of an ensemble: an endpoint, or a model on this machine."""

    endpoint: EndpointConfig | None = None
    """An OpenAI-compatible endpoint; set either this or `model`."""
    model: PlaceName | None = None
    """The built-in model's name, a local folder, or a hub id."""
    weight: float = Field(1.0, gt=0)
    """How often this model is used, relative to the others."""
    temperature: float | None = Field(None, gt=0)
    """Replaces `synthesis.temperature` for this model."""

    def identity(self) -> dict[str, Any]:
        """The settings that decide what is written, ready for JSON."""
        who = local_identity(self.model or "") if self.endpoint is None else {"endpoint": self.endpoint.identity()}
        return {**who, "weight": self.weight, "temperature": self.temperature}

    @model_validator(mode="after")
    def _one(self) -> MemberConfig:
        if (self.endpoint is None) == (self.model is None):
            raise ValueError("name either an endpoint or a model for each member")
        return self


@dataclass(frozen=True)
class Member:
    """One model of an ensemble.

    `weight` says how often it is asked, relative to the others; `temperature` takes the place of a request's own.
    """

    model: LanguageModel
    weight: float = 1.0
    temperature: float | None = None

    @property
    def label(self) -> str:
        """The model's name, and the temperature where one is set."""
        return self._at(self.model.name)

    @property
    def title(self) -> str:
        """The same for others to read."""
        return self._at(title_of(self.model))

    def _at(self, name: str) -> str:
        return name if self.temperature is None else f"{name} at T={self.temperature:g}"


class Ensemble:
    """The request decides which member answers it, so that asking again asks the same member."""

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
        self.name = " + ".join(f"{member.weight:g} x {member.label}" for member in members)
        """All members with their weights."""
        self.title = " + ".join(f"{member.weight:g} x {member.title}" for member in members)
        """The same for others to read."""
        self.identity = {"members": [[one.weight, identity_of(one.model), one.temperature] for one in members]}
        """All members, by what decides their answers, with their weights and temperatures."""

    @property
    def batch(self) -> int | None:
        """How many requests give each model on this machine a batch, on average; None without such a model."""
        batches = {place: size for place, member in enumerate(self.members) if (size := batch_of(member.model))}
        own = sum(self.members[place].weight for place in batches)
        return round(sum(batches.values()) * sum(member.weight for member in self.members) / own) if batches else None

    def member_of(self, request: CompletionRequest) -> str:
        """The title of the member that answers this request, for others to read."""
        return self.members[self._place(request)].title

    def mark_unusable(self, requests: Sequence[CompletionRequest]) -> None:
        """Hand it on to the members that have answered."""
        for request in requests:
            member = self.members[self._place(request)]
            mark_unusable(member.model, _at(request, member.temperature))

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """One completion for each request, in order.

        Raises:
            ModelError: a member failed; see its own `complete`.
        """
        return list(self.stream(requests, max(1, len(requests))))

    def stream(self, requests: Iterable[CompletionRequest], ahead: int) -> Iterator[Completion]:
        """The same for any number of requests, in pieces of `ahead`; all members at endpoints are kept busy at once.

        Raises:
            ModelError: a member failed; see its own `complete`.
        """
        requests, under_way = iter(requests), deque[_Piece]()
        with ExitStack() as stack:
            lines = {
                place: stack.enter_context(closing(member.model.asking()))
                for place, member in enumerate(self.members)
                if isinstance(member.model, Concurrent)
            }
            while asked := list(islice(requests, ahead)):
                piece = self._divided(asked)
                for place in piece.keys() & lines.keys():
                    lines[place].begin(list(piece[place].values()))
                under_way.append(piece)
                if len(under_way) == (_PIECES if lines else 1):
                    yield from self._taken(under_way.popleft(), lines)
            while under_way:
                yield from self._taken(under_way.popleft(), lines)

    def _divided(self, requests: Sequence[CompletionRequest]) -> _Piece:
        piece: _Piece = {}
        for index, request in enumerate(requests):
            place = self._place(request)
            piece.setdefault(place, {})[index] = _at(request, self.members[place].temperature)
        return piece

    def _taken(self, piece: _Piece, lines: Mapping[int, Asking]) -> list[Completion]:
        """The completions of a piece, in order; models on this machine are asked now, one after the other."""
        found: dict[int, Completion] = {}
        for place, own in sorted(piece.items()):
            asked = list(own.values())
            given = lines[place].take() if place in lines else self.members[place].model.complete(asked)
            found.update(zip(own, given, strict=True))
        return [found[index] for index in sorted(found)]

    def _place(self, request: CompletionRequest) -> int:
        text = json.dumps(request.record(), sort_keys=True)
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        weights = [member.weight for member in self.members]
        return random.Random(digest).choices(range(len(self.members)), weights)[0]


def _at(request: CompletionRequest, temperature: float | None) -> CompletionRequest:
    return request if temperature is None else replace(request, temperature=temperature)
