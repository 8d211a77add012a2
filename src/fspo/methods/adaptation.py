"""Adaptations: how a user's shots change a policy, beside what stands in its context.

An adaptation is a class that a row of the table of methods names, in a file of `fspo.methods.policies`. It turns the
shots of a user into a small state (`adapt`) and enters the policy that this user gets (`using`): weights with soft
tokens, adapters or hooks, or a text in the context. Scores and answers are drawn inside, so that an adaptation is
measured like any other policy. These files are imported with the table: they import torch only inside functions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import Field, ValidationError

from fspo.errors import ConfigError
from fspo.modeling.user_views import UserView
from fspo.printing import counted
from fspo.pydantic_errors import Section, first_fault

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from transformers import PreTrainedModel

    from fspo.modeling.descriptions import Description
    from fspo.modeling.rendering import Context, EpisodeRenderer
    from fspo.preferences.types import Preference
    from fspo.training.config import TrainingConfig

__all__ = [
    "Adaptation",
    "AdaptationInput",
    "AdaptationRow",
    "AdaptationSettings",
    "AdaptationWork",
    "LastStates",
    "TextAdaptation",
    "UserState",
    "UserView",
]

T = TypeVar("T")

_REMEMBERED = 64
"""States of users that stay in memory."""


class AdaptationSettings(Section):
    """Settings of every adaptation."""

    start: str | None = None
    """The method whose policy it changes, such as fspo, if it trains none of its own; null: the base model."""
    seed: int = Field(default=0, ge=0)
    """Draws what is random for a user, such as the start of adapters; by default the run's seed."""


@dataclass(frozen=True)
class UserState:
    """What is stored of a user. Without anything, the policy is that of a user of whom nothing is known."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    text: str = ""
    """Stands in the context in the place of a description."""

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    @property
    def bytes(self) -> int:
        """Its size, with the text in UTF-8."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values()) + len(self.text.encode())


@dataclass(frozen=True)
class AdaptationInput:
    """What the work of an adaptation depends on; there are at least `least_shots`."""

    settings: Any
    renderer: EpisodeRenderer
    shots: Sequence[Preference]
    training: TrainingConfig | None = None
    """The settings of its training, if it trains a policy."""


@dataclass(frozen=True)
class AdaptationWork:
    """Tokens that an adaptation to one user takes."""

    read: float = 0.0
    """Pass through the model without a gradient."""
    learned: float = 0.0
    """Pass through the model forward and backward, each step of training counted."""

    def __add__(self, other: AdaptationWork) -> AdaptationWork:
        return AdaptationWork(self.read + other.read, self.learned + other.learned)

    def times(self, factor: float) -> AdaptationWork:
        """The work of so many such adaptations."""
        return AdaptationWork(factor * self.read, factor * self.learned)


class LastStates(Generic[T]):
    """What was made of sets of shots; the last 64 stay in memory."""

    def __init__(self) -> None:
        self._of: dict[tuple[tuple[str, str, str], ...], T] = {}

    def get(
        self, shots: Sequence[Preference], make: Callable[[Sequence[Preference]], T], *, continues: bool = False
    ) -> T:
        """What belongs to these shots; `make` makes it where it is not in memory.

        `continues`: `make` asks for what belongs to all shots but the last. So what belongs to the beginnings of the
        shots is made first, from the longest one in memory on: `make` then finds it, however many shots there are.
        """
        key = tuple((shot.prompt, shot.chosen, shot.rejected) for shot in shots)
        if key not in self._of:
            if continues:
                known = next((count for count in range(len(key) - 1, 0, -1) if key[:count] in self._of), 0)
                for count in range(known + 1, len(key)):
                    self.get(shots[:count], make)
            made = make(shots)
            while len(self._of) >= _REMEMBERED:
                del self._of[next(iter(self._of))]
            self._of[key] = made
        return self._of[key]


