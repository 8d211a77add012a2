"""How much a training's model reads, and the preferences that it can't read whole."""

from __future__ import annotations

from typing import Any

from fspo.modeling.fitting import AROUND_DESCRIPTION, Fitted, Room, fitted
from fspo.modeling.loading import reading_limit
from fspo.modeling.rendering import EpisodeRenderer
from fspo.preferences.dataset import PreferenceDataset
from fspo.training.config import TrainingConfig

__all__ = ["fitted_for", "max_length_of"]


def fitted_for(config: TrainingConfig, dataset: PreferenceDataset, renderer: EpisodeRenderer, **named: Any) -> Fitted:
    """The preferences of `dataset` that a training can read whole; `named` as for `fitted`.

    Raises:
        DataError: there are others, and `long_rows` refuses these.
    """
    room = Room(
        renderer,
        drafted=config.description_tokens + AROUND_DESCRIPTION if config.describe == "own" else 0,
        learns_description=config.describe == "gold",
    )
    return fitted(dataset, [room], config.long_rows, **{"setting": "long_rows", "file": "The training part", **named})


def max_length_of(config: TrainingConfig, context: int | None) -> int | None:
    """Most tokens before and in a response, for a model that reads so many; None for no limit.

    Raises:
        ConfigError: the settings ask for more than the model reads.
    """
    return reading_limit(config.max_length, context, "training ")
