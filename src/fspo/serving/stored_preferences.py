"""The preferences of the store's users, and the limit on the text that a user has in the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fspo.errors import DataError
from fspo.preferences.types import Preference, Turn, as_turns
from fspo.serving.feedback import Origin
from fspo.serving.ownership import Owner, Page, Sessions, delete_all, erasure_row, event_row, new_id, now, row_named
from fspo.serving.schema import ConversationRow, PreferenceRow
from fspo.serving.texts import check_storable
from fspo.serving.trainings import withdraw_from_training

__all__ = [
    "MOST_BYTES",
    "NewPreference",
    "Preferences",
    "StoredPreference",
    "bytes_of",
    "has_room",
    "plain",
    "turns_of",
]

MOST_BYTES = 2**26
"""Of a user's preferences and conversations, in UTF-8."""


@dataclass(frozen=True)
class StoredPreference:
    """A preference with its id and times (seconds since 1970, UTC)."""

    id: str
    preference: Preference
    """Its source has the `origin`, and `source` if it has free text."""
    created: int
    updated: int

    @classmethod
    def of(cls, row: PreferenceRow) -> Self:
        """The preference of a row."""
        source = {"origin": row.origin} | ({"source": row.source} if row.source else {})
        preference = Preference.after(row.user_id, turns_of(row.turns), row.chosen, row.rejected, source=source)
        return cls(row.id, preference, row.created, row.updated)

    @property
    def origin(self) -> Origin:
        """How the user made it."""
        origin: Origin = self.preference.source["origin"]
        return origin

    def as_record(self) -> dict[str, Any]:
        """The preference as its user gets it."""
        one = self.preference
        return {
            "id": self.id,
            "created": self.created,
            "updated": self.updated,
            "user": one.user,
            "prompt": [{"role": turn.role, "content": turn.text} for turn in one.messages],
            "chosen": one.chosen,
            "rejected": one.rejected,
            "source": dict(one.source),
        }


@dataclass(frozen=True)
class NewPreference:
    """A preference that is not saved yet."""

    turns: Sequence[Turn]
    chosen: str
    rejected: str
    origin: Origin = "comparison"
    source: str = ""
    answers: Sequence[str] = ()
    """Ids of the answers that it follows from."""

    def check(self) -> None:
        """Check that the two responses make a preference.

        Raises:
            DataError: nothing is preferred, the prompt is no conversation, or the database can't hold a text.
        """
        check_storable(self.chosen, self.rejected, *(turn.text for turn in as_turns(self.turns)))
        if not self.chosen.strip() or not self.rejected.strip():
            raise DataError("A preference needs two responses; one of them is empty.")
        if self.chosen.strip() == self.rejected.strip():
            raise DataError("The two responses are the same text, so nothing is preferred.")

    def add(self, session: Session, owner: Owner, most: int) -> PreferenceRow:
        """Add it to a transaction.

        Raises:
            DataError: the user has `most` preferences, or no room for so much text.
        """
        if (session.scalar(select(func.count(PreferenceRow.number))) or 0) >= most:
            raise DataError(f"You have {most:,} preferences, which is the limit; delete some first.")
        at, turns = now(), plain(self.turns)
        row = PreferenceRow(
            id=new_id("pref"),
            user_id=owner.id,
            created=at,
            updated=at,
            turns=turns,
            chosen=self.chosen,
            rejected=self.rejected,
            origin=self.origin,
            source=self.source,
            answers=list(self.answers),
            nbytes=bytes_of(turns, self.chosen, self.rejected, self.source),
        )
        session.add_all([row, event_row(owner, "preference.added", {"preference": row.id})])
        _check_room(session)
        return row


