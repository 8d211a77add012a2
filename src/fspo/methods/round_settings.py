"""Methods that train in rounds, on answers of their own: their settings, and their training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from fspo.llm.endpoint_config import EndpointConfig
from fspo.methods.method import Job
from fspo.training.config import Needs, TrainingConfig

if TYPE_CHECKING:
    from fspo.methods.one_round import Pairs, Round

__all__ = ["RoundSettings", "in_rounds"]


class RoundSettings(TrainingConfig):
    """Settings of a training in rounds: those of one round's training, and how its answers are written."""

    needs: ClassVar[Needs] = {
        **TrainingConfig.needs,
        "top_p": ("temperature above 0", lambda config: config.temperature > 0),
    }

    rounds: int = Field(
        default=3, ge=1, description="Rounds of writing answers and training on them; `steps` are those of one round."
    )
    temperature: float = Field(
        default=1.0, ge=0, description="Temperature of the answers; 0 takes the most probable token each time."
    )
    top_p: float = Field(default=1.0, gt=0, le=1, description="Share of the probability that answers are drawn from.")
    max_new_tokens: int = Field(default=128, ge=1, description="Maximum length of an answer, in tokens.")
    answer_batch: int = Field(default=32, ge=1, description="Answers that are written side by side.")
    probes: int = Field(
        default=16,
        ge=0,
        description="Questions of validation users (without any: of training users) that each round's policy answers, "
        "for its win rate and the length of its answers; 0: none.",
    )

    @property
    def total_steps(self) -> int:
        """Optimizer steps of all rounds."""
        return self.rounds * self.steps

    @property
    def room(self) -> int:
        """Tokens that must fit into the model's context after a question of the data."""
        return self.max_new_tokens

    @property
    def shows_descriptions(self) -> bool:
        """Whether an answer is given a user's own description, beside the shots."""
        return False

    def endpoints(self) -> list[EndpointConfig]:
        """The endpoints that the training asks."""
        return []

    def of_round(self, episodes: int, **changes: Any) -> TrainingConfig:
        """The settings of one training inside a round, on so many episodes."""
        own = {name: getattr(self, name) for name in TrainingConfig.model_fields}
        return TrainingConfig.model_validate({**own, "episodes": episodes, **changes})

    def of_fine_tuning(self, episodes: int, steps: int, **changes: Any) -> TrainingConfig:
        """The settings of a training by likelihood inside a round, which no evaluation stops."""
        plain = {"objective": "pref-ft", "steps": steps, "warmup": min(self.warmup, steps - 1), "evaluate_every": 0}
        plain |= {"keep_best": False, "patience": 0, "precompute_reference": False, "reduction": "sum"}
        plain |= {"label_smoothing": 0.0, "length_weight": 0.0, "pref_ft_weight": 0.0}
        return self.of_round(episodes, **plain, **changes)

    @model_validator(mode="after")
    def _plain(self) -> Self:
        """A round's pairs are one answer against another, after all shots; nothing is known of swapped labels."""
        wrong = {
            "mirror": (self.mirrors, "a model's own answers tell nothing of swapped labels"),
            "describe": (self.describe != "none", "rounds show no description"),
            "ladder": (self.ladder is not None, "answers are written after all shots"),
            "responses": (self.responses > 2, "a round compares two responses"),
        }
        for name, (given, why) in wrong.items():
            if given:
                raise ValueError(f"{name}: {why}; set it for other methods only")
        return self


def in_rounds(make: Callable[[Round], Pairs]) -> Callable[[Job], Path]:
    """Trains a method in rounds; `make` gives the pairs that a round is trained on (`fspo.methods.rounds.play`)."""

    def train(job: Job) -> Path:
        from fspo.methods.rounds import play

        return play(job, make)

    return train
