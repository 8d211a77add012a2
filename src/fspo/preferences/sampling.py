"""Episodes drawn from a dataset: N shots, then K queries of the same user that share nothing with them."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from fspo.errors import DataError
from fspo.preferences.dataset import PreferenceDataset, unknown
from fspo.preferences.types import Episode, Preference
from fspo.preferences.wording import wording
from fspo.printing import counted

__all__ = [
    "Balance",
    "EpisodeSampler",
    "ShortUser",
    "TooFewPreferences",
    "check_no_leak",
    "connected",
    "related",
    "short_users_said",
    "shots_beside",
]

T = TypeVar("T")

Balance = Literal["users", "preferences"]
"""How often a user's turn comes in a round: once, or in proportion to how many preferences it has."""

_Group = tuple[Preference, ...]
"""Preferences of one user linked by a question, a prompt or a response pair; shots and queries never divide a group."""


@dataclass(frozen=True)
class ShortUser:
    """A user with too few preferences for an episode."""

    user: str
    preferences: int
    unrelated: int
    """How many of the preferences share no question, prompt or response pair with one another."""


def short_users_said(short: Sequence[ShortUser], of: str) -> list[str]:
    """A line on the users who were left out of a part of the data, if there are any."""
    users = counted(len(short), "users")
    return [f"Left out of {of}: {users} with too few preferences for an episode."] if short else []


class TooFewPreferences(DataError):
    """Users have too few preferences for an episode.

    Attributes:
        facts: the sentence on who is short, without what can be done about it.
        short: the users.
        needed: how many preferences an episode needs.
        everybody: whether nobody has enough.
    """

    def __init__(self, facts: str, short: tuple[ShortUser, ...], needed: int, *, everybody: bool) -> None:
        """Say what can be done where nobody says it better."""
        more = "or give the users more preferences"
        if not everybody:
            more = "give the users more preferences, or set skip_short_users to leave them out"
        super().__init__(f"{facts} Ask for fewer shots or queries, {more}.")
        self.facts, self.short, self.needed, self.everybody = facts, short, needed, everybody

    def with_facts(self, *more: str) -> TooFewPreferences:
        """The same error with more sentences of facts."""
        return TooFewPreferences(" ".join([self.facts, *more]), self.short, self.needed, everybody=self.everybody)


