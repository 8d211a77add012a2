"""The episodes of a benchmark: drawn as in any evaluation, or along the parts that its rows name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fspo.errors import DataError
from fspo.evaluation.benchmarks.benchmark import Protocol
from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.scoring.eval_episodes import Trial, pick_users, trial_of
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import EpisodeSampler
from fspo.preferences.types import Episode, Preference

__all__ = ["Episodes", "build_episodes"]

_SHOWN, _ASKED = frozenset({"train", "val", "validation", "context"}), frozenset({"test", "target"})
"""What rows call the pairs of a user that may be shown, and those that are asked."""


@dataclass(frozen=True)
class Episodes:
    """What a benchmark measures on, and who was left out of it."""

    trials: tuple[Trial, ...]
    short: int
    """Users with too few preferences."""
    limited: int
    """Users beyond the number asked for."""


def build_episodes(dataset: PreferenceDataset, protocol: Protocol, config: EvaluationConfig, *, file: str) -> Episodes:
    """The trials of every user that has enough preferences, a pure function of dataset, protocol and settings.

    `config` says whether queries are asked given another user's shots too, and `file` what errors call the data.

    Raises:
        DataError: no user has enough preferences, or the rows do not say which of them may be shots.
    """
    if protocol.parted:
        return _parted(dataset, protocol, config, file)
    queries = protocol.queries or 1
    active = [user for user in dataset.users if dataset.of_user(user)]
    try:
        sampler = EpisodeSampler(
            dataset, shots=protocol.shots, queries=queries, seed=protocol.seed, users=active, skip_short_users=True
        )
    except DataError as error:
        raise _nobody(file, len(active), protocol, queries) from error
    chosen = _chosen(dataset, sampler.users, protocol)
    trials = [
        trial_of(sampler, episode, number, config)
        for user in chosen
        for number, episode in enumerate(sampler.fixed(user, protocol.episodes))
    ]
    return Episodes(tuple(trials), len(sampler.skipped), len(sampler.users) - len(chosen))


def _parted(dataset: PreferenceDataset, protocol: Protocol, config: EvaluationConfig, file: str) -> Episodes:
    shown = [row for row in dataset if row.source.get("split") in _SHOWN]
    asked: dict[str, list[Preference]] = {}
    for row in dataset:
        if row.source.get("split") in _ASKED:
            asked.setdefault(row.user, []).append(row)
    if not shown or not asked:
        raise DataError(
            f"{file} does not say which pairs of a user may be shown and which are asked; its column 'split' must hold "
            "'train' or 'val', and 'test'."
        )
    # Only draws shots; which queries there are, the rows say.
    sampler = EpisodeSampler(
        PreferenceDataset(dataset.users.values(), shown), shots=0, queries=1, seed=protocol.seed, skip_short_users=True
    )
    episodes: dict[str, Episode] = {}
    for user, rows in asked.items():
        wanted = tuple(rows[: protocol.queries])
        bare = Episode(user, wanted[:1] * protocol.shots, wanted, dataset.users[user].description)
        try:
            # In the place of as many shots: those of the user's own that share nothing with the queries.
            episodes[user] = sampler.shots_of(user, bare)
        except DataError:
            continue
    if not episodes:
        raise _nobody(file, len(asked), protocol, 1)
    chosen = _chosen(dataset, episodes, protocol)
    trials = [trial_of(sampler, episodes[user], 0, config) for user in chosen]
    return Episodes(tuple(trials), len(asked) - len(episodes), len(episodes) - len(chosen))


def _chosen(dataset: PreferenceDataset, users: Iterable[str], protocol: Protocol) -> list[str]:
    able = dataset.select(users=set(users))
    return [user.id for user in pick_users(able, protocol.users, protocol.seed)]


def _nobody(file: str, users: int, protocol: Protocol, queries: int) -> DataError:
    return DataError(
        f"None of the {users} users of {file} has enough preferences for {protocol.shots} shots and "
        f"{queries} quer{'y' if queries == 1 else 'ies'} on other questions; lower the benchmark's shots or queries."
    )
