"""Whose data may be read: owners, and the sessions that are the only way to the tables.

All queries of a person's data go through `OwnSession`, which adds the owner to each of them, and refuses a query where
there is no owner. An `Owner` comes from a key (`Store.authenticate`) or, on the command line of an administrator,
from a user's name.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar

from sqlalchemy import Engine, delete, event, func, select, text
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria

from fspo.errors import DataError
from fspo.serving.connection import StoreBusy, connect, erase_deleted, explained, public_place
from fspo.serving.schema import ConversationRow, ErasureRow, EventRow, KeyRow, Personal, PreferenceRow, UserRow

__all__ = [
    "PSEUDONYM",
    "NoOwner",
    "OwnSession",
    "Owner",
    "Page",
    "Sessions",
    "UnknownOwner",
    "batches",
    "delete_all",
    "erasure_row",
    "event_row",
    "new_id",
    "now",
    "pseudonym",
    "row_named",
]

PSEUDONYM = re.compile(r"person-[0-9a-f]{16}")
"""The form of `pseudonym`."""
_TAKEN_BACK = ("preference.changed", "preference.deleted", "preferences.deleted", "account.changed", "study.withdrawn")
"""Kinds of events after which earlier content must not be used."""
_MOST_EVENTS = 10_000
"""Of a user; the oldest ones go."""
_VERSIONS = {
    "sqlite": "SELECT (SELECT max(number) FROM events), (SELECT max(number) FROM withdrawals)",
    "postgresql": "SELECT txid_current_snapshot()::text",  # a larger number may be visible before a smaller one
}
"""What `Sessions.version` reads."""
_AT_ONCE = 500
"""Users in one query."""
_ID = re.compile(r"[a-z]+_[0-9a-f]{24}")
"""The form of `new_id`. No other text goes into a query: Postgres has no NUL."""
Row = TypeVar("Row", bound=Personal)
Named = TypeVar("Named", KeyRow, PreferenceRow, ConversationRow)
Shown = TypeVar("Shown")


@dataclass(frozen=True)
class Owner:
    """Whose data may be read. Only the store makes one."""

    id: str


def pseudonym(owner: Owner) -> str:
    """The user's id in datasets, and in the records that outlive a deletion.

    It shows that a user was there, and not who: without the store's random id of the user nobody can compute it.
    """
    return "person-" + hashlib.sha256(b"fspo user " + owner.id.encode()).hexdigest()[:16]


class NoOwner(RuntimeError):
    """A query of personal data without an owner: a mistake in the program, which reads nothing."""


class OwnSession(Session):
    """A session that sees the data of one owner, `info["owner"]`."""


@event.listens_for(OwnSession, "do_orm_execute")
def _only_of_the_owner(state: ORMExecuteState) -> None:
    """Add the owner to each query of personal data.

    Raises:
        NoOwner: there is none, or the statement is text that can't be checked.
    """
    owner = state.session.info.get("owner")
    if not isinstance(owner, Owner) or not owner.id:
        raise NoOwner("Personal data were queried without an owner.")
    if not state.is_orm_statement or not (state.is_select or state.is_delete):
        raise NoOwner("Only a query of the tables can be limited to an owner.")
    theirs = owner.id
    state.statement = state.statement.options(
        with_loader_criteria(Personal, lambda table: table.user_id == theirs, include_aliases=True),
        with_loader_criteria(UserRow, UserRow.id == theirs, include_aliases=True),
    )


class UnknownOwner(DataError):
    """The user does not exist any more."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("This user does not exist any more.")


@dataclass(frozen=True)
class Page(Generic[Shown]):
    """Some preferences or conversations of a user."""

    entries: tuple[Shown, ...]
    more: bool
    """Whether there are further ones."""


