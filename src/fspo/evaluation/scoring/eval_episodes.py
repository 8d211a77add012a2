"""The episodes that are evaluated: a held-out user's shots and queries, and another user's shots for these queries."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fspo.errors import DataError
from fspo.evaluation.config import EvaluationConfig
from fspo.identity import digest, draw_by
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import EpisodeSampler, ShortUser
from fspo.preferences.types import Episode, Preference, User

__all__ = [
    "Condition",
    "Item",
    "Pass",
    "Trial",
    "build_trials",
    "cosine",
    "donors",
    "first_trials",
    "mirror_of",
    "pick_users",
    "query_number",
    "short_users",
    "tendency",
    "texts_of",
    "trial_of",
]

Item = tuple[str, str]
"""A user and the id of one of their queries."""

Condition = str
"""Which shots, and whether their labels are flipped: own, flipped, swapped, swapped-flipped, or a variation's."""

_FLIPPED = "-flipped"


@dataclass(frozen=True)
class Trial:
    """One episode of a held-out user, and the same queries given a donor's shots where a donor was found."""

    id: str
    own: Episode
    swapped: Episode | None = None
    donor: str = ""

    @property
    def user(self) -> str:
        """Whose queries they are."""
        return self.own.user

    @property
    def key(self) -> str:
        """A digest of the contents: scores of other contents are never taken for these."""
        texts, swapped = (
            texts_of((*self.own.shots, *self.own.queries)),
            texts_of(self.swapped.shots if self.swapped else ()),
        )
        described = [self.own.description, self.swapped.description if self.swapped else ""]
        return digest([self.id, texts, swapped, described])

    def first(self, shots: int) -> Trial:
        """The same queries given the first shots alone."""
        return replace(self, own=self.own.with_shots(self.own.shots[:shots]))

    def item(self, query: int) -> str:
        """The id of one query, unique over users and episodes."""
        return f"{self.id}/{query}"


@dataclass(frozen=True)
class Pass:
    """One condition of a trial, and what is scored under it."""

    condition: Condition
    episode: Episode
    rungs: tuple[int, ...]
    """The shot counts, the full one last."""
    numbers: tuple[int, ...]
    """Which of the trial's queries the episode has."""

    @property
    def mirrored(self) -> Pass:
        """The same with flipped labels."""
        return replace(self, condition=mirror_of(self.condition), episode=self.episode.flip_shots())

    def by_rung(self, few: int | None) -> list[Pass]:
        """A pass for each shot count; below the full one with the first `few` queries alone."""
        found = []
        for k in self.rungs:
            count = few if k < self.rungs[-1] else None
            episode = replace(self.episode.first_shots(k), queries=self.episode.queries[:count])
            found.append(Pass(self.condition, episode, (k,), self.numbers[:count]))
        return found


def mirror_of(condition: Condition) -> Condition:
    """The condition whose shots are the same with flipped labels."""
    if condition in ("own", "flipped"):
        return "flipped" if condition == "own" else "own"
    return condition.removesuffix(_FLIPPED) if condition.endswith(_FLIPPED) else condition + _FLIPPED


def texts_of(preferences: Iterable[Preference]) -> list[list[str]]:
    """Prompt, chosen and rejected response of each, which a digest is of."""
    return [[row.prompt, row.chosen, row.rejected] for row in preferences]


def query_number(item: str) -> int:
    """The number of the query in its episode, from an item's id."""
    return int(item.rpartition("/")[2])


def build_trials(dataset: PreferenceDataset, config: EvaluationConfig) -> list[Trial]:
    """The trials of every evaluated user, a pure function of dataset and configuration.

    Raises:
        DataError: a user has too few preferences for the requested shots and queries.
    """
    short = {user.user for user in short_users(dataset, config)}
    users = pick_users(dataset, config.users, config.seed, dataset.users.keys() - short)
    sampler = EpisodeSampler(
        dataset, shots=config.shots, queries=config.queries, seed=config.seed, users=[user.id for user in users]
    )
    trials = []
    for user in users:
        for index, episode in enumerate(sampler.fixed(user.id, config.episodes)):
            trials.append(trial_of(sampler, episode, index, config))
    return trials


