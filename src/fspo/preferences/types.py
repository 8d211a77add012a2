"""Users, preferences and episodes: immutable values, with the verbs the field needs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NoReturn, TypeAlias

from fspo.errors import DataError
from fspo.preferences.wording import wording

__all__ = ["Episode", "Person", "Preference", "PromptLike", "Role", "Split", "Turn", "User", "as_turns", "transcript"]

Split = Literal["train", "validation", "test"]
Role = Literal["system", "user", "assistant"]

_LINE_END = re.compile("(\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])")


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
class Turn:
    """One message of a conversation."""

    role: Role
    text: str


PromptLike: TypeAlias = str | Sequence[Turn] | Sequence[Mapping[str, Any]]
"""The user's message, or a conversation: its turns, or messages {"role", "content"} as in the rows of a dataset."""


def transcript(turns: Sequence[Turn]) -> str:
    """A conversation as one text for people and judges; a user's message alone is its own text.

    Every turn begins a line with its role. The other lines of a turn are indented, so that no text can look like
    another turn, and different conversations have different texts.
    """
    if len(turns) == 1 and turns[0].role == "user":
        return turns[0].text
    return "\n".join(f"{turn.role.capitalize()}: " + _LINE_END.sub(r"\1  ", turn.text) for turn in turns)


def as_turns(prompt: str | Sequence[Turn]) -> tuple[Turn, ...]:
    """A prompt as the turns of a conversation: text is one message of the user.

    Raises:
        DataError: the turns are not an optional system message, then messages of user and assistant in turns, the
            user's first and last; or one of them is empty.
    """
    if isinstance(prompt, str):
        return (Turn("user", prompt),)
    turns = tuple(prompt)
    said = turns[1:] if turns and turns[0].role == "system" else turns
    if len(said) % 2 == 0 or any(turn.role != ("user", "assistant")[place % 2] for place, turn in enumerate(said)):
        there = ", ".join(turn.role for turn in turns) or "nothing"
        raise DataError(
            "A prompt is an optional system message, and then messages of user and assistant in turns, the user's "
            f"first and last; this one has: {there}."
        )
    if not all(turn.text.strip() for turn in turns):
        raise DataError("A prompt has an empty message; fill it in or leave it out.")
    return turns


@dataclass(frozen=True)
class Preference:
    """One user's choice between two responses to one prompt, with where it came from.

    The prompt is the user's message. If the prompt is a conversation, `turns` holds its messages, and `prompt` is their
    `transcript`; `Preference.after` makes such a preference.
    """

    user: str
    prompt: str
    chosen: str
    rejected: str
    question: str = ""
    """Id of the question; preferences with one question never straddle a split. Empty: the prompt is its own id."""
    source: Mapping[str, Any] = field(default_factory=dict, hash=False)
    turns: tuple[Turn, ...] = ()
    """The messages of the prompt, where it is more than one message of the user."""

    def __post_init__(self) -> None:
        """Freeze the source, and check that prompt and turns say the same.

        Raises:
            DataError: they don't.
        """
        object.__setattr__(self, "source", _frozen(self.source))
        if self.turns and self.prompt != transcript(as_turns(self.turns)):
            raise DataError("The prompt of a conversation must be the transcript of its turns; use Preference.after.")

    @classmethod
    def after(
        cls,
        user: str,
        turns: Sequence[Turn],
        chosen: str,
        rejected: str,
        *,
        question: str = "",
        source: Mapping[str, Any] | None = None,
    ) -> Preference:
        """A choice between two answers to a conversation: a system message, earlier turns, the user's last message.

        Raises:
            DataError: the turns are no prompt, see `as_turns`.
        """
        said = as_turns(turns)
        kept = () if len(said) == 1 else said
        return cls(user, transcript(said), chosen, rejected, question, source or {}, kept)

    @property
    def messages(self) -> tuple[Turn, ...]:
        """The prompt as turns: those of the conversation, or the user's one message."""
        return self.turns or (Turn("user", self.prompt),)

    @property
    def question_id(self) -> str:
        """The question's id, which is the prompt itself where none was given."""
        return self.question or self.prompt

    @property
    def question_key(self) -> str:
        """A key that all preferences on one question share: its id, or without an id the wording of the prompt.

        So prompts that differ only in blanks, case or Unicode form are one question; see `fspo.preferences.wording`.
        """
        return self.question or wording(self.prompt)

    @property
    def pair(self) -> frozenset[str]:
        """The two responses, whichever was chosen."""
        return frozenset((self.chosen, self.rejected))

    @property
    def label_noise(self) -> float:
        """How probably the label is wrong, as its source says under `label_noise`; 0 where it says nothing.

        The objectives that can assume labels to be wrong use it: dpo, robust-dpo and simpo.

        Raises:
            DataError: the source says something else than a probability below a half.
        """
        said = self.source.get("label_noise")
        if isinstance(said, str):  # a cell of a CSV file
            with suppress(ValueError):
                said = float(said) if said.strip() else None
        if said is None:
            return 0.0
        if isinstance(said, bool) or not isinstance(said, int | float) or not 0 <= said < 0.5:
            raise DataError(
                f"A preference of user '{self.user}' on {self.prompt[:60]!r} has label_noise {said!r}; write how "
                "probably its label is wrong, from 0 to below 0.5, or leave it out."
            )
        return float(said)

    def with_noise(self, noise: float) -> Preference:
        """The same preference, with a label that is wrong with this probability."""
        return replace(self, source={**self.source, "label_noise": noise})

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
