"""Preferences that a model can't read whole: found before anything is trained or measured, and left out or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from fspo.errors import DataError
from fspo.modeling.rendering import EpisodeRenderer
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import TooFewPreferences
from fspo.preferences.types import Preference

__all__ = ["AROUND_DESCRIPTION", "Fitted", "LongRow", "LongRows", "Room", "fitted", "long_rows", "more_of"]

LongRows = Literal["leave-out", "refuse"]
"""What is done with preferences that a model can't read whole."""
AROUND_DESCRIPTION = 16
"""Tokens allowed for the words around a description, and for its being cut otherwise when it is read."""
_SHOWN = 60


@dataclass(frozen=True)
class Room:
    """What one use of a model needs room for beside a preference's prompt and its longer response."""

    renderer: EpisodeRenderer
    """Says what is shown of a user, and how many tokens the model reads."""
    answer: int = 0
    """Tokens of an answer to be sampled, where it may be longer than either response."""
    drafted: int = 0
    """Tokens of a description that is still to be written, and then stands beside the shots."""
    learns_description: bool = False
    """Whether the user's own description is learned as a response."""

    def needed(self, preference: Preference, description: str) -> int:
        """The most tokens that the preference takes, without any shot."""
        longest = self.renderer.bare_length(preference, description, answer=self.answer)
        if self.drafted:
            longest = max(longest, self.renderer.bare_length(preference, "", answer=self.answer) + self.drafted)
        if self.learns_description and description:
            longest = max(longest, self.renderer.describing_length(description))
        return longest

    def fits(self, preference: Preference, description: str) -> bool:
        """Whether the model can read the preference."""
        limit = self.renderer.max_length
        if limit is None:
            return True
        texts = (preference.prompt, preference.chosen, preference.rejected, description)
        if (
            not preference.turns
            and all(map(str.isascii, texts))
            and 2 * sum(map(len, texts)) + self.answer + self.drafted + self.renderer.overhead <= limit
        ):
            return True  # a token is at least a letter, so that most texts need not be encoded
        return self.needed(preference, description) <= limit


@dataclass(frozen=True)
class LongRow:
    """A preference that a model can't read whole."""

    number: int
    """Its place in its dataset, from 1."""
    preference: Preference
    tokens: int

    def said(self, number: int | None = None) -> str:
        """Which one it is; `number` counts it in the file that a person knows, if there is one."""
        row, prompt = self.preference, " ".join(self.preference.prompt.split())
        short = prompt if len(prompt) <= _SHOWN else prompt[:_SHOWN] + "..."
        which = "one" if number is None else f"row {number}"
        return f"{which} (user '{row.user}', prompt '{short}') makes {self.tokens:,} tokens"


@dataclass(frozen=True)
class Fitted:
    """A dataset without the preferences that a model can't read whole."""

    dataset: PreferenceDataset
    left_out: tuple[LongRow, ...] = ()
    limit: int = 0
    """Most tokens of those that are left."""
    number: Callable[[Preference], int] | None = None
    """Gives the row of a preference in the file that a person knows, if there is one."""

    def said(self, of: str) -> list[str]:
        """A sentence on what was left out, if anything was; `of` says whose preferences they are."""
        if not self.left_out:
            return []
        count, first = len(self.left_out), self.left_out[0]
        return [
            f"Left out: {count:,} of {count + len(self.dataset):,} preferences of {of}, longer than the limit of "
            f"{self.limit:,} tokens; {first.said(self.number(first.preference) if self.number else None)}."
        ]

    @contextmanager
    def explaining(self, of: str) -> Iterator[None]:
        """Let an error about what is left name what was left out: without it, the error names too small a number.

        `of` is that of `said`.

        Raises:
            DataError: the error, with that sentence.
        """
        try:
            yield
        except DataError as error:
            said = self.said(of)
            if not said:
                raise
            if isinstance(error, TooFewPreferences):
                raise error.with_facts(*said) from error
            raise DataError(" ".join([str(error), *said])) from error


def long_rows(dataset: PreferenceDataset, rooms: Sequence[Room]) -> list[LongRow]:
    """The preferences of `dataset` that have no room in one of the uses, with the most tokens that they take."""
    found = []
    for number, row in enumerate(dataset, 1):
        description = dataset.users[row.user].description
        if not all(room.fits(row, description) for room in rooms):
            found.append(LongRow(number, row, max(room.needed(row, description) for room in rooms)))
    return found


def more_of(found: Sequence[LongRow]) -> str:
    """How many rows there are beside the first, as the last sentence of an error; empty for one row."""
    match len(found) - 1:
        case 0:
            return ""
        case 1:
            return " 1 more row is too long."
        case more:
            return f" {more:,} more rows are too long."


def fitted(
    dataset: PreferenceDataset,
    rooms: Sequence[Room],
    long: LongRows,
    *,
    setting: str,
    file: str = "The data",
    number: Callable[[Preference], int] | None = None,
) -> Fitted:
    """`dataset` without the preferences that a model can't read whole; its users stay.

    `rooms` are the uses, each with its own limit. The sentence names `setting`, `file` and the row there, by default
    the place in `dataset`.

    Raises:
        DataError: there are such preferences, and they are refused; or nothing else is left.
    """
    found = long_rows(dataset, rooms)
    if not found:
        return Fitted(dataset)
    limit = min(room.renderer.max_length or 0 for room in rooms)
    if long == "refuse" or len(found) == len(dataset):
        first = found[0]
        how = f"set {setting} to leave-out, " if len(found) < len(dataset) else ""
        raise DataError(
            f"{file}: {first.said(number(first.preference) if number else first.number)} with its longer response, and "
            f"the limit is {limit:,}; {how}raise the maximal length, or shorten or delete the row.{more_of(found)}"
        )
    numbers = {row.number for row in found}
    kept = (row for place, row in enumerate(dataset, 1) if place not in numbers)
    return Fitted(PreferenceDataset(dataset.users, kept), tuple(found), limit, number)
