"""The tables of the store. Everything that belongs to one person is in a `Personal` table."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Integer, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = [
    "Base",
    "ConversationRow",
    "ErasureRow",
    "EventRow",
    "KeyRow",
    "Personal",
    "PreferenceRow",
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
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[str] = mapped_column(_ID, unique=True)
    turns: Mapped[list[list[str]]] = mapped_column(JSON)
    chosen: Mapped[str] = mapped_column(Text)
    rejected: Mapped[str] = mapped_column(Text)
    source: Mapped[str] = mapped_column(Text)
    updated: Mapped[int] = mapped_column(BigInteger)


class ConversationRow(Personal):
    """A request and its answer, of people who have switched that on."""

    __tablename__ = "conversations"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[str] = mapped_column(_ID, unique=True)
    model: Mapped[str] = mapped_column(String(64))
    turns: Mapped[list[list[str]]] = mapped_column(JSON)
    answer: Mapped[str] = mapped_column(Text)
    shots: Mapped[list[str]] = mapped_column(JSON)


class EventRow(Personal):
    """What happened to a person's data; no content."""

    __tablename__ = "events"
    __table_args__ = ({"sqlite_autoincrement": True},)

    kind: Mapped[str] = mapped_column(String(64))
    detail: Mapped[dict[str, Any]] = mapped_column(JSON)


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
    """A policy was trained on a person's preferences."""

    __tablename__ = "trainings"

    policy: Mapped[str] = mapped_column(String(200), primary_key=True)
    pseudonym: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)
    created: Mapped[int] = mapped_column(BigInteger)
    withdrawal: Mapped[int] = mapped_column(BigInteger)
    """Number of the newest withdrawal when the preferences were read; 0 for none."""
