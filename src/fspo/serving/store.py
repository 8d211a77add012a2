"""The store of people: users, keys, preferences, and on request conversations.

All queries of a person's data go through `OwnSession`, which adds the owner to each of them, and refuses a query where
there is no owner. An `Owner` comes from a key (`Store.authenticate`) or, on the command
line of an administrator, from a user's name.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import re
import secrets
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar

from sqlalchemy import ColumnElement, Engine, delete, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from fspo.errors import DataError
from fspo.preferences.types import Preference, Turn, as_turns
from fspo.printing import nearest
from fspo.serving.api_keys import key_digest, new_key
from fspo.serving.connection import StoreBusy, connect, erase_deleted, explained
from fspo.serving.feedback import JudgedAnswer, Origin, Thumb, thumb_pairs
from fspo.serving.ownership import Owner, OwnSession, pseudonym
from fspo.serving.schema import (
    ConversationRow,
    ErasureRow,
    EventRow,
    KeyRow,
    ParticipantRow,
    Personal,
    PreferenceRow,
    StudyItemRow,
    TrainingRow,
    UserRow,
    WithdrawalRow,
)
from fspo.serving.texts import check_description, check_storable

__all__ = [
    "MOST_BYTES",
    "Account",
    "Learned",
    "NewKey",
    "Page",
    "Store",
    "StoredAnswer",
    "StoredKey",
    "StoredPreference",
    "UnknownOwner",
    "Withdrawal",
    "add_key",
    "user_row",
]

_TAKEN_BACK = ("preference.changed", "preference.deleted", "preferences.deleted", "account.changed", "study.withdrawn")
"""Kinds of events after which earlier content must not be used."""
MOST_BYTES = 2**26
"""Of a user's preferences and conversations, in UTF-8."""
_MOST_EVENTS = 10_000
"""Of a user; the oldest ones go."""
_AT_ONCE = 500
"""Users in one query."""
_ID = re.compile(r"[a-z]+_[0-9a-f]{24}")
"""The form of `_new_id`. No other text goes into a query: Postgres has no NUL."""
_LONGEST_RATE, _LONGEST_NAME = 100, 1_000
"""Characters."""
_PERSONAL: tuple[type[Personal], ...] = (
    KeyRow,
    PreferenceRow,
    ConversationRow,
    EventRow,
    ParticipantRow,
    StudyItemRow,
)
Row = TypeVar("Row", bound=Personal)
Named = TypeVar("Named", KeyRow, PreferenceRow, ConversationRow)
Shown = TypeVar("Shown")


class UnknownOwner(DataError):
    """The user does not exist any more."""


@dataclass(frozen=True)
class Account:
    """What the store holds of a user beside their preferences."""

    id: str
    name: str
    description: str
    """Shown to the policy with the shots; the user may edit it."""
    personalise: bool
    """False: `fspo` answers as `base` does, until the user switches it on again."""
    keep_conversations: bool
    allow_training: bool
    """Whether a policy may be trained on the preferences and the description."""
    rate: str
    """Limit of answers, such as `60/minute`; empty: the server's."""
    created: int
    preferences: int = 0
    """How many there are."""


@dataclass(frozen=True)
class StoredPreference:
    """A preference with its id and times (seconds since 1970, UTC)."""

    id: str
    preference: Preference
    """Its source has the `origin`, and `source` if it has free text."""
    created: int
    updated: int

    @property
    def origin(self) -> Origin:
        """How the user made it."""
        origin: Origin = self.preference.source["origin"]
        return origin