class EpisodeSampler:
    """Draws episodes; `episode(i)` depends on the dataset, the settings and `i` alone, so that a stream can be resumed.

    Users take turns in rounds, each in an order shuffled by the seed. Within a user questions are drawn uniformly, and
    no two preferences of an episode share a question as long as the user has enough of them. A shot and a query never
    share a question, a prompt or a response pair.

    Attributes:
        users: the users episodes are drawn for, in the order of the dataset.
        skipped: the users left out because they have too few preferences.
    """

    def __init__(
        self,
        dataset: PreferenceDataset,
        *,
        shots: int,
        queries: int,
        seed: int,
        users: Collection[str] | None = None,
        balance: Balance = "users",
        skip_short_users: bool = False,
    ) -> None:
        """Prepare the draws.

        Args:
            dataset: where preferences come from.
            shots: N, labelled preferences in context; zero or more.
            queries: K, held-out preferences; one or more.
            seed: same dataset, settings and seed, same episodes, on every machine.
            users: draw for these users only; all by default.
            balance: give each user the same number of episodes, or more to those with more preferences.
            skip_short_users: leave users with too few preferences out, and list them in `skipped`.

        Raises:
            DataError: a user has too few preferences (naming what it has and needs), or nobody has enough.
        """
        if shots < 0 or queries < 1:
            raise DataError(f"An episode needs zero or more shots and at least one query, not {shots} and {queries}.")
        self.dataset, self.shots, self.queries, self.seed = dataset, shots, queries, seed
        for user in users or ():
            if user not in dataset.users:
                raise unknown("user", user, dataset.users)
        wanted = [user for user in dataset.users if users is None or user in users]
        self._groups = {user: connected(dataset.of_user(user), _links) for user in wanted}
        short = [self._short(user) for user in wanted if not _sides(self._groups[user], shots, queries)]
        if short and not skip_short_users:
            raise self._too_few(short)
        self.skipped: tuple[ShortUser, ...] = tuple(short)
        left_out = {user.user for user in short}
        self.users: tuple[str, ...] = tuple(user for user in wanted if user not in left_out)
        if not self.users:
            raise DataError(
                f"No user has enough preferences for {shots} shots and {queries} queries"
                + (f": all {len(short)} are too short." if short else ": there are no users.")
            )
        self._turns = self._one_round(balance)
        self._latest: tuple[int, list[str]] = (-1, [])

    def episode(self, i: int) -> Episode:
        """The i-th episode of the endless stream (from 0)."""
        if i < 0:
            raise DataError(f"Episodes are counted from 0, not {i}.")
        number, turn = divmod(i, len(self._turns))
        return self._draw(self._round(number)[turn], f"{i}")

    def stream(self, start: int = 0) -> Iterator[Episode]:
        """All episodes from `start` on, without end."""
        while True:
            yield self.episode(start)
            start += 1

    def fixed(self, user: str, count: int) -> tuple[Episode, ...]:
        """The first `count` of a user's own episodes, for evaluation: they don't depend on which other users there are.

        Where the user has enough unrelated questions, each of them is queried once before any is queried again.

        Raises:
            DataError: the user is unknown, or has too few preferences.
        """
        if user not in self._groups:
            raise unknown("user", user, self._groups)
        if not _sides(self._groups[user], self.shots, self.queries):
            raise self._too_few([self._short(user)])
        return tuple(self._fixed_episode(user, number) for number in range(count))

    def shots_of(self, user: str, episode: Episode) -> Episode:
        """The episode's queries, given as many shots of another user: what the user-swap drop needs.

        The new shots share neither question nor prompt nor response pair with the queries, and the description stays
        that of the episode's own user.

        Raises:
            DataError: the other user has too few such preferences.
        """
        taken = _links(*episode.queries)
        own = self.dataset.of_user(user)
        groups = [group for group in connected(own, _links) if taken.isdisjoint(_links(*group))]
        needed = len(episode.shots)
        if (there := sum(map(len, groups))) < needed:
            raise DataError(
                f"User '{user}' has {counted(there, 'preferences')} that share nothing with the queries of this "
                f"episode of user '{episode.user}', and {needed} are needed."
            )
        rng = self._rng("swap", user, episode.user, *(query.prompt for query in episode.queries))
        return episode.with_shots(_take(_shuffled(groups, rng), needed, rng))

    def _rng(self, *parts: object) -> random.Random:
        # Seeding from a string and random() itself are what Python promises to keep the same from version to version.
        return random.Random(repr((self.seed, self.shots, self.queries, *map(str, parts))))

    def _one_round(self, balance: Balance) -> tuple[str, ...]:
        if balance == "users":
            return self.users
        if balance != "preferences":
            raise DataError(f"Episodes are balanced by 'users' or by 'preferences', not by '{balance}'.")
        size = self.shots + self.queries
        return tuple(user for user in self.users for _ in range(-(-len(self.dataset.of_user(user)) // size)))

    def _round(self, number: int) -> list[str]:
        if self._latest[0] != number:
            self._latest = number, _shuffled(self._turns, self._rng("round", number))
        return self._latest[1]

    def _draw(self, user: str, key: str) -> Episode:
        rng = self._rng("episode", user, key)
        groups = self._groups[user]
        if len(groups) >= self.shots + self.queries:
            drawn = _some(groups, self.shots + self.queries, rng)
            picked = tuple(_one(group, rng) for group in drawn)
            return self._episode(user, picked[: self.shots], picked[self.shots :])
        sides = _sides(_shuffled(groups, rng), self.shots, self.queries)
        if sides is None:
            raise self._too_few([self._short(user)])
        return self._episode(user, _take(sides[0], self.shots, rng), _take(sides[1], self.queries, rng))

    def _fixed_episode(self, user: str, number: int) -> Episode:
        groups = self._groups[user]
        if len(groups) < self.shots + self.queries:
            return self._draw(user, f"fixed {number}")
        turn = self._rng("fixed", user)
        order = [_shuffled(group, turn) for group in _shuffled(groups, turn)]
        places = range(number * self.queries, (number + 1) * self.queries)
        queried = {place % len(order): place // len(order) for place in places}
        queries = tuple(order[index][lap % len(order[index])] for index, lap in queried.items())
        rng = self._rng("fixed", user, number)
        rest = [group for index, group in enumerate(order) if index not in queried]
        return self._episode(user, tuple(_one(group, rng) for group in _some(rest, self.shots, rng)), queries)

    def _episode(self, user: str, shots: tuple[Preference, ...], queries: tuple[Preference, ...]) -> Episode:
        if not _links(*shots).isdisjoint(_links(*queries)):
            raise DataError(f"An episode of user '{user}' would show a query among its shots, which is a leak.")
        return Episode(user, shots, queries, self.dataset.users[user].description)

    def _short(self, user: str) -> ShortUser:
        return ShortUser(user, len(self.dataset.of_user(user)), len(self._groups[user]))

    def _too_few(self, short: Sequence[ShortUser]) -> TooFewPreferences:
        first, needed = short[0], self.shots + self.queries
        more = f"{len(short) - 1:,} more users have" if len(short) > 2 else "one more user has"
        others = f"; {more} too few" if len(short) > 1 else ""
        own, asked = counted(first.preferences, "preferences"), "query" if self.queries == 1 else "queries"
        facts = (
            f"User '{first.user}' has {own} on {counted(first.unrelated, 'questions')}, and an episode of "
            f"{counted(self.shots, 'shots')} and {self.queries} {asked} needs {needed}, with its queries on other "
            f"questions than its shots{others}. Questions with the same prompt or the same two responses count as one."
        )
        return TooFewPreferences(facts, tuple(short), needed, everybody=len(short) == len(self._groups))


def check_no_leak(train: PreferenceDataset, test: PreferenceDataset, *, name: str = "test") -> None:
    """Check that nothing held out was trained on: no user, no question and no prompt is in both; `name` is the part's.

    Prompts that differ only in blanks, case or Unicode form are the same.

    Raises:
        DataError: naming the first thing that is in both, and how many more there are.
    """
    trained, tested = ({wording(row.prompt): row.prompt for row in part} for part in (train, test))
    shared: dict[str, dict[str, str]] = {
        "User": {user: "" for user in train.users if user in test.users},
        "Question": dict.fromkeys(set(train.questions()).intersection(test.questions()), ""),
        "Prompt": {trained[same]: tested[same] for same in trained.keys() & tested.keys()},
    }
    for kind, both in shared.items():
        if both:
            first = min(both)
            more = f" ({len(both) - 1} more like it)" if len(both) > 1 else ""
            other = both[first] if both[first] != first else ""
            spelt = f" (there as {other!r}: blanks, case and Unicode form make no other question)" if other else ""
            raise DataError(
                f"{kind} {first!r} is in training data and {name} data alike{spelt}, which is a leak{more}; "
                "divide the data again with `fspo data split --overwrite`, or leave it out of one part."
            )


def shots_beside(prompt: str, preferences: Iterable[Preference], count: int) -> tuple[Preference, ...]:
    """The first `count` of a user's preferences, of as many questions as possible, none of them on `prompt` itself."""
    seen: dict[str, int] = {}
    ranked, asked = [], wording(prompt)
    for index, preference in enumerate(preferences):
        if wording(preference.prompt) != asked:
            turn = seen[preference.question_key] = seen.get(preference.question_key, -1) + 1
            ranked.append((turn, index, preference))
    return tuple(preference for _, _, preference in sorted(ranked, key=lambda row: row[:2])[:count])


def related(first: Preference, second: Preference) -> bool:
    """Whether they share a question, a prompt or a response pair: neither is a shot where the other is asked."""
    return not _links(first).isdisjoint(_links(second))


def _links(*preferences: Preference) -> set[tuple[str, object]]:
    """What must not be shared between shots and queries: questions, prompts, response pairs."""
    return {
        link
        for preference in preferences
        for link in (
            ("question", preference.question_key),
            ("prompt", wording(preference.prompt)),
            ("pair", preference.pair),
        )
    }


def connected(rows: Sequence[T], links: Callable[[T], Iterable[Hashable]]) -> list[tuple[T, ...]]:
    """The rows in groups without a link in common (connected components); groups and rows in order of appearance."""
    parent: dict[Hashable, Hashable] = {}

    def root(link: Hashable) -> Hashable:
        while parent.setdefault(link, link) != link:
            parent[link] = parent[parent[link]]
            link = parent[link]
        return link

    firsts = []
    for row in rows:
        first, *others = links(row)
        for other in others:
            parent[root(other)] = root(first)
        firsts.append(first)
    groups: dict[Hashable, list[T]] = {}
    for row, first in zip(rows, firsts, strict=True):
        groups.setdefault(root(first), []).append(row)
    return list(map(tuple, groups.values()))


def _sides(groups: Sequence[_Group], shots: int, queries: int) -> tuple[list[_Group], list[_Group]] | None:
    """Divide whole groups so that one side has enough preferences for the shots and the other for the queries.

    None if that can't be done. Which groups go where follows their order, so a shuffled order gives a random division.
    """
    total = sum(map(len, groups))
    if total < shots + queries:
        return None
    if shots == 0:
        return [], list(groups)
    # reached[size] is the index of the last group of a set of groups that has `size` preferences.
    reached: dict[int, int] = {0: -1}
    for index, group in enumerate(groups):
        for size in sorted(reached, reverse=True):
            grown = size + len(group)
            if grown not in reached and grown <= total - queries:
                reached[grown] = index
        if max(reached) >= shots:
            break
    size = max(reached)
    if size < shots:
        return None
    inside = set()
    while size:
        inside.add(reached[size])
        size -= len(groups[reached[size]])
    return (
        [group for index, group in enumerate(groups) if index in inside],
        [group for index, group in enumerate(groups) if index not in inside],
    )


def _take(groups: Sequence[Sequence[Preference]], count: int, rng: random.Random) -> tuple[Preference, ...]:
    """Draw preferences without repetition, from as many groups as possible."""
    piles = [_shuffled(group, rng) for group in _shuffled(groups, rng)]
    taken: list[Preference] = []
    while len(taken) < count:
        for pile in piles:
            if pile and len(taken) < count:
                taken.append(pile.pop())
    return tuple(_shuffled(taken, rng))


def _below(limit: int, rng: random.Random) -> int:
    return int(rng.random() * limit)


def _one(items: Sequence[T], rng: random.Random) -> T:
    return items[_below(len(items), rng)]


def _some(items: Sequence[T], count: int, rng: random.Random) -> list[T]:
    """Draw `count` different items in random order (Fisher-Yates, touching only what is drawn)."""
    moved: dict[int, int] = {}
    drawn = []
    for place in range(count):
        other = place + _below(len(items) - place, rng)
        drawn.append(items[moved.get(other, other)])
        moved[other] = moved.get(place, place)
    return drawn


def _shuffled(items: Sequence[T], rng: random.Random) -> list[T]:
    return _some(items, len(items), rng)
