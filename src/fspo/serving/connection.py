"""The database of the store: opened, migrated, with errors in one sentence, and with deleted content overwritten."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import quote

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, delete, event, false, make_url, text
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.exc import DataError as InvalidValue
from sqlalchemy.exc import TimeoutError as NoFreeConnection

from fspo.errors import ConfigError, DataError, StorageError
from fspo.files import is_full_disk, locked, storage_error
from fspo.keys import hidden
from fspo.paths import expanded
from fspo.printing import counted
from fspo.serving.logged_errors import outlined
from fspo.serving.schema import Base, ErasureRow, UserRow

__all__ = [
    "STORE_FILE",
    "StoreBusy",
    "StoreFull",
    "StoreState",
    "check_place",
    "connect",
    "erase_deleted",
    "explained",
    "look_at",
    "public_place",
]

STORE_FILE = "store.sqlite"
_BUSY_SECONDS = 5.0
_LOCK_NUMBER = 0x6673706F
"""Names the lock of a migration in Postgres."""
_POSTGRES_FULL = "53100"
_POSTGRES_BUSY = ("55P03", "40P01")
"""A timeout of a lock, and a deadlock."""
_ERASING_TRIES = 5
_ERASING_PAUSE = 0.1
"""Seconds between two tries to erase, and how long each waits for a lock."""
_POSTGRES_AGES = """
SELECT max(number), min(age(xmin)), (
    SELECT max(age(held)) FROM (
        SELECT unnest(ARRAY[backend_xmin, backend_xid]) AS held FROM pg_stat_activity
        WHERE pid <> pg_backend_pid() AND (datname IS NULL OR datname = current_database())
        UNION ALL SELECT xmin FROM pg_replication_slots
        UNION ALL SELECT transaction FROM pg_prepared_xacts
    ) AS all_held
) FROM erasures"""
"""The newest mark, its age in transactions, and the age of the oldest transaction that somebody may still read from.
`VACUUM FULL` copies deleted rows that a transaction at least as old as the deletion may read."""
_MISSING_RIGHTS = """
WITH stored AS (SELECT oid, relname, relowner FROM pg_class WHERE relname = ANY(:names) AND pg_table_is_visible(oid))
SELECT wanted || ' ON ' || relname FROM stored, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS wanted
WHERE NOT has_table_privilege(oid, wanted)
UNION ALL SELECT 'USAGE ON SEQUENCE ' || seqrelid::regclass FROM pg_sequence
JOIN pg_depend ON objid = seqrelid AND deptype IN ('a', 'i') JOIN stored ON stored.oid = refobjid
WHERE NOT has_sequence_privilege(seqrelid, 'USAGE')
UNION ALL SELECT 'the ownership of ' || relname FROM stored WHERE NOT pg_has_role(relowner, 'USAGE') AND NOT (
    SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = current_database()
) AND CASE WHEN current_setting('server_version_num')::int < 170000 THEN true
    ELSE NOT has_table_privilege(oid, 'MAINTAIN') END"""
"""What the role may not do with the tables `names` that are there, and with the sequences that number their rows. A
deletion writes a table again, which its owner may do, and from Postgres 17 on a role with MAINTAIN."""
_FILES = (
    "SELECT relname, pg_relation_filenode(oid) FROM pg_class WHERE relname = ANY(:names) AND pg_table_is_visible(oid)"
)
"""The file of each table, which is another one after `VACUUM FULL`, unless that skipped the table (with a warning)."""
_LOG = logging.getLogger(__name__)


class StoreBusy(StorageError):
    """The database is locked, or can't be reached, for now; the message says whether something may have changed."""


class StoreFull(StorageError):
    """There is no space for what should be saved; nothing was changed."""