@dataclass(frozen=True)
class StoredAnswer:
    """An answer with its request, which was saved because its user keeps conversations."""

    id: str
    turns: tuple[Turn, ...]
    """The request."""
    text: str
    thumb: Thumb
    created: int
    model: str
    shots: tuple[str, ...]
    """Ids of the preferences that the model saw."""

    def as_conversation(self) -> dict[str, Any]:
        """The conversation as its user gets it."""
        return {
            "id": f"conv_{self.id}",
            "created": self.created,
            "model": self.model,
            "messages": _messages(self.turns),
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


@dataclass(frozen=True)
class StoredKey:
    """What is known of a key: never the key itself."""

    id: str
    ending: str
    """Its last four characters."""
    created: int


@dataclass(frozen=True)
class NewKey:
    """A new key; this is the only time that it can be read."""

    id: str
    key: str


@dataclass(frozen=True)
class Withdrawal:
    """What became of somebody's data."""

    removed: dict[str, int]
    """Table -> rows that were deleted."""
    erased: bool
    """Whether the files of the database hold nothing of it any more; False while another reader holds them."""
    policies: tuple[str, ...]
    """The policies that were trained on the preferences, and should be trained again without them."""
    datasets: tuple[str, ...]
    """The folders of datasets that hold the preferences, and should be deleted."""


class Store:
    """The data of all people, in SQLite or Postgres. Its methods may be called from any thread."""

    def __init__(self, engine: Engine, *, busy_seconds: float = 5.0) -> None:
        """See `open`."""
        self._engine = engine
        self._turn = _Turn(busy_seconds) if engine.dialect.name == "sqlite" else nullcontext()
        self._writing = engine.execution_options(writes=True)
        self._erasing = threading.Lock()
        self._erase()  # what a deletion before a crash has left

    @classmethod
    def open(cls, place: str | Path, *, busy_seconds: float = 5.0) -> Self:
        """Open the store, and create it if it is missing; arguments and errors as of `connect`."""
        return cls(connect(place, busy_seconds=busy_seconds), busy_seconds=busy_seconds)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def check(self) -> None:
        """Make a query.

        Raises:
            StorageError: the database does not answer.
        """
        with explained(), self._engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    # Users

    def add_user(self, name: str, *, description: str = "", rate: str = "") -> Account:
        """Add a user.

        Raises:
            DataError: the name is taken or empty, or a text is too long or has a control character.
        """
        if not name.strip() or len(name) > 200 or not name.isprintable():
            raise DataError("A user's name has between 1 and 200 characters, on one line.")
        _check_length("limit of answers", rate, _LONGEST_RATE)
        check_description(description)
        row = user_row(name, description=description, rate=rate)
        try:
            with self._administer(writes=True) as session:
                session.add(row)
        except IntegrityError:
            raise DataError(f"There is a user '{name}' already; choose another name.") from None
        return _account(row, 0)

    def users(self) -> list[Account]:
        """All users in the order of their names; for administrators."""
        counts = select(PreferenceRow.user_id, func.count().label("n")).group_by(PreferenceRow.user_id).subquery()
        query = select(UserRow, counts.c.n).outerjoin(counts, counts.c.user_id == UserRow.id).order_by(UserRow.name)
        with self._administer() as session:
            return [_account(row, count or 0) for row, count in session.execute(query)]

    def participants(self) -> dict[str, str]:
        """User -> the study that they take part in; for administrators."""
        with self._administer() as session:
            found = session.execute(select(ParticipantRow.user_id, ParticipantRow.study))
            return {user: study for user, study in found}

    def user_named(self, name: str) -> Owner:
        """The user of that name; for administrators.

        Raises:
            DataError: there is none.
        """
        with self._administer() as session:
            found = session.scalar(select(UserRow.id).where(UserRow.name == name))
            names = () if found else session.scalars(select(UserRow.name)).all()
        if found is None:
            close = nearest(name, names)
            hint = f"; did you mean '{close}'?" if close else ". `fspo users list` shows all of them."
            raise DataError(f"There is no user '{name}'{hint}")
        return Owner(found)

    def account(self, owner: Owner) -> Account:
        """What is known of a user.

        Raises:
            UnknownOwner: they were deleted.
        """
        with self._read(owner) as session:
            row = session.scalar(select(UserRow))
            count = session.scalar(select(func.count(PreferenceRow.number))) or 0
        if row is None:
            raise _unknown()
        return _account(row, count)

    def change_account(
        self,
        owner: Owner,
        *,
        description: str | None = None,
        personalise: bool | None = None,
        keep_conversations: bool | None = None,
        allow_training: bool | None = None,
        rate: str | None = None,
    ) -> Account:
        """Change what is given, and return the result. What is as before is no change.

        If `allow_training` becomes false, the policies that were trained on the user's preferences should be trained
        again.

        Raises:
            DataError: a text is too long or has a control character.
            UnknownOwner: the user was deleted.
        """
        given = {
            "description": description,
            "personalise": personalise,
            "keep_conversations": keep_conversations,
            "allow_training": allow_training,
            "rate": rate,
        }
        _check_length("limit of answers", rate or "", _LONGEST_RATE)
        check_description(description or "")
        with self._write(owner) as session:
            row = session.scalars(select(UserRow)).one()
            changes = {name: value for name, value in given.items() if value not in (None, getattr(row, name))}
            replaced = "description" in changes and bool(row.description)
            if replaced:
                session.add(_to_erase())
            if replaced or (row.allow_training and "allow_training" in changes):
                _withdraw_from_training(session, owner, 0, 0)
            for name, value in changes.items():
                setattr(row, name, value)
            if changes:
                session.add(_event(owner, "account.changed", {"settings": sorted(changes)}))
            account = _account(row, session.scalar(select(func.count(PreferenceRow.number))) or 0)
        if replaced:
            self._erase()
        return account

    # Keys

    def add_key(self, owner: Owner) -> NewKey:
        """Make a key for a user.

        Raises:
            UnknownOwner: the user was deleted.
        """
        with self._write(owner) as session:
            return add_key(session, owner)

    def keys(self, owner: Owner) -> list[StoredKey]:
        """The keys of a user, oldest first."""
        with self._read(owner) as session:
            rows = session.scalars(select(KeyRow).order_by(KeyRow.number))
            return [StoredKey(row.id, row.ending, row.created) for row in rows]

    def revoke_key(self, owner: Owner, key: str) -> None:
        """Delete a key; the next request with it is refused.

        Raises:
            DataError: the user has no key with this id.
        """
        with self._write(owner) as session:
            row = _one(session, KeyRow, key)
            if row is None:
                raise DataError(f"The user has no key '{key}'. `fspo keys list` shows all keys.")
            session.delete(row)
            session.add(_event(owner, "key.revoked", {"key": key}))

    def authenticate(self, key: str) -> Owner | None:
        """The owner of this key; None if it belongs to no user, or opens a study and nothing else."""
        return self._owner_of(key, KeyRow.user_id.not_in(select(ParticipantRow.user_id)))

    def _owner_of(self, key: str, whose: ColumnElement[bool]) -> Owner | None:
        digest = key_digest(key)
        with self._administer() as session:
            row = session.scalar(select(KeyRow).where(KeyRow.digest == digest, whose))
            return Owner(row.user_id) if row is not None and hmac.compare_digest(row.digest, digest) else None

    def marks(self, owners: Sequence[str]) -> dict[str, int]:
        """How far each user's deletions and changes have come; a user who does not exist is left out.

        Args:
            owners: ids of users.

        Returns:
            User -> the number of the last event that deleted or changed something of theirs; 0 for none.
        """
        found: dict[str, int] = {}
        taken_back = (EventRow.user_id == UserRow.id) & EventRow.kind.in_(_TAKEN_BACK)
        query = select(UserRow.id, func.max(EventRow.number)).outerjoin(EventRow, taken_back).group_by(UserRow.id)
        with self._administer() as session:
            for start in range(0, len(owners), _AT_ONCE):
                some = query.where(UserRow.id.in_(owners[start : start + _AT_ONCE]))
                found |= {owner: number or 0 for owner, number in session.execute(some)}
        return found

    # Preferences

    def preferences(self, owner: Owner) -> list[StoredPreference]:
        """All preferences of a user, oldest first."""
        return [_stored(row) for row in self._rows(owner, PreferenceRow)]

    def newest(self, owner: Owner, most: int) -> tuple[list[StoredPreference], int]:
        """The newest preferences of a user, at most `most`, oldest first; and how many older ones there are."""
        with self._read(owner) as session:
            rows = session.scalars(select(PreferenceRow).order_by(PreferenceRow.number.desc()).limit(most)).all()
            full = len(rows) == most
            count = (session.scalar(select(func.count(PreferenceRow.number))) or 0) if full else len(rows)
        return [_stored(row) for row in reversed(rows)], count - len(rows)

    def page(
        self, owner: Owner, *, limit: int, after: str | None = None, newest_first: bool = False
    ) -> Page[StoredPreference] | None:
        """Some preferences of a user.

        Args:
            owner: the user.
            limit: how many at most.
            after: begin behind the preference with this id.
            newest_first: the order; by default oldest first.

        Returns:
            The page; None where the user has no preference with the id `after`.
        """
        return self._page(owner, PreferenceRow, _stored, limit, after, newest_first)

    def preference(self, owner: Owner, preference: str) -> StoredPreference | None:
        """One preference of a user; None where the user has none with this id."""
        with self._read(owner) as session:
            row = _one(session, PreferenceRow, preference)
        return None if row is None else _stored(row)

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
        """Save a preference; it is on disk when this returns.

        Args:
            owner: whose it is.
            turns: the prompt.
            chosen: the response that they prefer.
            rejected: the other response.
            origin: how the user made it.
            source: where it comes from; free text.
            most: how many preferences a user may have.

        Raises:
            DataError: nothing is preferred, the prompt is no conversation, or the user has `most` preferences, or
                no room for so much text.
            UnknownOwner: the user was deleted.
        """
        _check(turns, chosen, rejected)
        with self._write(owner) as session:
            row = _add_preference(session, owner, turns, chosen, rejected, origin, source=source, most=most)
        return _stored(row)

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
            row = _one(session, PreferenceRow, preference)
            if row is None:
                return None
            given = {"turns": turns and _plain(turns), "chosen": chosen, "rejected": rejected, "source": source}
            changes = {name: value for name, value in given.items() if value not in (None, getattr(row, name))}
            if not changes:
                return _stored(row)
            _withdraw_from_training(session, owner, row.created, 1)
            for name, value in changes.items():
                setattr(row, name, value)
            row.answers = []  # it is the user's own now
            _check(_turns(row.turns), row.chosen, row.rejected)
            row.updated, row.nbytes = _now(), _bytes_of(row.turns, row.chosen, row.rejected, row.source)
            _check_room(session)
            session.add_all([_event(owner, "preference.changed", {"preference": preference}), _to_erase()])
        self._erase()
        return _stored(row)

    def remove_preference(self, owner: Owner, preference: str) -> bool:
        """Delete a preference for good; False where the user has none with this id."""
        with self._write(owner) as session:
            row = _one(session, PreferenceRow, preference)
            if row is None:
                return False
            session.delete(row)
            _withdraw_from_training(session, owner, row.created, 1)
            session.add_all([_event(owner, "preference.deleted", {"preference": preference}), _to_erase()])
        self._erase()
        return True

    def remove_preferences(self, owner: Owner) -> int:
        """Delete all preferences of a user for good, and return how many there were."""
        with self._write(owner) as session:
            oldest = session.scalar(select(func.min(PreferenceRow.created)))
            count = _delete_all(session, PreferenceRow)
            if oldest is not None:
                _withdraw_from_training(session, owner, oldest, count)
                session.add_all([_event(owner, "preferences.deleted", {"count": count}), _to_erase()])
        self._erase()
        return count

    def keep_conversation(
        self,
        owner: Owner,
        model: str,
        turns: Sequence[Turn],
        answer: str,
        shots: Iterable[str],
        *,
        answer_id: str | None = None,
        most: int = 10_000,
    ) -> None:
        """Save a request and its answer, if the user has switched that on and has fewer than `most`, and room for it.

        `answer_id` names the answer: 24 hexadecimal digits; by default random ones.

        Raises:
            DataError: the database can't hold the text.
            UnknownOwner: the user was deleted.
        """
        if not self.account(owner).keep_conversations:
            return  # without a transaction that writes
        row = ConversationRow(
            id=_new_id("conv") if answer_id is None else f"conv_{answer_id}",
            user_id=owner.id,
            created=_now(),
            model=model,
            turns=_plain(turns),
            turns_digest=_digest(turns),
            answer=answer,
            shots=list(shots),
            thumb="",
            nbytes=_bytes_of(_plain(turns), answer),
        )
        with self._write(owner) as session:
            wanted = session.scalars(select(UserRow)).one().keep_conversations  # it may have changed just now
            few = (session.scalar(select(func.count(ConversationRow.number))) or 0) < most
            if wanted and few and _stored_bytes(session) + row.nbytes <= MOST_BYTES:
                session.add(row)

    def conversations(
        self, owner: Owner, *, limit: int, after: str | None = None, newest_first: bool = False
    ) -> Page[StoredAnswer] | None:
        """Some saved conversations of a user; arguments and result as of `page`."""
        return self._page(owner, ConversationRow, _stored_answer, limit, after, newest_first)

    def remove_conversation(self, owner: Owner, conversation: str) -> bool:
        """Delete a saved conversation for good; False where the user has none with this id.

        The preferences that followed from it stay.
        """
        with self._write(owner) as session:
            row = _one(session, ConversationRow, conversation)
            if row is None:
                return False
            session.delete(row)
            session.add_all([_event(owner, "conversation.deleted", {"conversation": conversation}), _to_erase()])
        self._erase()
        return True

    def remove_conversations(self, owner: Owner) -> int:
        """Delete all saved conversations of a user for good, and return how many there were."""
        with self._write(owner) as session:
            count = _delete_all(session, ConversationRow)
            if count:
                session.add_all([_event(owner, "conversations.deleted", {"count": count}), _to_erase()])
        self._erase()
        return count

    # Learning from answers; the rules are in `fspo.serving.feedback`

    def answer(self, owner: Owner, answer_id: str) -> StoredAnswer | None:
        """A saved answer of the user; None where there is none with this id."""
        with self._read(owner) as session:
            row = _answer(session, answer_id)
        return None if row is None else _stored_answer(row)

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
            row = _learn(session, owner, turns, chosen, rejected, origin, answers, most)
        return Learned((_stored(row),), 0)

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
            pairs = thumb_pairs(replace(_judged(row), thumb=thumb), _judged_alike(session, row))
            removed = 0
            if thumb == _thumb(row):  # the user may have edited or deleted what followed: add nothing again
                rows = [_learned(session, *pair.texts, "thumbs", pair.answers) for pair in pairs]
            else:
                removed = _forget_thumb(session, owner, answer_id)
                row.thumb = "" if thumb == "none" else thumb
                session.add(_event(owner, "thumb.set", {"answer": answer_id, "thumb": thumb}))
                turns = _turns(row.turns)
                rows = [_learn(session, owner, turns, *pair.texts, "thumbs", pair.answers, most) for pair in pairs]
        if removed:
            self._erase()
        return Learned(tuple(_stored(row) for row in rows if row is not None), removed)

    # Everything of one person

    def export(self, owner: Owner) -> bytes:
        """Everything that the store holds of a user, as a ZIP archive of JSON files; keys without their digests.

        Raises:
            UnknownOwner: the user was deleted.
        """
        account = asdict(self.account(owner))
        lines = {
            "preferences": [_exported(stored) for stored in self.preferences(owner)],
            "conversations": [_stored_answer(row).as_conversation() for row in self._rows(owner, ConversationRow)],
            "events": [{"created": row.created, "kind": row.kind, **row.detail} for row in self._rows(owner, EventRow)],
            "keys": [asdict(key) for key in self.keys(owner)],
        }
        studies = {table.__tablename__: self._rows(owner, table) for table in (ParticipantRow, StudyItemRow)}
        lines |= {name: [_columns(row) for row in rows] for name, rows in studies.items() if rows}
        policies = [Path(name).name for name in self.trained_on(owner, "policy")]
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("user.json", json.dumps({**account, "policies": policies}, ensure_ascii=False, indent=2))
            for name, records in lines.items():
                text_ = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
                archive.writestr(f"{name}.jsonl", text_)
        return whole.getvalue()

    def withdraw(self, owner: Owner) -> Withdrawal:
        """Delete a user and everything of theirs for good, and record that it happened, without content.

        Raises:
            UnknownOwner: they were deleted already.
        """
        policies, datasets = (tuple(self.trained_on(owner, kind)) for kind in ("policy", "dataset"))
        removed = {}
        with self._write(owner) as session:
            for table in _PERSONAL:
                removed[table.__tablename__] = _delete_all(session, table)
            session.execute(delete(UserRow))
            withdrawal = WithdrawalRow(pseudonym=pseudonym(owner), created=_now(), removed=removed)
            session.add_all([withdrawal, _to_erase()])
        return Withdrawal(removed, self._erase(), policies, datasets)

    def erased(self) -> bool:
        """Whether the files hold no deleted content; False after a deletion while another program reads it."""
        with self._administer() as session:
            return session.scalar(select(ErasureRow.number).limit(1)) is None

    def erase(self) -> bool:
        """Erase what an earlier deletion has left in the files, and return whether nothing is left; see `erased`."""
        return self.erased() or self._erase()

    def _erase(self) -> bool:
        with self._erasing:  # one thread erases what all have deleted
            return erase_deleted(self._engine)

    # Which policies were trained on whose preferences

    def last_withdrawal(self) -> int:
        """Number of the newest withdrawal, 0 for none; read it before the preferences of a training."""
        with self._administer() as session:
            return session.scalar(select(func.max(WithdrawalRow.number))) or 0

    def record_training(
        self,
        name: str,
        people: Iterable[str],
        *,
        after: int | None = None,
        kind: Literal["policy", "dataset"] = "policy",
    ) -> None:
        """Note that these users' preferences are in a policy or a dataset, in place of an earlier one of its name.

        Args:
            name: of the policy or the dataset, such as its folder.
            people: the users' pseudonyms; see `pseudonym`.
            after: `last_withdrawal` before the preferences were read; by default that of now.
            kind: whether a policy is trained on the preferences, or a dataset holds them.

        Raises:
            DataError: the name is too long.
        """
        _check_length(f"name of a {kind}", name, _LONGEST_NAME)
        known = self.last_withdrawal() if after is None else after
        with self._administer(writes=True) as session:
            session.execute(delete(TrainingRow).where(TrainingRow.policy == name))
            _note_training(session, name, kind, people, known)

    def record_reading(self, name: str, owners: Sequence[Owner]) -> int:
        """Note that a dataset will hold these users' preferences, before they are read.

        So a deletion during the reading names the dataset. Notes of an earlier dataset of this name stay until
        `record_training`, since its files are still there.

        Args:
            name: of the dataset, such as its folder.
            owners: the users.

        Returns:
            `last_withdrawal` before the preferences can be read.

        Raises:
            DataError: the name is too long.
        """
        _check_length("name of a dataset", name, _LONGEST_NAME)
        with self._administer(writes=True) as session:
            _wait_for_writers(session, owners)
            known = session.scalar(select(func.max(WithdrawalRow.number))) or 0
            earlier = {
                row.pseudonym: row for row in session.scalars(select(TrainingRow).where(TrainingRow.policy == name))
            }
            people = [pseudonym(owner) for owner in owners]
            for one in people:
                if one in earlier:
                    earlier[one].created = _now()  # with the number of its own withdrawal: the old files count too
            _note_training(session, name, "dataset", (one for one in people if one not in earlier), known)
        return known

    def policies_to_train_again(self) -> list[str]:
        """The policies trained on preferences that were deleted or changed since, or whose user no longer allows it."""
        return self._outdated("policy")

    def datasets_to_delete(self) -> list[str]:
        """The datasets that hold such preferences: deleted or changed since, or of a user who no longer allows it."""
        return self._outdated("dataset")

    def _outdated(self, kind: str) -> list[str]:
        query = (
            select(TrainingRow.policy)
            .join(WithdrawalRow, WithdrawalRow.pseudonym == TrainingRow.pseudonym)
            .where(TrainingRow.kind == kind, WithdrawalRow.number > TrainingRow.withdrawal)
            .distinct()
            .order_by(TrainingRow.policy)
        )
        with self._administer() as session:
            return list(session.scalars(query))

    def withdrawals(self) -> list[tuple[int, dict[str, int]]]:
        """When somebody's data were deleted, and how many rows of each table."""
        with self._administer() as session:
            rows = session.scalars(select(WithdrawalRow).order_by(WithdrawalRow.number))
            return [(row.created, dict(row.removed)) for row in rows]

    def trained_on(self, owner: Owner, kind: str) -> list[str]:
        """The names of what has the user's preferences: policies (`policy`), or datasets (`dataset`)."""
        mine = TrainingRow.pseudonym == pseudonym(owner)
        query = select(TrainingRow.policy).where(mine, TrainingRow.kind == kind)
        with self._administer() as session:
            return list(session.scalars(query.order_by(TrainingRow.policy)))

    # Sessions

    def _rows(self, owner: Owner, table: type[Row]) -> Sequence[Row]:
        with self._read(owner) as session:
            return session.scalars(select(table).order_by(table.number)).all()

    def _page(
        self,
        owner: Owner,
        table: type[Named],
        shown: Callable[[Named], Shown],
        limit: int,
        after: str | None,
        newest_first: bool,
    ) -> Page[Shown] | None:
        query = select(table)
        with self._read(owner) as session:
            if after is not None:
                last = _one(session, table, after)
                if last is None:
                    return None
                query = query.where(table.number < last.number if newest_first else table.number > last.number)
            order = table.number.desc() if newest_first else table.number.asc()
            rows = session.scalars(query.order_by(order).limit(limit + 1)).all()
        return Page(tuple(map(shown, rows[:limit])), len(rows) > limit)

    @contextmanager
    def _read(self, owner: Owner) -> Iterator[Session]:
        with explained(), OwnSession(self._engine, expire_on_commit=False, info={"owner": owner}) as session:
            yield session

    @contextmanager
    def _write(self, owner: Owner) -> Iterator[Session]:
        """A transaction that writes.

        Raises:
            UnknownOwner: the user was deleted.
        """
        own = OwnSession(self._writing, expire_on_commit=False, info={"owner": owner})
        with self._turn, explained(), own as session, session.begin():
            # In Postgres this waits for a deletion of the user, and makes it wait.
            if session.scalar(select(UserRow.id).with_for_update()) is None:
                raise _unknown()
            yield session
            _drop_old_events(session)

    @contextmanager
    def _administer(self, *, writes: bool = False) -> Iterator[Session]:
        """A session for what belongs to no one person: names, keys by their digests, withdrawals, trainings."""
        bind, turn = (self._writing, self._turn) if writes else (self._engine, nullcontext())
        with turn, explained(), Session(bind, expire_on_commit=False) as session, session.begin():
            yield session


class _Turn(AbstractContextManager[None]):
    """Lets one thread of this process write at a time.

    SQLite has one writer. Without a turn the other threads try again and again, which takes time from the one that
    writes, and some of them find the database locked each time until they give up.
    """

    def __init__(self, seconds: float) -> None:
        """`seconds` is how long a thread waits."""
        self._lock, self._seconds = threading.Lock(), seconds

    def __enter__(self) -> None:
        """Wait.

        Raises:
            StoreBusy: it takes too long.
        """
        if not self._lock.acquire(timeout=self._seconds):
            raise StoreBusy("The store is busy; nothing was changed. Try again.")

    def __exit__(self, *_: object) -> None:
        """Let the next one write."""
        self._lock.release()


@dataclass(frozen=True)
class Page(Generic[Shown]):
    """Some preferences or conversations of a user."""

    entries: tuple[Shown, ...]
    more: bool
    """Whether there are further ones."""


def _one(session: Session, table: type[Named], name: str) -> Named | None:
    """The row with this id, if the session's owner has it."""
    return session.scalar(select(table).where(table.id == name)) if _ID.fullmatch(name) else None


def _add_preference(
    session: Session,
    owner: Owner,
    turns: Sequence[Turn],
    chosen: str,
    rejected: str,
    origin: Origin,
    *,
    source: str = "",
    answers: Sequence[str] = (),
    most: int,
) -> PreferenceRow:
    if (session.scalar(select(func.count(PreferenceRow.number))) or 0) >= most:
        raise DataError(f"You have {most:,} preferences, which is the limit; delete some first.")
    row = PreferenceRow(
        id=_new_id("pref"),
        user_id=owner.id,
        created=_now(),
        updated=_now(),
        turns=_plain(turns),
        chosen=chosen,
        rejected=rejected,
        origin=origin,
        source=source,
        answers=list(answers),
        nbytes=_bytes_of(_plain(turns), chosen, rejected, source),
    )
    session.add_all([row, _event(owner, "preference.added", {"preference": row.id})])
    _check_room(session)
    return row


def _check_room(session: Session) -> None:
    """Refuse what makes the user's texts too large; the transaction then changes nothing."""
    session.flush()
    if _stored_bytes(session) > MOST_BYTES:
        most = MOST_BYTES // 2**20
        raise DataError(f"Your preferences and conversations have {most:,} MiB, which is the limit; delete some first.")


def _stored_bytes(session: Session) -> int:
    """Of the texts of the session's owner."""
    return sum(session.scalar(select(func.sum(table.nbytes))) or 0 for table in (PreferenceRow, ConversationRow))


def _bytes_of(*texts: object) -> int:
    """How much there is of texts, and of lists of them, in UTF-8."""
    nested = (
        _bytes_of(*part) if isinstance(part, list) else len(str(part).encode("utf-8", "replace")) for part in texts
    )
    return sum(nested)


def _learn(
    session: Session,
    owner: Owner,
    turns: Sequence[Turn],
    chosen: str,
    rejected: str,
    origin: Origin,
    answers: Sequence[str],
    most: int,
) -> PreferenceRow:
    """Add the preference, unless the newest one that follows from these answers says the same."""
    _check(turns, chosen, rejected)  # before the texts are in a query
    known = _learned(session, chosen, rejected, origin, answers)
    return known or _add_preference(session, owner, turns, chosen, rejected, origin, answers=answers, most=most)


def _learned(
    session: Session, chosen: str, rejected: str, origin: Origin, answers: Sequence[str]
) -> PreferenceRow | None:
    """The newest preference that follows from these answers and compares these texts, if it says the same."""
    either = chosen, rejected
    compared = PreferenceRow.chosen.in_(either), PreferenceRow.rejected.in_(either), PreferenceRow.origin == origin
    for row in session.scalars(select(PreferenceRow).where(*compared).order_by(PreferenceRow.number.desc())):
        if sorted(row.answers) == sorted(answers):
            return row if row.chosen == chosen else None
    return None


def _answer(session: Session, answer_id: str) -> ConversationRow | None:
    return _one(session, ConversationRow, f"conv_{answer_id}")


def _judged_alike(session: Session, row: ConversationRow) -> list[JudgedAnswer]:
    """The user's other answers to the same request that have a thumb, newest first."""
    query = select(ConversationRow).where(
        ConversationRow.turns_digest == row.turns_digest,
        ConversationRow.thumb != "",
        ConversationRow.number != row.number,
    )
    found = session.scalars(query.order_by(ConversationRow.number.desc()))
    return [_judged(other) for other in found if other.turns == row.turns]


def _judged(row: ConversationRow) -> JudgedAnswer:
    return JudgedAnswer(row.id.removeprefix("conv_"), row.answer, _thumb(row))


def _stored_answer(row: ConversationRow) -> StoredAnswer:
    return StoredAnswer(
        id=row.id.removeprefix("conv_"),
        turns=_turns(row.turns),
        text=row.answer,
        thumb=_thumb(row),
        created=row.created,
        model=row.model,
        shots=tuple(row.shots),
    )


def _thumb(row: ConversationRow) -> Thumb:
    return row.thumb or "none"  # type: ignore[return-value]


def _forget_thumb(session: Session, owner: Owner, answer_id: str) -> int:
    """Delete the preferences that follow from the answer's thumb, and return how many there were."""
    rows = session.scalars(select(PreferenceRow).where(PreferenceRow.origin == "thumbs")).all()
    gone = [row for row in rows if answer_id in row.answers]
    for row in gone:
        session.delete(row)
        session.add(_event(owner, "preference.deleted", {"preference": row.id}))
        _withdraw_from_training(session, owner, row.created, 1)
    if gone:
        session.add(_to_erase())
        session.flush()
    return len(gone)


def _drop_old_events(session: Session) -> None:
    """Delete the oldest events beyond `_MOST_EVENTS`, but not the one that `Store.marks` shows."""
    session.flush()
    newest_first = select(EventRow.number).order_by(EventRow.number.desc())
    last = session.scalar(newest_first.offset(_MOST_EVENTS).limit(1))
    if last is not None:
        mark = session.scalar(newest_first.where(EventRow.kind.in_(_TAKEN_BACK)).limit(1))
        session.execute(delete(EventRow).where(EventRow.number <= last, EventRow.number != (mark or 0)))


def _delete_all(session: Session, table: type[Personal]) -> int:
    """Delete all of the session's owner, and return how many rows there were."""
    return len(session.execute(delete(table).returning(table.number)).all())


def _withdraw_from_training(session: Session, owner: Owner, oldest: int, count: int) -> None:
    """Record that preferences are taken back, the oldest from the time `oldest`, if a policy was trained since."""
    trained = select(TrainingRow.policy).where(TrainingRow.pseudonym == pseudonym(owner), TrainingRow.created >= oldest)
    if session.scalar(trained.limit(1)) is not None:
        session.add(WithdrawalRow(pseudonym=pseudonym(owner), created=_now(), removed={"preferences": count}))


def _note_training(session: Session, name: str, kind: str, people: Iterable[str], known: int) -> None:
    for one in dict.fromkeys(people):
        session.add(TrainingRow(policy=name, kind=kind, pseudonym=one, created=_now(), withdrawal=known))


def _wait_for_writers(session: Session, owners: Sequence[Owner]) -> None:
    """Wait for transactions on these users, and let new ones wait for this one; see `Store._write`.

    In SQLite a transaction that writes is alone anyway.
    """
    ids = sorted(owner.id for owner in owners)  # two calls at once lock in one order
    for start in range(0, len(ids), _AT_ONCE):
        some = UserRow.id.in_(ids[start : start + _AT_ONCE])
        session.execute(select(UserRow.id).where(some).order_by(UserRow.id).with_for_update())


def _check_length(what: str, value: str, longest: int) -> None:
    if len(value) > longest:
        raise DataError(f"A {what} has at most {longest} characters; this one has {len(value):,}.")


def _check(turns: Sequence[Turn], chosen: str, rejected: str) -> None:
    check_storable(chosen, rejected, *(turn.text for turn in as_turns(turns)))
    if not chosen.strip() or not rejected.strip():
        raise DataError("A preference needs two responses; one of them is empty.")
    if chosen.strip() == rejected.strip():
        raise DataError("The two responses are the same text, so nothing is preferred.")


def _event(owner: Owner, kind: str, detail: dict[str, Any]) -> EventRow:
    return EventRow(user_id=owner.id, created=_now(), kind=kind, detail=detail)


def _to_erase() -> ErasureRow:
    """The mark of a deletion, for its transaction; see `erase_deleted`."""
    return ErasureRow(created=_now())


def _account(row: UserRow, preferences: int) -> Account:
    return Account(
        id=row.id,
        name=row.name,
        description=row.description,
        personalise=row.personalise,
        keep_conversations=row.keep_conversations,
        allow_training=row.allow_training,
        rate=row.rate,
        created=row.created,
        preferences=preferences,
    )


def _stored(row: PreferenceRow) -> StoredPreference:
    source = {"origin": row.origin} | ({"source": row.source} if row.source else {})
    preference = Preference.after(row.user_id, _turns(row.turns), row.chosen, row.rejected, source=source)
    return StoredPreference(row.id, preference, row.created, row.updated)


def _exported(stored: StoredPreference) -> dict[str, Any]:
    one = stored.preference
    return {
        "id": stored.id,
        "created": stored.created,
        "updated": stored.updated,
        "user": one.user,
        "prompt": _messages(one.messages),
        "chosen": one.chosen,
        "rejected": one.rejected,
        "source": dict(one.source),
    }


def _digest(turns: Sequence[Turn]) -> str:
    """What two requests with the same turns share."""
    return hashlib.sha256(json.dumps(_plain(turns)).encode()).hexdigest()


def _columns(row: Personal) -> dict[str, Any]:
    """A row of a study for the person themselves, without what tells the arms of a blind study apart."""
    hidden = {"number", "user_id", "invitation", "first_arm", "second_arm", "correct", "shots", "matched"}
    return {column.key: getattr(row, column.key) for column in row.__table__.columns if column.key not in hidden}


def _plain(turns: Sequence[Turn]) -> list[list[str]]:
    return [[turn.role, turn.text] for turn in turns]


def _turns(plain: Sequence[Sequence[str]]) -> tuple[Turn, ...]:
    return tuple(Turn(role, content) for role, content in plain)  # type: ignore[arg-type]


def _messages(turns: Sequence[Turn]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.text} for turn in turns]


def _unknown() -> UnknownOwner:
    return UnknownOwner("This user does not exist any more.")


def user_row(name: str, *, description: str = "", rate: str = "") -> UserRow:
    """A new user, for a transaction."""
    return UserRow(
        id=_new_id("user"),
        name=name,
        description=description,
        personalise=True,
        keep_conversations=False,
        allow_training=False,
        rate=rate,
        created=_now(),
    )


def add_key(session: Session, owner: Owner) -> NewKey:
    """Add a key to a transaction."""
    key = new_key()
    row = KeyRow(id=_new_id("key"), user_id=owner.id, created=_now(), digest=key_digest(key), ending=key[-4:])
    session.add_all([row, _event(owner, "key.added", {"key": row.id})])
    return NewKey(row.id, key)


def _new_id(kind: Literal["user", "key", "pref", "conv"]) -> str:
    return f"{kind}_{secrets.token_hex(12)}"


def _now() -> int:
    return int(time.time())
