"""The database of the store: opened, migrated, with errors in one sentence, and with deleted content overwritten."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from fspo.errors import ConfigError, StorageError
from fspo.files import is_full_disk, locked
from fspo.keys import hidden
from fspo.paths import expanded

__all__ = ["STORE_FILE", "StoreBusy", "StoreFull", "connect", "erase_deleted", "explained"]

STORE_FILE = "store.sqlite"
_BUSY_SECONDS = 5.0
_LOCK_NUMBER = 0x6673706F
"""Names the lock of a migration in Postgres."""


class StoreBusy(StorageError):
    """The database is locked, or can't be reached, for now; nothing was changed."""


class StoreFull(StorageError):
    """There is no space for what should be saved; nothing was changed."""


def connect(place: str | Path, *, busy_seconds: float = _BUSY_SECONDS) -> Engine:
    """Open the database and bring its tables to the newest version.

    Args:
        place: a folder, in which `store.sqlite` is made, or the URL of a Postgres database.
        busy_seconds: how long a transaction waits for another one.

    Raises:
        ConfigError: the URL is invalid, or needs a driver that is not installed.
        StorageError: the database can't be opened, or a newer version of fspo made it.
    """
    url, folder = _url(place)
    with explained(), ExitStack() as held:
        if folder is not None:
            _make_folder(folder)
            held.enter_context(locked(folder / "store.lock"))
        engine = _engine(url, busy_seconds)
        try:
            with engine.begin() as connection:
                _migrate(connection, hidden(str(place)))
        except BaseException:
            engine.dispose()
            raise
    return engine


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
            f"The store's folder {folder} can't be made ({error.strerror or error}); name another one."
        ) from error


def _engine(url: URL, busy_seconds: float) -> Engine:
    try:
        if url.drivername == "sqlite":
            engine = create_engine(url, connect_args={"timeout": busy_seconds}, hide_parameters=True)
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
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


def _migrate(connection: Connection, place: str) -> None:
    config = Config()
    config.set_main_option("script_location", "fspo.serving:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK_NUMBER})"))
    current = MigrationContext.configure(connection).get_current_revision()
    if current == ScriptDirectory.from_config(config).get_current_head():
        return
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise StorageError(
            f"The store {place} was made by a newer version of fspo; use that version, or another store."
        ) from None


def erase_deleted(engine: Engine, *, rewrite: bool) -> bool:
    """Remove deleted content from the files of the database.

    In SQLite, deleted rows are overwritten at once (`secure_delete`), and this empties the write-ahead log. `rewrite`
    writes the whole file again too, so that no copy of a row that was moved between pages remains. In Postgres the
    tables are written again.

    Returns:
        Whether it is done; False while another transaction reads the old content. The next call finishes it.
    """
    if engine.dialect.name != "sqlite":
        try:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM FULL"))
                connection.execute(text("CHECKPOINT")) if _is_superuser(connection) else None
        except DBAPIError:
            return False
        return True
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        for _ in range(3):
            try:
                if rewrite:
                    cursor.execute("VACUUM")
                    rewrite = False
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                row = cursor.fetchone()
                if row is not None and row[0] == 0:
                    return True
            except sqlite3.OperationalError:
                pass
            time.sleep(0.05)
        return False
    finally:
        raw.close()


def _is_superuser(connection: Connection) -> bool:
    return bool(connection.execute(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")).scalar())


@contextmanager
def explained() -> Iterator[None]:
    """Raise errors of the database as one sentence; the content of a statement is in none of them.

    Raises:
        StoreBusy: the database is locked or can't be reached.
        StoreFull: the disk is full.
        StorageError: the database is damaged or can't be written.
    """
    try:
        yield
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or "")
        if is_full_disk(getattr(error, "orig", None) or error.__cause__):
            raise StoreFull("The disk of the store is full. Free some space; nothing was changed.") from None
        if "is locked" in cause or "lock timeout" in cause or getattr(error, "connection_invalidated", False):
            raise StoreBusy("The store is busy; nothing was changed. Try again.") from None
        if not isinstance(error, DBAPIError):
            if type(error).__name__ == "TimeoutError":  # all connections are in use
                raise StoreBusy("The store is busy; nothing was changed. Try again.") from None
            raise
        if type(error.orig).__name__ in ("OperationalError", "DatabaseError"):
            first = hidden(cause.strip().splitlines()[0]) if cause.strip() else "no reason given"
            raise StorageError(f"The store can't be used: {first}. Check its place, permissions and server.") from None
        raise