def connect(place: str | Path, *, busy_seconds: float = _BUSY_SECONDS) -> Engine:
    """Open the database and bring its tables to the newest version.

    The place is a folder, in which `store.sqlite` is made, or the URL of a Postgres database.

    Raises:
        ConfigError: the URL is invalid, or needs a driver that is not installed.
        StorageError: the database can't be opened, or a newer version of fspo made it.
    """
    url, folder = _url(place)
    with explained(), ExitStack() as held:
        if folder is not None:
            _make_folder(folder)
            held.enter_context(locked(folder / "store.lock"))
            _make_private(folder / STORE_FILE)
        engine = _engine(url, busy_seconds)
        try:
            with engine.begin() as connection:
                _migrate(connection, hidden(str(place)))
        except BaseException:
            engine.dispose()
            raise
    return engine


@dataclass(frozen=True)
class StoreState:
    """What a store is before anything is changed."""

    users: int
    outdated: bool
    """Whether opening it changes its tables, because an earlier version of fspo made it."""
    version: str = ""
    """Of its tables; empty: there is no store."""


def look_at(place: str | Path) -> StoreState:
    """Count the users of a store, and change and create nothing.

    Raises:
        ConfigError: the URL is invalid, or needs a driver that is not installed.
        StorageError: the database can't be read, or a newer version of fspo made it.
    """
    url, folder = _url(place)
    if folder is not None:
        if not (folder / STORE_FILE).exists():
            return StoreState(0, False)
        url = url.set(query={"mode": "ro", "uri": "true"}, database=f"file:{quote(str(folder / STORE_FILE))}")
    with _connected(url) as connection:
        config = _migrations()
        current = MigrationContext.configure(connection).get_current_revision()
        if current is None:
            return StoreState(0, False)
        _check_known(config, current, hidden(str(place)))
        users = connection.execute(text("SELECT count(*) FROM users")).scalar_one()
        head = ScriptDirectory.from_config(config).get_current_head()
        return StoreState(users, current != head, current)


def check_place(place: str | Path) -> None:
    """Check that a store can be written or created there, and leave nothing behind.

    Raises:
        ConfigError: the URL is invalid.
        StorageError: the folder, the file or the database can't be written.
    """
    url, folder = _url(place)
    if folder is None:
        _check_database(url)
    else:
        _check_folder(folder)


def _check_database(url: URL) -> None:
    """Create a table, or delete no user of those that are there, and take it back."""
    with _connected(url) as connection:
        if MigrationContext.configure(connection).get_current_revision() is None:
            connection.execute(text("CREATE TABLE fspo_trial (number INTEGER)"))
        else:
            names = {"names": list(Base.metadata.tables)}
            if missing := connection.execute(text(_MISSING_RIGHTS), names).scalars().all():
                role = connection.execute(text("SELECT current_user")).scalar_one()
                raise StorageError(
                    f"The role '{role}' lacks {counted(len(missing), 'rights')} on the store's tables, such as "
                    f"{missing[0]}; GRANT them, or use the role that created the store."
                )
            connection.execute(delete(UserRow).where(false()))  # a server may allow no writes at all
        connection.rollback()


def _check_folder(folder: Path) -> None:
    """Create what is missing, and remove it again: permissions alone don't say whether root, say, can write there."""
    missing = list(takewhile(lambda path: not os.path.lexists(path), (folder, *folder.parents)))
    file = folder / STORE_FILE
    try:
        _make_folder(folder)
        try:
            TemporaryFile(dir=folder).close()
            if file.exists():
                file.open("r+b").close()
        except OSError as error:
            raise storage_error(file, error) from error
    finally:
        for path in missing:
            with suppress(OSError):  # it was not created, or another program uses it already
                path.rmdir()


def public_place(place: str | Path) -> str:
    """The store's absolute folder, or its URL without a password, for a dataset that others may read.

    Raises:
        ConfigError: the URL is invalid.
    """
    url, folder = _url(place)
    if folder is not None:
        return str(folder)
    query = {name: value for name, value in url.query.items() if name != "password"}
    bare = URL.create(url.drivername, url.username, None, url.host, url.port, url.database, query)
    return bare.render_as_string()


