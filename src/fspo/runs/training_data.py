"""What a run's methods are trained on: the training part of its data, and those of the datasets in `also_train`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from fspo.errors import ConfigError, DataError
from fspo.identity import digest
from fspo.judging.by_topic import load_judge
from fspo.judging.observer import Observer, prior_of
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.splits import Splits
from fspo.preferences.types import Episode, Preference
from fspo.runs.config import RunConfig
from fspo.runs.folder import RunFolder

__all__ = ["ObserverBySource", "TrainingPart", "merged", "observer_of", "other_parts", "row_numbers", "training_parts"]


@dataclass(frozen=True)
class TrainingPart:
    """The training part of one dataset."""

    folder: Path
    """The dataset's; for errors, and for its `judge.json`."""
    whole: PreferenceDataset
    train: PreferenceDataset


def training_parts(folder: RunFolder, dataset: PreferenceDataset, splits: Splits) -> list[TrainingPart]:
    """The training part of the run's `dataset` first, then those of `also_train` in their order.

    Raises:
        ConfigError: a folder in `also_train` is not divided into parts.
        DataError: one of them holds no dataset.
    """
    return [TrainingPart(folder.data, dataset, splits.part(dataset, "train")), *other_parts(folder.config)]


def other_parts(config: RunConfig) -> list[TrainingPart]:
    """The training parts of `also_train` alone.

    Raises:
        ConfigError: a folder is not divided into parts.
        DataError: a folder holds no dataset.
    """
    parts = []
    for place in config.also_train:
        if not place.exists():
            raise ConfigError(
                f"also_train: there is no folder {place}; make it with `fspo synth {_maker(place)}`, or correct the "
                "path."
            )
        if not (place / "splits.json").is_file():
            raise ConfigError(
                f"also_train: {place} has no splits.json, so its held-out part is unknown; split it with "
                "`fspo data split`."
            )
        other = PreferenceDataset.load(place)
        parts.append(TrainingPart(place, other, Splits.load(place / "splits.json").part(other, "train")))
    return parts


def _maker(place: Path) -> str:
    """The configuration that makes the data of `runs/NAME/data`, where the repository has one of that name."""
    file = Path("configs") / f"{place.parent.name}.yaml"
    return str(file) if place.name == "data" and file.is_file() else "CONFIG"


def merged(parts: Sequence[TrainingPart]) -> PreferenceDataset:
    """All training parts in one dataset.

    Raises:
        DataError: two of them know different users by one id.
    """
    try:
        return reduce(PreferenceDataset.merge, (part.train for part in parts))
    except DataError as error:
        raise DataError(f"also_train: {error}") from error


def row_numbers(*datasets: PreferenceDataset) -> Callable[[Preference], int]:
    """Gives the row of a preference in the file of its dataset, from 1; parts of a dataset hold the same objects."""
    numbers = {id(row): number for dataset in datasets for number, row in enumerate(dataset, 1)}
    return lambda preference: numbers[id(preference)]


class ObserverBySource:
    """An ideal observer for each dataset, asked about the users of its own."""

    def __init__(self, observers: Sequence[tuple[PreferenceDataset, Observer]]) -> None:
        """Take the users of each dataset, and who observes them."""
        self._of = {user: observer for dataset, observer in observers for user in dataset.users}
        self.identity = digest([observer.identity for _, observer in observers])

    def log_odds(self, episode: Episode, k: int, responses: Sequence[Sequence[str]] = ()) -> list[list[float]]:
        """For each query, and each two of its responses, the log-odds after the first `k` shots, in nats."""
        return self._of[episode.user].log_odds(episode, k, responses)


def observer_of(parts: Sequence[TrainingPart], method: str, seed: int) -> ObserverBySource:
    """Observers for whom any user of the same training part might have given the shots.

    Raises:
        ConfigError: users have no traits, or it is not known how they judge; `method` is whose target it is.
    """
    observers = []
    for part in parts:
        path, users = part.folder / "judge.json", list(part.train.users.values())
        why = "" if path.is_file() else f"{path} is missing"
        why = why if all(user.traits for user in users) else f"some users of {part.folder} have no traits"
        if why:
            raise ConfigError(
                f"training.{method}.target: the observer needs users with known traits and the judge that labelled for "
                f"them, and {why}; set a number of nats."
            )
        judge: Any = load_judge(path)
        _, prior = prior_of("trained", users, users, seed)
        observers.append((part.train, Observer(prior, judge, margin=judge.margin)))
    return ObserverBySource(observers)
