"""What a study writes for its analysis: participants, items with their votes, and raw events.

A participant sees items in three stages: `practice`, `label` (pairs whose labels become the shots) and `compare` (the
answers of two arms). An item is one row, and holds the vote that counts; every earlier click is an event. Texts and
arms stand as they were shown: `first` was on the left, or above on a phone. Times are milliseconds since 1970, UTC.

The records hold no name, no key and none of the recruiting site's ids, and call participants by pseudonyms. A
participant who withdrew keeps a `Participant` without items, so that the report can count them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fspo.errors import DataError
from fspo.preferences.types import Preference
from fspo.records import Record, read_records, write_records

__all__ = ["Choice", "Event", "Item", "Participant", "Stage", "StudyRecords"]

Stage = Literal["practice", "label", "compare"]
Choice = Literal["first", "second", "tie"]
_FILES = {"participants": "participants.jsonl", "items": "items.jsonl", "events": "events.jsonl"}
_REMEDY = "export the study again"


class Participant(Record):
    """One person who gave consent."""

    id: str
    study: str
    language: str
    consent: str
    """Version of the text that they agreed to."""
    consented: int
    finished: int | None = None
    withdrawn: int | None = None
    closed: Literal["", "quota"] = ""
    """Why the study ended early for them: a quota was full."""
    recruited: bool = False
    """Whether they came with the parameters of a recruiting site."""
    answers: dict[str, str] = Field(default_factory=dict)
    """Question about the participant -> answer; questions that they skipped are left out."""


class Item(Record):
    """One item as it was shown to one participant, with the vote that counts."""

    id: str
    participant: str
    stage: Stage
    position: int
    """From 1, in the order of the stage."""
    prompt: str
    topic: str = ""
    first: str
    """The text shown first; empty if the answers could not be written."""
    second: str
    first_arm: str = ""
    """Stage `compare`: whose answer the first text is; empty for an attention item and in the other stages."""
    second_arm: str = ""
    first_traits: dict[str, str] = Field(default_factory=dict)
    """Stage `label`: declared traits of the first text, if the corpus has any."""
    second_traits: dict[str, str] = Field(default_factory=dict)
    right: Choice | None = None
    """Attention items: the correct choice; None for all others."""
    shots: int = 0
    """Stage `compare`: how many labels the answers were written with, k. Ties, and labels without room in the prompt,
    do not count; of two personalised arms, the one that read more counts. Before the answers are written: the plan."""
    matched: bool = True
    """Whether the two texts are as alike in length and form as the study asks for."""
    choice: Choice | None = None
    """None: not voted."""
    shown: int | None = None
    """When the page with the item was first sent."""
    voted: int | None = None
    """When the vote that counts arrived."""

    @property
    def attention(self) -> bool:
        """Whether the item has a correct choice and tests attention."""
        return self.right is not None

    @property
    def arms(self) -> frozenset[str]:
        """The two arms that are compared; empty where none are."""
        return frozenset(arm for arm in (self.first_arm, self.second_arm) if arm)

    def score(self, arm: str) -> float | None:
        """1 where the participant chose this arm's answer, 0.5 for a tie, 0 for the other arm's; None without a vote.

        Raises:
            DataError: the item does not compare this arm.
        """
        if arm not in self.arms:
            raise DataError(f"Item {self.id} does not compare the arm '{arm}'.")
        if self.choice is None:
            return None
        if self.choice == "tie":
            return 0.5
        return float((self.choice == "first") == (self.first_arm == arm))

    def preference(self) -> Preference | None:
        """The vote as a preference between the two texts; None for a tie, no vote or an attention item."""
        if self.choice not in ("first", "second") or self.attention or self.first == self.second:
            return None
        chosen, rejected = (self.first, self.second) if self.choice == "first" else (self.second, self.first)
        return Preference(self.participant, self.prompt, chosen, rejected, source={"stage": self.stage})


class Event(Record):
    """Something that happened, in the order of arrival; nothing is ever taken back from this list.

    Kinds: `consented`, `answered` (the questions about the participant), `shown`, `voted`, `repeated` (a click that
    changed nothing), `undone`, `begun` (the answers are being written), `written`, `failed` (an answer could not be
    written), `resumed` (by the personal link), `finished`, `withdrawn`.
    """

    participant: str
    at: int
    kind: str
    item: str = ""
    detail: dict[str, Any] = Field(default_factory=dict)
    """Such as the choice of a click. Holds no content."""


@dataclass(frozen=True)
class StudyRecords:
    """Everything of a study that its analysis reads."""

    participants: Sequence[Participant]
    items: Sequence[Item]
    events: Sequence[Event]

    def save(self, folder: Path) -> None:
        """Write three JSONL files into a folder, which is made if missing.

        Raises:
            StorageError: a file can't be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name, file in _FILES.items():
            write_records(folder / file, getattr(self, name))

    @classmethod
    def load(cls, folder: Path) -> StudyRecords:
        """Read what `save` wrote.

        Raises:
            DataError: a file is missing.
            StorageError: a file is damaged; names the line.
        """
        if not folder.is_dir():
            raise DataError(f"There is no folder {folder} with exported records; `fspo study export` makes one.")
        return cls(
            _read(folder, "participants", Participant), _read(folder, "items", Item), _read(folder, "events", Event)
        )


def _read(folder: Path, name: str, kind: Any) -> Sequence[Any]:
    path = folder / _FILES[name]
    if not path.is_file():
        raise DataError(f"{path} is missing; {_REMEDY} with `fspo study export`.")
    return read_records(path, kind, _REMEDY)