class Sessions:
    """Sessions of the store's database, SQLite or Postgres. Its methods may be called from any thread."""

    def __init__(self, engine: Engine, place: str, *, busy_seconds: float = 5.0) -> None:
        """See `open`; `place` is what errors call the store."""
        self._place = place
        self._engine = engine
        self._turn = _Turn(busy_seconds) if engine.dialect.name == "sqlite" else nullcontext()
        self._writing = engine.execution_options(writes=True)
        self._erasing = threading.Lock()
        self._erase()  # what a deletion before a crash has left

    @classmethod
    def open(cls, place: str | Path, *, busy_seconds: float = 5.0) -> Self:
        """Open the store, and create it if it is missing; arguments and errors as of `connect`."""
        return cls(connect(place, busy_seconds=busy_seconds), public_place(place), busy_seconds=busy_seconds)

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

    def version(self) -> str:
        """A text that is another one after each change of `marks`, whichever program made it; it is cheaper to read."""
        with explained(), self._engine.connect() as connection:
            return str(connection.execute(text(_VERSIONS[self._engine.dialect.name])).one())

    def marks(self, owners: Sequence[str]) -> dict[str, int]:
        """How far each user's deletions and changes have come; a user who does not exist is left out.

        Returns:
            User -> the number of the last event that deleted or changed something of theirs; 0 for none.
        """
        found: dict[str, int] = {}
        taken_back = (EventRow.user_id == UserRow.id) & EventRow.kind.in_(_TAKEN_BACK)
        query = select(UserRow.id, func.max(EventRow.number)).outerjoin(EventRow, taken_back).group_by(UserRow.id)
        with self._administer() as session:
            for some in batches(owners):
                rows = session.execute(query.where(UserRow.id.in_(some)))
                found |= {owner: number or 0 for owner, number in rows}
        return found

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
                raise UnknownOwner
            yield session
            _drop_old_events(session)

    @contextmanager
    def _administer(self, *, writes: bool = False) -> Iterator[Session]:
        """A session for what belongs to no one person: names, keys by their digests, withdrawals, trainings."""
        bind, turn = (self._writing, self._turn) if writes else (self._engine, nullcontext())
        with turn, explained(), Session(bind, expire_on_commit=False) as session, session.begin():
            yield session

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
                last = row_named(session, table, after)
                if last is None:
                    return None
                query = query.where(table.number < last.number if newest_first else table.number > last.number)
            order = table.number.desc() if newest_first else table.number.asc()
            rows = session.scalars(query.order_by(order).limit(limit + 1)).all()
        return Page(tuple(map(shown, rows[:limit])), len(rows) > limit)


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


def batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """The ids in parts that fit into one query."""
    return (ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE))


def row_named(session: Session, table: type[Named], name: str) -> Named | None:
    """The row with this id, if the session's owner has it."""
    return session.scalar(select(table).where(table.id == name)) if _ID.fullmatch(name) else None


def _drop_old_events(session: Session) -> None:
    """Delete the oldest events beyond `_MOST_EVENTS`, but not the one that `Sessions.marks` shows."""
    session.flush()
    newest_first = select(EventRow.number).order_by(EventRow.number.desc())
    last = session.scalar(newest_first.offset(_MOST_EVENTS).limit(1))
    if last is not None:
        mark = session.scalar(newest_first.where(EventRow.kind.in_(_TAKEN_BACK)).limit(1))
        session.execute(delete(EventRow).where(EventRow.number <= last, EventRow.number != (mark or 0)))


def delete_all(session: Session, table: type[Personal]) -> int:
    """Delete all of the session's owner, and return how many rows there were."""
    return len(session.execute(delete(table).returning(table.number)).all())


def event_row(owner: Owner, kind: str, detail: dict[str, Any]) -> EventRow:
    """Something that happened to the owner's data, for its transaction; `detail` has no content."""
    return EventRow(user_id=owner.id, created=now(), kind=kind, detail=detail)


def erasure_row() -> ErasureRow:
    """The mark of a deletion, for its transaction; see `erase_deleted`."""
    return ErasureRow(created=now())


def new_id(kind: Literal["user", "key", "pref", "conv"]) -> str:
    """A random id."""
    return f"{kind}_{secrets.token_hex(12)}"


def now() -> int:
    """Seconds since 1970, UTC."""
    return int(time.time())
