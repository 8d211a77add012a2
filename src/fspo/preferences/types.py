"""Users, preferences and episodes: immutable values, with the verbs the field needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NoReturn

from fspo.preferences.wording import wording

__all__ = ["Episode", "Person", "Preference", "Split", "User"]

Split = Literal["train", "validation", "test"]


class _FrozenDict(dict[str, Any]):
    """A dict nobody can change. Unlike a mapping proxy it can be pickled (data loader workers) and written as JSON."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("traits and source can't be changed; make a new value with dataclasses.replace")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return _FrozenDict, (dict(self),)


_EMPTY = _FrozenDict()


def _frozen(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(mapping, _FrozenDict):
        return mapping
    return _FrozenDict(mapping) if mapping else _EMPTY


@dataclass(frozen=True)
class User:
    """One person, synthetic or real: an id, an optional description, optional traits (attribute -> weight)."""

    id: str
    description: str = ""
    traits: Mapping[str, float] = field(default_factory=dict, hash=False)
    group: str = ""
    """Which kind of user this is, such as `axis` or `interpolated`; free text."""

    def __post_init__(self) -> None:
        """Freeze the traits."""
        object.__setattr__(self, "traits", _frozen(self.traits))


@dataclass(frozen=True)
class Preference:
    """One user's choice between two responses to one prompt, with where it came from."""

    user: str
    prompt: str
    chosen: str
    rejected: str
    question: str = ""
    """Id of the question; preferences with one question never straddle a split. Empty: the prompt is its own id."""
    source: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Freeze the source."""
        object.__setattr__(self, "source", _frozen(self.source))

    @property
    def question_id(self) -> str:
        """The question's id, which is the prompt itself where none was given."""
        return self.question or self.prompt

    @property
    def same_question(self) -> str:
        """What preferences on one question have in common: the id, or the wording of the prompt where none was given.

        So prompts that differ only in blanks, case or Unicode form are one question; see `fspo.preferences.wording`.
        """
        return self.question or wording(self.prompt)

    @property
    def pair(self) -> frozenset[str]:
        """The two responses, whichever was chosen."""
        return frozenset((self.chosen, self.rejected))

    def swap(self) -> Preference:
        """The same contents with the opposite label."""
        return replace(self, chosen=self.rejected, rejected=self.chosen)


@dataclass(frozen=True)
class Person:
    """What a model may see of one user: their labelled preferences, the oldest first, and a description."""

    shots: tuple[Preference, ...] = ()
    description: str = ""


@dataclass(frozen=True)
class Episode:
    """One user, N shots, K queries: the unit of meta-learning (FSPO, arXiv 2502.19312)."""

    user: str
    shots: tuple[Preference, ...]
    queries: tuple[Preference, ...]
    description: str = ""

    def mirror(self) -> Episode:
        """The same contents with every label swapped, in shots and queries alike."""
        return replace(
            self,
            shots=tuple(shot.swap() for shot in self.shots),
            queries=tuple(query.swap() for query in self.queries),
        )

    def flip_shots(self) -> Episode:
        """The shots' labels swapped, the queries as they were: what the label-flip rate needs."""
        return replace(self, shots=tuple(shot.swap() for shot in self.shots))

    def with_shots(self, shots: tuple[Preference, ...]) -> Episode:
        """The same queries given other shots, such as another user's."""
        return replace(self, shots=shots)

    def split(self, at: int) -> tuple[Episode, Episode]:
        """The episode with its first `at` queries, and with the rest; both keep all shots."""
        return replace(self, queries=self.queries[:at]), replace(self, queries=self.queries[at:])

    def first_shots(self, k: int) -> Episode:
        """The episode with only its first `k` shots."""
        return replace(self, shots=self.shots[:k])