def short_users(dataset: PreferenceDataset, config: EvaluationConfig) -> tuple[ShortUser, ...]:
    """The users who are left out for too few preferences; nobody where the settings refuse such users.

    Raises:
        DataError: nobody would be left.
    """
    if not config.skip_short_users:
        return ()
    sampler = EpisodeSampler(
        dataset,
        shots=config.shots,
        queries=config.queries,
        seed=config.seed,
        users=_users(dataset),
        skip_short_users=True,
    )
    return sampler.skipped


def trial_of(sampler: EpisodeSampler, episode: Episode, index: int, config: EvaluationConfig) -> Trial:
    """The trial of an episode, which is the user's number `index`; donors come from the sampler's dataset."""
    swapped, donor = _with_donor(sampler, episode, index, config.seed) if config.user_swap else (None, "")
    return Trial(f"{episode.user}/{index}", episode, swapped, donor)


def first_trials(dataset: PreferenceDataset, trials: Sequence[Trial], users: int | None, seed: int) -> list[Trial]:
    """The first trial of each of at most so many evaluated users."""
    chosen = {user.id for user in pick_users(dataset, users, seed, {trial.user for trial in trials})}
    first: dict[str, Trial] = {}
    for trial in trials:
        if trial.user in chosen:
            first.setdefault(trial.user, trial)
    return list(first.values())


def pick_users(
    dataset: PreferenceDataset, count: int | None, seed: int, among: Container[str] | None = None
) -> list[User]:
    """At most `count` users with preferences, drawn from their groups in turn: of as many groups as can be.

    Which groups come first is drawn too. `among`: the ids of those who may be drawn; by default all.
    """
    active = {user for user in _users(dataset) if among is None or user in among}
    users = [user for user in dataset.users.values() if user.id in active]
    if count is None or count >= len(users):
        return users
    groups: dict[str, list[User]] = defaultdict(list)
    for user in sorted(users, key=lambda user: draw_by(seed, user.id)):
        groups[user.group].append(user)
    rounds = [(place, draw_by(seed, "group", name), name) for name in groups for place in range(len(groups[name]))]
    chosen = {groups[name][place].id for place, _, name in sorted(rounds)[:count]}
    return [user for user in users if user.id in chosen]


def tendency(first: User, second: User) -> float | None:
    """How alike two users judge: the cosine of their traits; None where either has none."""
    return cosine(first.traits, second.traits)


def cosine(first: Mapping[str, float], second: Mapping[str, float]) -> float | None:
    """The cosine of two vectors by name, where a missing name is 0; None where either has no length."""
    lengths = math.hypot(*first.values()) * math.hypot(*second.values())
    return math.fsum(value * second.get(name, 0.0) for name, value in first.items()) / lengths if lengths else None


def donors(user: User, dataset: PreferenceDataset, seed: int, salt: str = "") -> list[User]:
    """The other users in the order in which they are asked for shots.

    First those of a differing tendency (cosine of traits at most 0; users without traits count as differing), then the
    rest from the least alike on; within either, a draw by the seed.
    """
    active = _users(dataset)
    others = [other for other in dataset.users.values() if other.id != user.id and other.id in active]

    def rank(other: User) -> tuple[float, str]:
        alike = tendency(user, other)
        return (max(0.0, round(alike, 6)) if alike is not None else 0.0, draw_by(seed, salt, user.id, other.id))

    return sorted(others, key=rank)


def _with_donor(sampler: EpisodeSampler, episode: Episode, index: int, seed: int) -> tuple[Episode | None, str]:
    """The same queries given another user's shots, and whose they are; None and empty where nobody has enough."""
    user = sampler.dataset.users[episode.user]
    for donor in donors(user, sampler.dataset, seed, str(index)):
        try:
            given = sampler.shots_of(donor.id, episode)
        except DataError:
            continue  # too few preferences beside the queries: the next one is asked
        return replace(given, description=donor.description), donor.id
    return None, ""


def _users(dataset: PreferenceDataset) -> set[str]:
    return {preference.user for preference in dataset.preferences}
