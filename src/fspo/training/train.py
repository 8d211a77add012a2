"""Training a policy from a dataset: one call, which continues or returns at once when it is repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from transformers import TrainerCallback

from fspo.modeling.rendering import Context
from fspo.paths import expanded
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Episode, Preference
from fspo.progress import Progress, Silent
from fspo.training.companion import Companion
from fspo.training.config import TrainingConfig
from fspo.training.resumable_training import Training
from fspo.training.start import Start
from fspo.training.steps import Observer

__all__ = ["train_policy"]


def train_policy(
    config: TrainingConfig,
    dataset: PreferenceDataset,
    *,
    model: str | Path,
    out: Path,
    context: Context = "shots",
    progress: Progress | None = None,
    validation: PreferenceDataset | None = None,
    method: str = "",
    observer: Observer | None = None,
    callbacks: Sequence[TrainerCallback | type[TrainerCallback]] = (),
    episodes: Sequence[Episode] = (),
    companion: Companion | None = None,
    row_number: Callable[[Preference], int] | None = None,
) -> Path:
    """Train a policy and write it to `out`, beside `training.json` and `metrics.jsonl`.

    Repeated with the same arguments it goes on from the newest complete checkpoint, to the same weights as without the
    interruption, or returns at once when it is finished. Called by all processes that `accelerate launch` started, it
    trains one policy with all of them, and the first of them writes.

    Args:
        config: the settings.
        dataset: the training part of a dataset.
        model: name of a model, or the folder of a policy to start from, whose weights are then the reference.
        out: folder of the policy; made if it is missing.
        context: what the model is told of the user.
        progress: told of every step.
        validation: other people's preferences, measured every `config.evaluate_every` steps and never trained on.
        method: noted in the policy.
        observer: says which effects a `target: observer` aims at.
        callbacks: of transformers; called at every event of the loop.
        episodes: train on these again and again, shuffled, and not on episodes drawn from `dataset`. The model must be
            able to read their queries whole.
        companion: weights of a method's own, trained beside the adapters.
        row_number: gives the row of a preference in its file, to say what is left out.

    Returns:
        `out`, which holds a `policy.json`.

    Raises:
        ConfigError: the settings contradict each other, or `out` holds another training.
        DataError: a user has too few preferences.
        ModelError: the model can't be had.
        TrainingError: the loss is not a number.
        StorageError: the disk is full, or another training is at work in `out`.
    """
    out = expanded(out)
    training = Training(
        config,
        dataset,
        Start(expanded(model), out),
        out,
        context,
        validation,
        method,
        observer,
        tuple(callbacks),
        tuple(episodes),
        companion,
        row_number,
    )
    if not training.is_finished():
        training.run(training.loop(), progress or Silent())
    return out