def _url(place: str | Path) -> tuple[URL, Path | None]:
    """The URL, and the folder where the database is a file."""
    if "://" not in str(place):
        folder = Path(expanded(str(place))).absolute()
        return URL.create("sqlite", database=str(folder / STORE_FILE)), folder
    try:
        url = make_url(str(place))
    except (ArgumentError, ValueError):
        raise ConfigError(
            "The store's URL is invalid; write a folder, or postgresql://USER@HOST:PORT/DATABASE."
        ) from None
    if url.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        return url.set(drivername="postgresql+psycopg"), None
    raise ConfigError(
        f"The store can't use '{url.drivername}'; name a folder, or a URL that begins with postgresql://."
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(
            f"The store's folder {folder} can't be created ({error.strerror or error}); name another one."
        ) from error


def _make_private(file: Path) -> None:
    """Make the database's file for this account alone; SQLite gives its other files the same permissions."""
    try:
        os.close(os.open(file, os.O_RDONLY | os.O_CREAT, 0o600))
    except OSError as error:
        raise storage_error(file, error) from error


def _engine(url: URL, busy_seconds: float) -> Engine:
    engine = _plain_engine(url, busy_seconds)
    if url.drivername == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


@contextmanager
def _connected(url: URL) -> Iterator[Connection]:
    """A connection that sets nothing in the database."""
    with explained():
        engine = _plain_engine(url, _BUSY_SECONDS)
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()


def _plain_engine(url: URL, busy_seconds: float) -> Engine:
    """An engine that sets nothing in the database."""
    try:
        if url.drivername == "sqlite":
            return create_engine(url, connect_args={"timeout": busy_seconds}, hide_parameters=True)
        wait = f"-c lock_timeout={int(busy_seconds * 1000)}"
        return create_engine(
            url, pool_pre_ping=True, hide_parameters=True, connect_args={"options": wait, "connect_timeout": 10}
        )
    except (NoSuchModuleError, ModuleNotFoundError):
        raise ConfigError(
            "A store in Postgres needs the extra 'postgres' (pip install -e '.[postgres]' in the project's folder)."
        ) from None


def _prepare_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    # The driver would begin transactions late; here every transaction begins with a statement of our own.
    connection.isolation_level = None
    for setting in (
        "journal_mode=WAL",
        "synchronous=FULL",  # an acknowledged preference survives a power failure
        "foreign_keys=ON",
        "secure_delete=ON",  # deleted content is overwritten with zeros
        "temp_store=MEMORY",
    ):
        connection.execute(f"PRAGMA {setting}").close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later could fail in the middle, however long it waits.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", "fspo.serving:migrations")
    config.set_main_option("path_separator", "os")
    return config


def _migrate(connection: Connection, place: str) -> None:
    config = _migrations()
    config.attributes["connection"] = connection
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK_NUMBER})"))
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None:
        _check_known(config, current, place)
    if current != ScriptDirectory.from_config(config).get_current_head():
        command.upgrade(config, "head")


def _check_known(config: Config, revision: str, place: str) -> None:
    try:
        ScriptDirectory.from_config(config).get_revision(revision)
    except CommandError:
        raise StorageError(
            f"The store {place} was created by a newer version of fspo; use that version, or another store."
        ) from None


def erase_deleted(engine: Engine) -> bool:
    """Remove deleted content from the files of the database, if a deletion has left a mark (`ErasureRow`).

    SQLite overwrites deleted rows at once (`secure_delete`), but not the copies that remain when a page is split. So
    this writes the whole file again and empties the write-ahead log. In Postgres it writes the tables of the store
    again. The marks go only when that is done, so the next call finishes what was interrupted.

    Returns:
        Whether no deleted content remains; False while another transaction reads it, or after an error of the database.
    """
    try:
        return _erase_sqlite(engine) if engine.dialect.name == "sqlite" else _erase_postgres(engine)
    except (SQLAlchemyError, sqlite3.Error) as error:
        _LOG.warning("Deleted content could not be erased yet (%s).", outlined(error))
        return False


