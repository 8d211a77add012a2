"""The tables of the store. Everything that belongs to one person is in a `Personal` table."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, MetaData, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = [
    "Base",
    "ConversationRow",
    "ErasureRow",
    "EventRow",
    "KeyRow",
    "ParticipantRow",
    "Personal",
    "PreferenceRow",
    "StudyItemRow",
    "StudyRow",
    "TrainingRow",
    "UserRow",
    "WithdrawalRow",
]

_NUMBER = BigInteger().with_variant(Integer, "sqlite")
_ID = String(64)


class Base(DeclarativeBase):
    """All tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class UserRow(Base):
    """A person with access to the API. Times are seconds since 1970, UTC."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    description: Mapped[str] = mapped_column(Text)
    personalise: Mapped[bool]
    keep_conversations: Mapped[bool]
    allow_training: Mapped[bool]
    rate: Mapped[str] = mapped_column(String(100))
    created: Mapped[int] = mapped_column(BigInteger)


class Personal(Base):
    """A row that belongs to one person and goes with them."""

    __abstract__ = True

    number: Mapped[int] = mapped_column(_NUMBER, primary_key=True, autoincrement=True)
    user_id: Mapped[str] = mapped_column(_ID, ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created: Mapped[int] = mapped_column(BigInteger)


class KeyRow(Personal):
    """A key, as its digest."""

    __tablename__ = "keys"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[str] = mapped_column(_ID, unique=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    ending: Mapped[str] = mapped_column(String(8))


class PreferenceRow(Personal):
    """A labelled preference."""

    __tablename__ = "preferences"
    __table_args__ = (Index("ix_preferences_nbytes", "user_id", "nbytes"), {"sqlite_autoincrement": True})

    id: Mapped[str] = mapped_column(_ID, unique=True)
    turns: Mapped[list[list[str]]] = mapped_column(JSON)
    chosen: Mapped[str] = mapped_column(Text)
    rejected: Mapped[str] = mapped_column(Text)
    origin: Mapped[str] = mapped_column(String(32))
    source: Mapped[str] = mapped_column(Text)
    answers: Mapped[list[str]] = mapped_column(JSON)
    """Ids of the answers that it follows from; see `fspo.serving.feedback`."""
    nbytes: Mapped[int] = mapped_column(BigInteger)
    """Of all texts."""
    updated: Mapped[int] = mapped_column(BigInteger)


class ConversationRow(Personal):
    """A request and its answer, of people who have switched that on."""

    __tablename__ = "conversations"
    __table_args__ = (Index("ix_conversations_nbytes", "user_id", "nbytes"), {"sqlite_autoincrement": True})

    id: Mapped[str] = mapped_column(_ID, unique=True)
    model: Mapped[str] = mapped_column(String(64))
    turns: Mapped[list[list[str]]] = mapped_column(JSON)
    turns_digest: Mapped[str] = mapped_column(String(64))
    """The same for the same turns; empty in rows of earlier versions."""
    answer: Mapped[str] = mapped_column(Text)
    shots: Mapped[list[str]] = mapped_column(JSON)
    thumb: Mapped[str] = mapped_column(String(8))
    """`up`, `down`, or empty."""
    nbytes: Mapped[int] = mapped_column(BigInteger)
    """Of all texts."""


class EventRow(Personal):
    """What happened to a person's data; no content."""

    __tablename__ = "events"
    __table_args__ = ({"sqlite_autoincrement": True},)

    kind: Mapped[str] = mapped_column(String(64))
    detail: Mapped[dict[str, Any]] = mapped_column(JSON)


class StudyRow(Base):
    """A human study as it was registered before its first participant."""

    __tablename__ = "studies"

    name: Mapped[str] = mapped_column(_ID, primary_key=True)
    fingerprint: Mapped[str] = mapped_column(_ID)
    """SHA-256 of the design, which may not change any more."""
    registration: Mapped[dict[str, Any]] = mapped_column(JSON)
    created: Mapped[int] = mapped_column(BigInteger)