class Preferences(Sessions):
    """The preferences of each user."""

    def preferences(self, owner: Owner) -> list[StoredPreference]:
        """All preferences of a user, oldest first."""
        return [StoredPreference.of(row) for row in self._rows(owner, PreferenceRow)]

    def newest(self, owner: Owner, most: int) -> tuple[list[StoredPreference], int]:
        """The newest preferences of a user, at most `most`, oldest first; and how many older ones there are."""
        with self._read(owner) as session:
            rows = session.scalars(select(PreferenceRow).order_by(PreferenceRow.number.desc()).limit(most)).all()
            full = len(rows) == most
            count = (session.scalar(select(func.count(PreferenceRow.number))) or 0) if full else len(rows)
        return [StoredPreference.of(row) for row in reversed(rows)], count - len(rows)

    def page(
        self, owner: Owner, *, limit: int, after: str | None = None, newest_first: bool = False
    ) -> Page[StoredPreference] | None:
        """At most `limit` preferences of a user, behind the one with the id `after`, oldest first by default.

        Returns:
            The page; None where the user has no preference with the id `after`.
        """
        return self._page(owner, PreferenceRow, StoredPreference.of, limit, after, newest_first)

    def preference(self, owner: Owner, preference: str) -> StoredPreference | None:
        """One preference of a user; None where the user has none with this id."""
        with self._read(owner) as session:
            row = row_named(session, PreferenceRow, preference)
        return None if row is None else StoredPreference.of(row)

    def add_preference(
        self,
        owner: Owner,
        turns: Sequence[Turn],
        chosen: str,
        rejected: str,
        *,
        origin: Origin = "comparison",
        source: str = "",
        most: int = 10_000,
    ) -> StoredPreference:
        """Save a preference of a user, who may have `most` of them; it is on disk when this returns.

        Raises:
            DataError: nothing is preferred, the prompt is no conversation, or the user has `most` preferences, or
                no room for so much text.
            UnknownOwner: the user was deleted.
        """
        new = NewPreference(turns, chosen, rejected, origin, source)
        new.check()
        with self._write(owner) as session:
            row = new.add(session, owner, most)
        return StoredPreference.of(row)

    def change_preference(
        self,
        owner: Owner,
        preference: str,
        *,
        turns: Sequence[Turn] | None = None,
        chosen: str | None = None,
        rejected: str | None = None,
        source: str | None = None,
    ) -> StoredPreference | None:
        """Change what is given; None where the user has no preference with this id. What is as before is no change.

        Raises:
            DataError: nothing would be preferred, or the prompt is no conversation.
        """
        with self._write(owner) as session:
            row = row_named(session, PreferenceRow, preference)
            if row is None:
                return None
            given = {"turns": turns and plain(turns), "chosen": chosen, "rejected": rejected, "source": source}
            changes = {name: value for name, value in given.items() if value not in (None, getattr(row, name))}
            if not changes:
                return StoredPreference.of(row)
            withdraw_from_training(session, owner, row.created, 1)
            for name, value in changes.items():
                setattr(row, name, value)
            row.answers = []  # it is the user's own now
            NewPreference(turns_of(row.turns), row.chosen, row.rejected).check()
            row.updated, row.nbytes = now(), bytes_of(row.turns, row.chosen, row.rejected, row.source)
            _check_room(session)
            session.add_all([event_row(owner, "preference.changed", {"preference": preference}), erasure_row()])
        self._erase()
        return StoredPreference.of(row)

    def remove_preference(self, owner: Owner, preference: str) -> bool:
        """Delete a preference for good; False where the user has none with this id."""
        with self._write(owner) as session:
            row = row_named(session, PreferenceRow, preference)
            if row is None:
                return False
            session.delete(row)
            withdraw_from_training(session, owner, row.created, 1)
            session.add_all([event_row(owner, "preference.deleted", {"preference": preference}), erasure_row()])
        self._erase()
        return True

    def remove_preferences(self, owner: Owner) -> int:
        """Delete all preferences of a user for good, and return how many there were."""
        with self._write(owner) as session:
            oldest = session.scalar(select(func.min(PreferenceRow.created)))
            count = delete_all(session, PreferenceRow)
            if oldest is not None:
                withdraw_from_training(session, owner, oldest, count)
                session.add_all([event_row(owner, "preferences.deleted", {"count": count}), erasure_row()])
        self._erase()
        return count


def _check_room(session: Session) -> None:
    """Refuse what makes the user's texts too large; the transaction then changes nothing."""
    session.flush()
    if not has_room(session):
        most = MOST_BYTES // 2**20
        raise DataError(f"Your preferences and conversations have {most:,} MiB, which is the limit; delete some first.")


def has_room(session: Session, more: int = 0) -> bool:
    """Whether `more` bytes of text of the session's owner, in addition to those in the store, are within the limit."""
    tables = (PreferenceRow, ConversationRow)
    return sum(session.scalar(select(func.sum(table.nbytes))) or 0 for table in tables) + more <= MOST_BYTES


def bytes_of(*texts: object) -> int:
    """How much there is of texts, and of lists of them, in UTF-8."""
    nested = (
        bytes_of(*part) if isinstance(part, list) else len(str(part).encode("utf-8", "replace")) for part in texts
    )
    return sum(nested)


def plain(turns: Sequence[Turn]) -> list[list[str]]:
    """Turns as a row holds them."""
    return [[turn.role, turn.text] for turn in turns]


def turns_of(rows: Sequence[Sequence[str]]) -> tuple[Turn, ...]:
    """The turns that a row holds."""
    return tuple(Turn(role, content) for role, content in rows)  # type: ignore[arg-type]