def _erase_sqlite(engine: Engine) -> bool:
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        cursor.execute("PRAGMA busy_timeout")
        usual = _value(cursor)
        # A checkpoint that waits for a reader makes all writers wait.
        cursor.execute(f"PRAGMA busy_timeout={int(_ERASING_PAUSE * 1000)}")
        try:
            return _rewrite_sqlite(cursor)
        finally:
            cursor.execute(f"PRAGMA busy_timeout={usual}")
    finally:
        raw.close()


def _rewrite_sqlite(cursor: DBAPICursor) -> bool:
    rewritten = 0
    for _ in range(_ERASING_TRIES):
        try:
            cursor.execute("SELECT max(number) FROM erasures")
            newest = _value(cursor)
            if newest is None:
                return True
            if newest > rewritten:
                cursor.execute("VACUUM")
                rewritten = newest
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            if _value(cursor) == 0:
                cursor.execute("DELETE FROM erasures WHERE number <= ?", (newest,))
                return True
        except sqlite3.OperationalError:
            pass
        time.sleep(_ERASING_PAUSE)
    return False


def _value(cursor: DBAPICursor) -> Any:
    row = cursor.fetchone()
    return None if row is None else row[0]


def _erase_postgres(engine: Engine) -> bool:
    tables = [table.name for table in Base.metadata.sorted_tables if table.name != ErasureRow.__tablename__]
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for _ in range(_ERASING_TRIES):
            newest, age, oldest = connection.execute(text(_POSTGRES_AGES)).one()
            if newest is None:
                return True
            if oldest is None or oldest < age:
                if not _rewrite_postgres(connection, tables):
                    return False
                connection.execute(text("CHECKPOINT")) if _is_superuser(connection) else None
                connection.execute(text("DELETE FROM erasures WHERE number <= :newest"), {"newest": newest})
                return True
            time.sleep(_ERASING_PAUSE)
    return False


def _rewrite_postgres(connection: Connection, tables: Sequence[str]) -> bool:
    """Whether each table has another file now, so that no row of the old one remains."""
    before = connection.execute(text(_FILES), {"names": tables}).all()
    connection.execute(text(f"VACUUM FULL {', '.join(tables)}"))
    after = connection.execute(text(_FILES), {"names": tables}).all()
    if same := set(before) & set(after):
        _LOG.warning("Deleted content could not be erased: the role may not VACUUM %s.", min(same)[0])
    return not same


def _is_superuser(connection: Connection) -> bool:
    return bool(connection.execute(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")).scalar())


@contextmanager
def explained() -> Iterator[None]:
    """Raise errors of the database as one sentence; the content of a statement is in none of them.

    Raises:
        DataError: the database can't hold a text.
        StoreBusy: the database is locked, or the connection broke.
        StoreFull: the disk is full.
        StorageError: the database is damaged or can't be written.
    """
    try:
        yield
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or "")
        state = getattr(getattr(error, "orig", None), "sqlstate", None)
        if state == _POSTGRES_FULL or is_full_disk(getattr(error, "orig", None) or error.__cause__):
            raise StoreFull("The disk of the store is full. Free some space; nothing was changed.") from None
        if getattr(error, "connection_invalidated", False):
            raise StoreBusy(
                "The connection to the store broke; it is not known whether the last change was saved. "
                "Look before you try again."
            ) from None
        if "is locked" in cause or state in _POSTGRES_BUSY or isinstance(error, NoFreeConnection):
            raise StoreBusy("The store is busy; nothing was changed. Try again.") from None
        if isinstance(error, InvalidValue):
            raise DataError("The store can't hold this text; leave out characters such as NUL (U+0000).") from None
        if not isinstance(error, DBAPIError) or isinstance(error, IntegrityError):
            raise
        first = hidden(cause.strip().splitlines()[0]) if cause.strip() else "no reason given"
        raise StorageError(f"The store can't be used: {first}. Check its place, permissions and server.") from None