class ParticipantRow(Personal):
    """A user who gave consent to a study. Times but `created` are milliseconds since 1970; 0 means not yet."""

    __tablename__ = "study_participants"
    __table_args__ = ({"sqlite_autoincrement": True},)

    study: Mapped[str] = mapped_column(_ID, index=True)
    language: Mapped[str] = mapped_column(String(32))
    consent: Mapped[str] = mapped_column(Text)
    consented: Mapped[int] = mapped_column(BigInteger)
    seen: Mapped[int] = mapped_column(BigInteger)
    """The last click."""
    about: Mapped[dict[str, str] | None] = mapped_column(JSON(none_as_null=True))
    """What they said about themselves; None: not answered yet."""
    begun: Mapped[int] = mapped_column(BigInteger)
    """When they asked for the answers of the second stage."""
    finished: Mapped[int] = mapped_column(BigInteger)
    withdrawn: Mapped[int] = mapped_column(BigInteger)
    closed: Mapped[str] = mapped_column(String(16))
    """Why the study ended early for them; empty if it did not."""
    site: Mapped[dict[str, str]] = mapped_column(JSON)
    """The parameters of the recruiting site; after a withdrawal only a digest of them."""
    invitation: Mapped[str | None] = mapped_column(_ID, unique=True)
    """Digest of the study and the site's id of the participant, so that nobody takes part twice."""


class StudyItemRow(Personal):
    """One item of a study as it is shown to one participant, with the vote that counts; see `fspo.study.records`."""

    __tablename__ = "study_items"
    __table_args__ = (UniqueConstraint("user_id", "stage", "position"), {"sqlite_autoincrement": True})

    id: Mapped[str] = mapped_column(_ID, unique=True)
    stage: Mapped[str] = mapped_column(String(16))
    position: Mapped[int]
    prompt: Mapped[str] = mapped_column(Text)
    topic: Mapped[str] = mapped_column(Text)
    first: Mapped[str] = mapped_column(Text)
    second: Mapped[str] = mapped_column(Text)
    first_arm: Mapped[str] = mapped_column(_ID)
    second_arm: Mapped[str] = mapped_column(_ID)
    first_traits: Mapped[dict[str, str]] = mapped_column(JSON)
    second_traits: Mapped[dict[str, str]] = mapped_column(JSON)
    correct: Mapped[str] = mapped_column(String(8))
    """The correct choice of an attention item; empty for others."""
    shots: Mapped[int]
    matched: Mapped[bool]
    choice: Mapped[str] = mapped_column(String(8))
    shown: Mapped[int] = mapped_column(BigInteger)
    voted: Mapped[int] = mapped_column(BigInteger)


class WithdrawalRow(Base):
    """Somebody's data were deleted: when and how many rows, and no content."""

    __tablename__ = "withdrawals"

    number: Mapped[int] = mapped_column(_NUMBER, primary_key=True, autoincrement=True)
    pseudonym: Mapped[str] = mapped_column(String(64), index=True)
    created: Mapped[int] = mapped_column(BigInteger)
    removed: Mapped[dict[str, int]] = mapped_column(JSON)


class ErasureRow(Base):
    """A deletion whose content may still be in the files of the database; the row goes when it is not."""

    __tablename__ = "erasures"
    __table_args__ = ({"sqlite_autoincrement": True},)

    number: Mapped[int] = mapped_column(_NUMBER, primary_key=True, autoincrement=True)
    created: Mapped[int] = mapped_column(BigInteger)


class TrainingRow(Base):
    """A policy was trained on a person's preferences, or a dataset holds them."""

    __tablename__ = "trainings"

    policy: Mapped[str] = mapped_column(String(1_000), primary_key=True)
    """Its name, or the dataset's."""
    kind: Mapped[str] = mapped_column(String(16))
    """`policy` or `dataset`."""
    pseudonym: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)
    created: Mapped[int] = mapped_column(BigInteger)
    withdrawal: Mapped[int] = mapped_column(BigInteger)
    """Number of the newest withdrawal when the preferences were read; 0 for none."""
