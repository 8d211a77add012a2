"""A method as data: what goes into the context, which objectives the weights saw, and how they are trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from fspo.errors import ConfigError
from fspo.methods.adaptation import Adaptation, TextAdaptation
from fspo.pydantic_errors import first_fault
from fspo.training.config import Objective, TrainingConfig

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from fspo.judging.judge import Judge
    from fspo.llm.pool import EndpointPool
    from fspo.preferences.dataset import PreferenceDataset
    from fspo.preferences.types import Preference
    from fspo.progress import Progress
    from fspo.training.companion import Companion
    from fspo.training.steps import Observer

__all__ = ["Job", "Method", "MethodContext", "train_once"]

MethodContext = Literal["none", "shots", "description", "both"]


@dataclass(frozen=True)
class Job:
    """What a method is trained on, and where its policy goes."""

    method: Method
    config: TrainingConfig
    """An instance of the method's `settings`."""
    dataset: PreferenceDataset
    """The training part."""
    model: str | Path
    """Name of a model, or the folder of the policy that training starts from."""
    out: Path
    """Folder of the policy."""
    progress: Progress
    validation: PreferenceDataset | None = None
    observer: Observer | None = None
    judge: Callable[[], Judge | None] = lambda: None
    """Gives the judge of these users' tastes, if there is one that measures texts."""
    callbacks: tuple[TrainerCallback, ...] = ()
    """Of transformers, for every training loop."""
    embeddings: Path | None = None
    """Folder of the vectors of responses that all methods of a run share."""
    endpoints: EndpointPool | None = None
    """Opens the endpoints that the settings name."""
    row_number: Callable[[Preference], int] | None = None
    """Gives the row of a preference in its file, to say what is left out."""


def train_once(job: Job, companion: Companion | None = None) -> Path:
    """Train one policy on episodes of the dataset, with a method's own weights; see `train_policy`."""
    from fspo.training.train import train_policy

    return train_policy(
        job.config,
        job.dataset,
        model=job.model,
        out=job.out,
        context=job.method.shown,
        progress=job.progress,
        validation=job.validation,
        method=job.method.name,
        observer=job.observer,
        callbacks=job.callbacks,
        companion=companion,
        row_number=job.row_number,
    )


@dataclass(frozen=True)
class Method:
    """One row of the table. A method without objectives of its own trains nothing."""

    name: str
    title: str
    context: MethodContext
    """What the model sees of the user, in training and afterwards."""
    objectives: tuple[Objective, ...]
    """What the weights were trained on, in order; the last one is this method's own training."""
    starts_from: str | None
    """The method whose weights training starts from; None for the base model."""
    reward_reference: Literal["no-context", "start"]
    """What the reward is measured against: the same weights without context, or the weights training started from."""
    description: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Settings of its training that differ from the defaults of `settings`."""
    describes: bool = False
    """Whether the description in its context is one that it writes itself from the shots."""
    settings: type[TrainingConfig] = TrainingConfig
    """The type of its training's settings; a subclass adds settings of its own."""
    train: Callable[[Job], Path] = train_once
    """Trains it; the same call again continues, or returns at once when it is finished."""
    adaptation: type[Adaptation] | None = None
    """Lets the shots change the policy by code of its own; the context is then what it learns from."""
    trains_on_shots: bool = False
    """Whether an adaptation needs shots in its training too, though none are shown."""

    def __post_init__(self) -> None:
        """Freeze the settings too."""
        object.__setattr__(self, "defaults", MappingProxyType(dict(self.defaults)))

    @property
    def trains(self) -> bool:
        """Whether this method has weights of its own."""
        return bool(self.objectives)

    @property
    def shown(self) -> MethodContext:
        """What of the user stands in the context."""
        return self.context if self.adaptation is None else self.adaptation.in_context

    @property
    def reads_shots(self) -> bool:
        """Whether the shots matter: they stand in the context, or change the policy."""
        return self.context in ("shots", "both")

    @property
    def draws_shots(self) -> bool:
        """Whether episodes of its training have shots."""
        return self.trains_on_shots or self.shown in ("shots", "both")

    @property
    def writes(self) -> bool:
        """Whether a text about the user in its context is written from the shots, and is not the user's own."""
        return self.describes or (self.adaptation is not None and self.shown in ("description", "both"))

    @property
    def writes_ahead(self) -> bool:
        """Whether this text is written before users are scored, many at once, by weights that are the same for all."""
        return self.describes or (self.adaptation is not None and issubclass(self.adaptation, TextAdaptation))

    @property
    def guides(self) -> bool:
        """Whether answers can be pushed away from the mirrored user's: by the same weights in another context."""
        return self.reads_shots and (self.adaptation is None or self.writes_ahead)

    @property
    def policy(self) -> str | None:
        """The method whose trained policy it uses, its own first; None for the base model."""
        return self.name if self.trains else self.starts_from

    def from_base(self) -> Method:
        """The method with only its last objective, started from the base model."""
        return replace(self, starts_from=None, objectives=self.objectives[-1:])

    def training(self, overrides: Mapping[str, Any] | None = None) -> TrainingConfig:
        """The settings of this method's training: its own defaults, then `overrides`.

        Raises:
            ConfigError: the method trains nothing, or a setting is unknown or out of range.
        """
        if not self.trains:
            raise ConfigError(
                f"The method '{self.name}' trains nothing, so it takes no training settings; leave them out."
            )
        settings = {"objective": self.objectives[-1], **self.defaults, **(overrides or {})}
        try:
            return self.settings.model_validate(settings)
        except ValidationError as error:
            problem = first_fault(error, self.settings).sentence
            raise ConfigError(f"Training of '{self.name}': {problem}") from error
