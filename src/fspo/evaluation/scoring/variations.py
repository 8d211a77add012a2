"""The same queries given shots that are harder to learn from: of other topics, with wrong labels, in another order."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from fspo.errors import DataError
from fspo.evaluation.config import EvaluationConfig, percent
from fspo.evaluation.scoring.eval_episodes import Pass, Trial, first_trials, texts_of
from fspo.identity import digest
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import EpisodeSampler
from fspo.preferences.types import Episode, Preference

__all__ = ["OTHER_TOPICS", "Probe", "Trim", "build_probes", "one_wrong", "order", "topic_of", "wrong_labels"]

OTHER_TOPICS = "other-topics"
"""The condition under which no shot is of a topic that is asked about."""

Trim = Callable[[Episode], tuple[Episode, int]]
"""Takes away the shots that there is no room for."""


def wrong_labels(share: float) -> str:
    """The condition under which this share of the labels is wrong."""
    return f"wrong-labels-{percent(share)}"


def order(number: int) -> str:
    """The condition under which the shots stand in another order, counted from 1."""
    return f"order-{number}"


def one_wrong(place: int) -> str:
    """The condition under which the label of one shot alone is wrong; the oldest shot has place 1."""
    return f"one-wrong-{place}"


@dataclass(frozen=True)
class Probe:
    """One trial that is measured under the variations."""

    trial: Trial
    elsewhere: Pass | None
    """Given shots of other topics; None where the user has too few, or the data name no topics."""

    def variations(self, config: EvaluationConfig, trim: Trim = lambda episode: (episode, 0)) -> list[Pass]:
        """Every condition; what `trim` takes away is gone before labels or order are changed."""
        own, _ = trim(self.trial.own)
        few = replace(own, queries=own.queries[: config.robustness.queries])
        numbers = tuple(range(len(few.queries)))
        found = [
            Pass(condition, few.with_shots(shots), (config.shots,), numbers)
            for condition, shots in _changed(own.shots, f"{config.seed}/{self.trial.id}", config)
        ]
        if self.elsewhere is not None:
            found.insert(0, replace(self.elsewhere, episode=trim(self.elsewhere.episode)[0]))
        if config.headline_reward == "antisymmetric":
            found += [variation.mirrored for variation in found]
        if config.robustness.single_shots:
            found += [
                Pass(one_wrong(place), few.with_shots(_swapped(own.shots, {place - 1})), (config.shots,), numbers)
                for place in range(1, len(own.shots) + 1)
            ]
        return found

    def key(self, config: EvaluationConfig) -> str:
        """A digest of everything that is shown."""
        rows = [[v.condition, v.numbers, texts_of(v.episode.shots)] for v in self.variations(config)]
        return f"{self.trial.key}/{digest(rows)}"


def build_probes(dataset: PreferenceDataset, trials: Sequence[Trial], config: EvaluationConfig) -> list[Probe]:
    """The first episode of each of the users chosen for this, a pure function of dataset and configuration."""
    first = first_trials(dataset, trials, config.robustness.users, config.seed)
    return [Probe(trial, _elsewhere(dataset, trial, config)) for trial in first]


def topic_of(preference: Preference) -> str:
    """What a preference is about, as its source says; else the kind in an id such as `film/arrival/0`; else empty."""
    topic = preference.source.get("topic")
    if isinstance(topic, str) and topic:
        return topic
    parts = preference.question.split("/")
    return parts[0] if len(parts) > 2 and all(parts) else ""


def _changed(
    shots: Sequence[Preference], seed: str, config: EvaluationConfig
) -> list[tuple[str, tuple[Preference, ...]]]:
    """Condition -> the same shots, with wrong labels or in another order."""
    found = []
    # One order for all shares: what is wrong among 10% is wrong among 25% too.
    places = _shuffled(len(shots), f"{seed}/wrong")
    for share in config.wrong_labels:
        wrong = set(places[: max(1, round(share * len(shots)))])
        found.append((wrong_labels(share), _swapped(shots, wrong)))
    for number in range(1, config.robustness.orders + 1 if len(shots) > 1 else 0):
        places = _shuffled(len(shots), f"{seed}/order/{number}")
        if places == list(range(len(shots))):
            places.reverse()
        found.append((order(number), tuple(shots[place] for place in places)))
    return found


def _swapped(shots: Sequence[Preference], places: Collection[int]) -> tuple[Preference, ...]:
    """The shots, those at these places with the wrong label."""
    return tuple(shot.swap() if place in places else shot for place, shot in enumerate(shots))


def _elsewhere(dataset: PreferenceDataset, trial: Trial, config: EvaluationConfig) -> Pass | None:
    """The first queries given shots of none of their topics; queries whose topic leaves too few shots are left out."""
    own = dataset.of_user(trial.user)
    if not config.robustness.other_topics or len({topic_of(row) for row in own} - {""}) < 2:
        return None
    found, taken, barred = None, [], set[str]()
    for number, query in enumerate(trial.own.queries[: config.robustness.queries]):
        topic = topic_of(query)
        if not topic:
            continue
        if topic not in barred or found is None:
            tried = _shots_beside(dataset, trial, barred | {topic}, config)
            if tried is None:
                continue
            found, barred = tried, barred | {topic}
        taken.append(number)
    if found is None:
        return None
    queries = tuple(trial.own.queries[number] for number in taken)
    return Pass(OTHER_TOPICS, replace(trial.own, shots=found, queries=queries), (config.shots,), tuple(taken))


def _shots_beside(
    dataset: PreferenceDataset, trial: Trial, barred: set[str], config: EvaluationConfig
) -> tuple[Preference, ...] | None:
    """As many shots as the trial has, of other topics and sharing nothing with its queries; None if there are fewer."""
    rest = [row for row in dataset.of_user(trial.user) if topic_of(row) and topic_of(row) not in barred]
    if len(rest) < len(trial.own.shots):
        return None
    part = PreferenceDataset({trial.user: dataset.users[trial.user]}, rest)
    sampler = EpisodeSampler(part, shots=0, queries=1, seed=config.seed)
    try:
        return sampler.shots_of(trial.user, trial.own).shots
    except DataError:
        return None


def _shuffled(count: int, seed: str) -> list[int]:
    # random() itself is what Python promises to keep the same from version to version.
    rng = random.Random(seed)
    return sorted(range(count), key=lambda _: rng.random())