class Adaptation(ABC):
    """A policy that a user's shots change. One object serves one model in memory and all users."""

    Settings: ClassVar[type[AdaptationSettings]] = AdaptationSettings
    """Its settings in a run's YAML."""
    in_context: ClassVar[Context] = "none"
    """What the model reads of the user: nothing, the shots, the text of the state (`description`), or both."""
    keeps_adapters: ClassVar[bool] = False
    """Whether its own policy is loaded with the newest adapters unmerged, so that `model.disable_adapter()` gives the
    model that training started from."""
    least_shots: ClassVar[int] = 1
    """With fewer shots the state is that of an unknown user."""
    continues: ClassVar[bool] = False
    """Whether `adapt` starts from the state of all shots but the last."""

    def __init__(self, settings: Any, model: PreTrainedModel, renderer: EpisodeRenderer, folder: Path | None) -> None:
        """Get ready; the model, in evaluation mode, is as before whenever no user is entered.

        `folder` holds what the training of a policy left there; None for the base model.
        """
        model.requires_grad_(False)  # only what belongs to a user learns
        self.settings, self.model, self.renderer, self.folder = settings, model, renderer, folder
        self._states = LastStates[UserState]()
        self.prepare()

    def prepare(self) -> None:  # noqa: B027 - most need nothing
        """Make what all users share, from `settings`, `model`, `renderer` and `folder`. There is nothing by default."""

    @classmethod
    def work(cls, given: AdaptationInput) -> AdaptationWork | None:
        """The tokens of one `adapt`, so that an evaluation can be estimated; None: unknown."""
        return None

    @abstractmethod
    def adapt(self, shots: Sequence[Preference]) -> UserState:
        """What is stored of a user who gave these shots, at least `least_shots`, oldest first.

        Gradients are on or off as the caller has them; turn them on where they are needed.
        """

    def unknown(self) -> UserState:
        """The state of a user of whom nothing is known."""
        return UserState()

    @contextmanager
    def using(self, state: UserState) -> Iterator[EpisodeRenderer]:
        """Change the model for a user, and give the renderer of what this user's policy reads; undo it afterwards."""
        yield self.renderer

    def state(self, shots: Sequence[Preference]) -> UserState:
        """The state of a user who gave these shots, maybe none; the last ones stay in memory."""

        def made(own: Sequence[Preference]) -> UserState:
            return self.unknown() if len(own) < self.least_shots else self.adapt(own)

        return self._states.get(shots, made, continues=self.continues)

    @contextmanager
    def for_user(self, shots: Sequence[Preference]) -> Iterator[UserView]:
        """Enter the policy of a user who gave these shots, maybe none."""
        state = self.state(shots)
        with self.using(state) as renderer:
            yield UserView(self.model, renderer, state.text)


class TextAdaptation(Adaptation):
    """A policy that reads a text about the user, which it has written from the shots; the weights stay as they are.

    The texts of many users are written side by side and kept, and the report shows them.
    """

    in_context: ClassVar[Context] = "description"

    @abstractmethod
    def write(self, users: Sequence[Sequence[Preference]], *, tokens: int = 40) -> list[Description]:
        """A text of at most so many tokens for each user; every user has at least one shot."""

    def adapt(self, shots: Sequence[Preference]) -> UserState:
        """The text alone."""
        return UserState(text=self.write([shots])[0].text)


@dataclass(frozen=True)
class AdaptationRow:
    """An adaptation with its settings in a run."""

    name: str
    """The method."""
    kind: type[Adaptation]
    given: Mapping[str, Any] = field(default_factory=dict)
    """Its own settings."""
    shared: Mapping[str, Any] = field(default_factory=dict)
    """The settings of all adaptations; each holds for those that have it."""

    @cached_property
    def settings(self) -> AdaptationSettings:
        """All of its settings.

        Raises:
            ConfigError: one is unknown or wrong.
        """
        kind = self.kind.Settings
        known = {key: value for key, value in self.shared.items() if key in kind.model_fields}
        try:
            return kind.model_validate({**known, **self.given})
        except ValidationError as error:
            raise ConfigError(f"The method '{self.name}': {first_fault(error, kind).sentence}") from error

    def check_shots(self, shots: int) -> None:
        """Check that so many shots are enough.

        Raises:
            ConfigError: it needs more.
        """
        if shots < self.kind.least_shots:
            raise ConfigError(
                f"'{self.name}' needs at least {counted(self.kind.least_shots, 'shots')}, and the evaluation shows "
                f"{shots}; show more, or leave it out of the methods."
            )

    def identity(self) -> dict[str, Any]:
        """What decides a user's policy besides weights and shots, ready for JSON."""
        return {"adaptation": self.name, **self.settings.model_dump(mode="json")}
