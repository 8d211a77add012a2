"""What a reward model from elsewhere has to be able to do, and plain functions that can."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from fspo.preferences.types import Preference

__all__ = ["FunctionRewardModel", "RewardModel", "RewardRequest", "Scorer", "blind", "identity_of"]

Scorer = Callable[[Sequence[Preference], str, str], float]
"""(shots, prompt, response) -> reward; only differences for the same shots and prompt mean something."""


@dataclass(frozen=True)
class RewardRequest:
    """One response to be scored for whoever gave the shots."""

    shots: tuple[Preference, ...]
    """Labelled preferences, oldest first; they say nothing of who gave them but what was chosen."""
    prompt: str
    response: str


@runtime_checkable
class RewardModel(Protocol):
    """Anything that scores responses given a user's shots."""

    @property
    def name(self) -> str:
        """Which model this is, another one wherever its scores may be: earlier scores of the same are used again.

        The source of its module counts too, but neither what that imports nor what it loads; see `identity_of`.
        """

    def score(self, requests: Sequence[RewardRequest]) -> Sequence[float | None]:
        """One reward for each request, in order; None where the model gave nothing that can be read as one.

        The two responses of a pair stand side by side among the requests.
        """


class FunctionRewardModel:
    """A function of (shots, prompt, response) as a reward model."""

    def __init__(self, function: Scorer, name: str = "") -> None:
        """`name` is by default the function's, with a digest of its module's source where there is one."""
        self._function, self._name = function, name or _named(function)
        self.identity = self._name if not name else f"{name}/{_named(function)}"

    @property
    def name(self) -> str:
        """The name given, or the function's."""
        return self._name

    def score(self, requests: Sequence[RewardRequest]) -> list[float | None]:
        """The function's value for each request."""
        return [self._function(request.shots, request.prompt, request.response) for request in requests]


def identity_of(model: RewardModel) -> str:
    """What tells a model's scores from another's: its own name or `identity`, and a digest of the code around it."""
    if isinstance(model, FunctionRewardModel):
        return model.identity
    return f"{getattr(model, 'identity', '') or model.name}/{_named(type(model))}"


def blind(shots: Sequence[Preference]) -> tuple[Preference, ...]:
    """The shots without who gave them and where they come from: a reward model is to go by what was chosen."""
    return tuple(replace(shot, user="", question="", source={}) for shot in shots)


def _named(function: Any) -> str:
    """The function's place, and a digest of the code around it: other code, other scores."""
    module = inspect.getmodule(function)
    kind = getattr(function, "__qualname__", type(function).__qualname__)
    try:
        source = inspect.getsource(module) if module is not None else ""
    except (OSError, TypeError):
        source = ""
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    return f"{getattr(module, '__name__', '')}:{kind}/{digest}"
