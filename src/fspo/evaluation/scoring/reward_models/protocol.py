"""The protocol of an external reward model, and plain functions as reward models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Protocol, runtime_checkable

from fspo.identity import Unidentified, callable_identity
from fspo.preferences.types import Preference

__all__ = ["Failed", "FunctionRewardModel", "RewardModel", "RewardRequest", "Scorer", "blind", "identity_of"]

Scorer = Callable[[Sequence[Preference], str, str], float]
"""(shots, prompt, response) -> reward; only differences for the same shots and prompt mean something."""


@dataclass(frozen=True)
class RewardRequest:
    """One response to score for the user who gave the shots."""

    shots: tuple[Preference, ...]
    """Labelled preferences, oldest first, without their user."""
    prompt: str
    response: str


class Failed(Enum):
    """Stands for a score that is missing this time, such as when a server fails."""

    FAILED = "failed"


@runtime_checkable
class RewardModel(Protocol):
    """Anything that scores responses given a user's shots."""

    @property
    def name(self) -> str:
        """The model's name; it is part of the key of saved scores, see `identity_of`."""

    def score(self, requests: Sequence[RewardRequest]) -> Sequence[float | Failed | None]:
        """One reward for each request, in order; None where the model's answer can't be read as a reward.

        `Failed.FAILED` stands for a reward that is missing this time: the next evaluation requests it again.
        The two responses of a pair are next to each other in the requests.
        """


class FunctionRewardModel:
    """A function of (shots, prompt, response) as a reward model."""

    def __init__(self, function: Scorer, name: str = "") -> None:
        """`name` is by default the function's."""
        self._function, self.name = function, name or _place(function)

    @property
    def identity(self) -> str:
        """A text that distinguishes this function's scores from another's.

        Raises:
            Unidentified: the function uses something that can't be identified.
        """
        return f"{self.name}/{callable_identity(self._function)}"

    def score(self, requests: Sequence[RewardRequest]) -> list[float | None]:
        """The function's value for each request."""
        return [self._function(request.shots, request.prompt, request.response) for request in requests]


def identity_of(model: RewardModel) -> str:
    """A text that distinguishes a model's scores from another's.

    It is made of the model's own `identity` and code, or without an `identity` of its name, code and attributes.

    Raises:
        Unidentified: it states no `identity`, and holds something that can't be identified.
    """
    if isinstance(model, FunctionRewardModel):
        return model.identity
    stated = getattr(model, "identity", "")
    return f"{stated}/{_code_of(type(model))}" if stated else f"{model.name}/{callable_identity(model)}"


def blind(shots: Sequence[Preference]) -> tuple[Preference, ...]:
    """The shots without their user, question and source, so that a reward model sees only what was chosen."""
    return tuple(replace(shot, user="", question="", source={}) for shot in shots)


def _place(function: Any) -> str:
    kind = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}:{kind}"


def _code_of(kind: type) -> str:
    """A class with its methods, or its place alone where a method uses something that can't be identified."""
    try:
        return callable_identity(kind)
    except Unidentified:
        return _place(kind)
