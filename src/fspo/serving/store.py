"""The store of people: their accounts and keys, and everything of one person, exported or deleted.

What else it offers is in the classes that `Store` has as bases. `fspo.serving.ownership` alone opens the tables.
"""

from __future__ import annotations

import hmac
import io
import json
import zipfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from fspo.errors import DataError
from fspo.printing import command, nearest
from fspo.serving.api_keys import key_digest, new_key
from fspo.serving.ownership import (
    Owner,
    UnknownOwner,
    delete_all,
    erasure_row,
    event_row,
    new_id,
    now,
    pseudonym,
    row_named,
)
from fspo.serving.saved_answers import SavedAnswers, StoredAnswer
from fspo.serving.schema import (
    ConversationRow,
    EventRow,
    KeyRow,
    ParticipantRow,
    Personal,
    PreferenceRow,
    StudyItemRow,
    UserRow,
    WithdrawalRow,
)
from fspo.serving.stored_preferences import Preferences
from fspo.serving.texts import check_description, check_length
from fspo.serving.trainings import Trainings, withdraw_from_training

__all__ = ["Account", "NewKey", "Store", "StoredKey", "Withdrawal", "add_key", "user_row"]

_LONGEST_RATE = 100
"""Characters."""


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

    @classmethod
    def of(cls, row: UserRow, preferences: int) -> Self:
        """The account of a row."""
        shared = {field.name: getattr(row, field.name) for field in fields(cls) if field.name != "preferences"}
        return cls(**shared, preferences=preferences)


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


class Store(Preferences, SavedAnswers, Trainings):
    """The data of all people, in SQLite or Postgres. Its methods may be called from any thread."""

    # Users

    def add_user(self, name: str, *, description: str = "", rate: str = "") -> Account:
        """Add a user.

        Raises:
            DataError: the name is taken or empty, or a text is too long or has a control character.
        """
        if not name.strip() or len(name) > 200 or not name.isprintable():
            raise DataError("A user's name has between 1 and 200 characters, on one line.")
        check_length("limit of answers", rate, _LONGEST_RATE)
        check_description(description)
        row = user_row(name, description=description, rate=rate)
        try:
            with self._administer(writes=True) as session:
                session.add(row)
        except IntegrityError:
            raise DataError(f"There is a user '{name}' already; choose another name.") from None
        return Account.of(row, 0)

    def users(self) -> list[Account]:
        """All users in the order of their names; for administrators."""
        counts = select(PreferenceRow.user_id, func.count().label("n")).group_by(PreferenceRow.user_id).subquery()
        query = select(UserRow, counts.c.n).outerjoin(counts, counts.c.user_id == UserRow.id).order_by(UserRow.name)
        with self._administer() as session:
            return [Account.of(row, count or 0) for row, count in session.execute(query)]

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
            listing = command("fspo", "users", "list", "--store", self._place)
            hint = f"; did you mean '{close}'?" if close else f"; `{listing}` shows all of them."
            raise DataError(f"The store {self._place} has no user '{name}'{hint}")
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
            raise UnknownOwner
        return Account.of(row, count)

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
        check_length("limit of answers", rate or "", _LONGEST_RATE)
        check_description(description or "")
        with self._write(owner) as session:
            row = session.scalars(select(UserRow)).one()
            changes = {name: value for name, value in given.items() if value not in (None, getattr(row, name))}
            replaced = "description" in changes and bool(row.description)
            if replaced:
                session.add(erasure_row())
            if replaced or (row.allow_training and "allow_training" in changes):
                withdraw_from_training(session, owner, 0, 0)
            for name, value in changes.items():
                setattr(row, name, value)
            if changes:
                session.add(event_row(owner, "account.changed", {"settings": sorted(changes)}))
            account = Account.of(row, session.scalar(select(func.count(PreferenceRow.number))) or 0)
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
            row = row_named(session, KeyRow, key)
            if row is None:
                raise DataError(f"The user has no key '{key}'. `fspo keys list USER` shows all keys of a user.")
            session.delete(row)
            session.add(event_row(owner, "key.revoked", {"key": key}))

    def authenticate(self, key: str) -> Owner | None:
        """The owner of this key; None if it belongs to no user, or opens a study and nothing else."""
        return self._owner_of(key, KeyRow.user_id.not_in(select(ParticipantRow.user_id)))

    def _owner_of(self, key: str, whose: ColumnElement[bool]) -> Owner | None:
        digest = key_digest(key)
        with self._administer() as session:
            row = session.scalar(select(KeyRow).where(KeyRow.digest == digest, whose))
            return Owner(row.user_id) if row is not None and hmac.compare_digest(row.digest, digest) else None

    # Everything of one person

    def export(self, owner: Owner) -> bytes:
        """Everything that the store holds of a user, as a ZIP archive of JSON files; keys without their digests.

        Raises:
            UnknownOwner: the user was deleted.
        """
        account = asdict(self.account(owner))
        lines = {
            "preferences": [stored.as_record() for stored in self.preferences(owner)],
            "conversations": [StoredAnswer.of(row).as_conversation() for row in self._rows(owner, ConversationRow)],
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
            for table in Personal.__subclasses__():
                removed[table.__tablename__] = delete_all(session, table)
            session.execute(delete(UserRow))
            withdrawal = WithdrawalRow(pseudonym=pseudonym(owner), created=now(), removed=removed)
            session.add_all([withdrawal, erasure_row()])
        return Withdrawal(removed, self._erase(), policies, datasets)


def user_row(name: str, *, description: str = "", rate: str = "") -> UserRow:
    """A new user, for a transaction."""
    return UserRow(
        id=new_id("user"),
        name=name,
        description=description,
        personalise=True,
        keep_conversations=False,
        allow_training=False,
        rate=rate,
        created=now(),
    )


def add_key(session: Session, owner: Owner) -> NewKey:
    """Add a key to a transaction."""
    key = new_key()
    row = KeyRow(id=new_id("key"), user_id=owner.id, created=now(), digest=key_digest(key), ending=key[-4:])
    session.add_all([row, event_row(owner, "key.added", {"key": row.id})])
    return NewKey(row.id, key)


def _columns(row: Personal) -> dict[str, Any]:
    """A row of a study for the person themselves, without what tells the arms of a blind study apart."""
    hidden = {"number", "user_id", "invitation", "first_arm", "second_arm", "correct", "shots", "matched"}
    return {column.key: getattr(row, column.key) for column in row.__table__.columns if column.key not in hidden}
