"""A store in SQLite and one in a Postgres server that the tests start, and what tests put into it."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpcore2
import pytest

from fspo.preferences.types import Turn
from fspo.serving.ownership import Owner
from fspo.serving.store import Store

PROMPT = (Turn("user", "Which film?"),)
_DEBIAN = Path("/usr/lib/postgresql")


@pytest.fixture(scope="session", autouse=True)
def _migrated(migrated_stores: None) -> None:
    """For all tests of this room."""


@pytest.fixture(scope="session", autouse=True)
def _one_set_of_certificates() -> Iterator[None]:
    """All clients share one: reading the certificates takes longer than most of what tests send."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpcore2, "default_ssl_context", functools.cache(httpcore2.default_ssl_context))
        yield


def _binaries() -> Path | None:
    """The folder of Postgres' programs."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = sorted(_DEBIAN.glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The start of the URLs of a server's databases."""
    pytest.importorskip("psycopg")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("Postgres is not installed (Debian: apt-get install postgresql)")
    # Not in pytest's folder: each new session closes that to other accounts, and the server's is another one.
    folder = Path(tempfile.mkdtemp(prefix="fspo-postgres-"))
    as_user: list[str] = []
    if os.geteuid() == 0:  # Postgres refuses to run as root
        folder.chmod(0o711)
        shutil.chown(folder, "nobody")
        as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    data = folder / "data"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True, "cwd": folder}
    subprocess.run([*as_user, binaries / "initdb", "-D", data, "-U", "fspo", "-A", "trust", "--no-sync"], **quiet)
    options = f"-c listen_addresses='' -k {folder} -c fsync=off -c autovacuum=off"
    start = [*as_user, binaries / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w"]
    subprocess.run([*start, "start"], **quiet)
    try:
        yield f"postgresql://fspo@/{{}}?host={folder}"
    finally:
        subprocess.run([*as_user, binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"], **quiet)
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    """An empty place for a store: a folder, or a new database."""
    if request.param == "sqlite":
        return tmp_path / "store"
    return new_database(request.getfixturevalue("postgres"))


def new_database(urls: str) -> str:
    import psycopg

    name = f"store_{uuid.uuid4().hex}"
    with psycopg.connect(urls.format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")  # type: ignore[call-overload]
    return urls.format(name)


@pytest.fixture
def store(place: str | Path) -> Iterator[Store]:
    """A store, once in SQLite and once in Postgres."""
    opened = Store.open(place)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "store")
    yield opened
    opened.close()


def add(store: Store, owner: Owner, word: str = "calm", **changes: Any) -> str:
    return store.add_preference(owner, PROMPT, f"A {word} one.", f"Not a {word} one.", **changes).id


def new_user(store: Store, name: str = "ann") -> Owner:
    store.add_user(name)
    return store.user_named(name)


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
