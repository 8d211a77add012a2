"""The saved answers of users who keep conversations, and the preferences that follow from feedback on them.

The rules of what follows are in `fspo.serving.feedback`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fspo.preferences.types import Turn
from fspo.serving.feedback import JudgedAnswer, Origin, Thumb, thumb_pairs
from fspo.serving.ownership import (
    Owner,
    Page,
    Sessions,
    UnknownOwner,
    delete_all,
    erasure_row,
    event_row,
    new_id,
    now,
    row_named,
)
from fspo.serving.schema import ConversationRow, PreferenceRow, UserRow
from fspo.serving.stored_preferences import (
    NewPreference,
    StoredPreference,
    bytes_of,
    has_room,
    plain,
    turns_of,
)
from fspo.serving.trainings import withdraw_from_training

__all__ = ["MOST_ANSWERS", "Learned", "SavedAnswers", "StoredAnswer"]

MOST_ANSWERS = 10_000
"""Of a user; further ones are not saved."""


@dataclass(frozen=True)
class StoredAnswer(JudgedAnswer):
    """An answer with its request, which was saved because its user keeps conversations."""

    turns: tuple[Turn, ...]
    """The request."""
    created: int
    model: str
    shots: tuple[str, ...]
    """Ids of the preferences that the model saw."""

    @classmethod
    def of(cls, row: ConversationRow) -> Self:
        """The answer of a row."""
        return cls(
            id=row.id.removeprefix("conv_"),
            text=row.answer,
            thumb=row.thumb or "none",  # type: ignore[arg-type]
            turns=turns_of(row.turns),
            created=row.created,
            model=row.model,
            shots=tuple(row.shots),
        )

    def as_conversation(self) -> dict[str, Any]:
        """The conversation as its user gets it."""
        return {
            "id": f"conv_{self.id}",
            "created": self.created,
            "model": self.model,
            "messages": [{"role": turn.role, "content": turn.text} for turn in self.turns],
            "answer": self.text,
            "shots": list(self.shots),
            "thumb": self.thumb,
        }


@dataclass(frozen=True)
class Learned:
    """What feedback on an answer has changed."""

    preferences: tuple[StoredPreference, ...]
    """The preferences that follow from it now, also those that were there before."""
    removed: int
    """Preferences that no longer follow from the thumbs, and were deleted."""


class SavedAnswers(Sessions):
    """The saved answers of each user, and what is learned from them."""

    def keep_conversation(
        self,
        owner: Owner,
        model: str,
        turns: Sequence[Turn],
        answer: str,
        shots: Iterable[str],
        *,
        answer_id: str | None = None,
        most: int = MOST_ANSWERS,
    ) -> None:
        """Save a request and its answer, if the user has switched that on and has fewer than `most`, and room for it.

        `answer_id` names the answer: 24 hexadecimal digits; by default random ones.

        Raises:
            DataError: the database can't hold the text.
            UnknownOwner: the user was deleted.
        """
        with self._read(owner) as session:
            wanted = session.scalar(select(UserRow.keep_conversations))
        if wanted is None:
            raise UnknownOwner
        if not wanted:
            return  # without a transaction that writes
        row = ConversationRow(
            id=new_id("conv") if answer_id is None else f"conv_{answer_id}",
            user_id=owner.id,
            created=now(),
            model=model,
            turns=plain(turns),
            turns_digest=_digest(turns),
            answer=answer,
            shots=list(shots),
            thumb="",
            nbytes=bytes_of(plain(turns), answer),
        )
        with self._write(owner) as session:
            wanted = session.scalars(select(UserRow)).one().keep_conversations  # it may have changed just now
            few = (session.scalar(select(func.count(ConversationRow.number))) or 0) < most
            if wanted and few and has_room(session, row.nbytes):
                session.add(row)

    def conversations(
        self, owner: Owner, *, limit: int, after: str | None = None, newest_first: bool = False
    ) -> Page[StoredAnswer] | None:
        """Some saved conversations of a user; arguments and result as of `page`."""
        return self._page(owner, ConversationRow, StoredAnswer.of, limit, after, newest_first)

    def remove_conversation(self, owner: Owner, conversation: str) -> bool:
        """Delete a saved conversation for good; False where the user has none with this id.

        The preferences that followed from it stay.
        """
        with self._write(owner) as session:
            row = row_named(session, ConversationRow, conversation)
            if row is None:
                return False
            session.delete(row)
            session.add_all([event_row(owner, "conversation.deleted", {"conversation": conversation}), erasure_row()])
        self._erase()
        return True

    def remove_conversations(self, owner: Owner) -> int:
        """Delete all saved conversations of a user for good, and return how many there were."""
        with self._write(owner) as session:
            count = delete_all(session, ConversationRow)
            if count:
                session.add_all([event_row(owner, "conversations.deleted", {"count": count}), erasure_row()])
        self._erase()
        return count

    def answer(self, owner: Owner, answer_id: str) -> StoredAnswer | None:
        """A saved answer of the user; None where there is none with this id."""
        with self._read(owner) as session:
            row = _answer(session, answer_id)
        return None if row is None else StoredAnswer.of(row)

    def learn(
        self,
        owner: Owner,
        turns: Sequence[Turn],
        chosen: str,
        rejected: str,
        origin: Origin,
        answers: Sequence[str],
        *,
        most: int = 10_000,
    ) -> Learned:
        """Save the preference that follows from feedback on answers, unless it is there already.

        Arguments and errors as of `add_preference`; `answers` are the ids of the answers that it follows from.
        """
        with self._write(owner) as session:
            row = _learn(session, owner, NewPreference(turns, chosen, rejected, origin, answers=answers), most)
        return Learned((StoredPreference.of(row),), 0)

    def set_thumb(self, owner: Owner, answer_id: str, thumb: Thumb, *, most: int = 10_000) -> Learned | None:
        """Note what the user thinks of a saved answer, and bring the preferences of their thumbs up to date.

        Returns:
            What follows from the thumb now; None where the user has no saved answer with this id.

        Raises:
            DataError: the user has `most` preferences.
        """
        with self._write(owner) as session:
            row = _answer(session, answer_id)
            if row is None:
                return None
            answer, removed = StoredAnswer.of(row), 0
            pairs = thumb_pairs(replace(answer, thumb=thumb), _judged_alike(session, row))
            found = [NewPreference(answer.turns, *pair.texts, "thumbs", answers=pair.answers) for pair in pairs]
            if thumb == answer.thumb:  # the user may have edited or deleted what followed: add nothing again
                rows = [_learned(session, one) for one in found]
            else:
                removed = _forget_thumb(session, owner, answer_id)
                row.thumb = "" if thumb == "none" else thumb
                session.add(event_row(owner, "thumb.set", {"answer": answer_id, "thumb": thumb}))
                rows = [_learn(session, owner, one, most) for one in found]
        if removed:
            self._erase()
        return Learned(tuple(StoredPreference.of(row) for row in rows if row is not None), removed)


def _learn(session: Session, owner: Owner, new: NewPreference, most: int) -> PreferenceRow:
    """Add the preference, unless the newest one that follows from its answers says the same."""
    new.check()  # before the texts are in a query
    return _learned(session, new) or new.add(session, owner, most)


def _learned(session: Session, new: NewPreference) -> PreferenceRow | None:
    """The newest preference that follows from the same answers and compares the same texts, if it says the same."""
    either = new.chosen, new.rejected
    compared = PreferenceRow.chosen.in_(either), PreferenceRow.rejected.in_(either), PreferenceRow.origin == new.origin
    for row in session.scalars(select(PreferenceRow).where(*compared).order_by(PreferenceRow.number.desc())):
        if sorted(row.answers) == sorted(new.answers):
            return row if row.chosen == new.chosen else None
    return None


def _answer(session: Session, answer_id: str) -> ConversationRow | None:
    return row_named(session, ConversationRow, f"conv_{answer_id}")


def _judged_alike(session: Session, row: ConversationRow) -> list[StoredAnswer]:
    """The user's other answers to the same request that have a thumb, newest first."""
    query = select(ConversationRow).where(
        ConversationRow.turns_digest == row.turns_digest,
        ConversationRow.thumb != "",
        ConversationRow.number != row.number,
    )
    found = session.scalars(query.order_by(ConversationRow.number.desc()))
    return [StoredAnswer.of(other) for other in found if other.turns == row.turns]


def _forget_thumb(session: Session, owner: Owner, answer_id: str) -> int:
    """Delete the preferences that follow from the answer's thumb, and return how many there were."""
    rows = session.scalars(select(PreferenceRow).where(PreferenceRow.origin == "thumbs")).all()
    gone = [row for row in rows if answer_id in row.answers]
    for row in gone:
        session.delete(row)
        session.add(event_row(owner, "preference.deleted", {"preference": row.id}))
        withdraw_from_training(session, owner, row.created, 1)
    if gone:
        session.add(erasure_row())
        session.flush()
    return len(gone)


def _digest(turns: Sequence[Turn]) -> str:
    """What two requests with the same turns share."""
    return hashlib.sha256(json.dumps(plain(turns)).encode()).hexdigest()
