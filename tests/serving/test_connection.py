"""The database of the store: places, versions, errors, and deleted content that is nowhere."""

from __future__ import annotations

import random
import sqlite3
import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, TimeoutError

from fspo.errors import ConfigError, StorageError
from fspo.preferences.types import Turn
from fspo.serving.connection import STORE_FILE, StoreBusy, StoreFull, check_place, explained, look_at
from fspo.serving.ownership import pseudonym
from fspo.serving.schema import Base
from fspo.serving.store import Store
from tests.serving.conftest import PROMPT, add, bytes_of, new_database, new_user


def test_the_migrations_make_the_tables_of_the_schema(store: Store) -> None:
    with store._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


@pytest.mark.parametrize(
    ("seed", "interrupted"),
    [(144, False), (144, True), (0, False)],
    ids=["split pages", "split pages, erased at the next start", "another history"],
)
def test_of_a_deleted_preference_no_byte_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, interrupted: bool
) -> None:
    """Texts of many sizes, edited and deleted in any order, so that pages fill, split, join and overflow.

    In the history of seed 144 a page is split, and a copy of a text remains that `secure_delete` does not overwrite.
    """
    store, chance = Store.open(tmp_path / "store"), random.Random(seed)
    ann = new_user(store)
    monkeypatch.setattr("fspo.serving.ownership.erase_deleted", lambda _: False) if interrupted else None
    marks: dict[int, tuple[str, str]] = {}
    gone: list[str] = []
    count = 0
    for step in range(120):
        mark = f"mark-{seed}-{step:04d}-end"
        body = f"{mark} " + "x" * chance.choice([0, 30, 300, 900, 1_800, 3_000, 3_900, 9_000])
        if marks and chance.random() < 0.45:
            number = chance.choice(sorted(marks))
            one, old = marks.pop(number)
            gone.append(old)
            if chance.random() < 0.5:
                store.remove_preference(ann, one)
            else:
                store.change_preference(ann, one, chosen=body)
                marks[number] = (one, mark)
        else:
            count += 1
            marks[count] = (store.add_preference(ann, PROMPT, body, "no").id, mark)
    if interrupted:
        assert not store.erased()
        monkeypatch.undo()
        store.close()
        store = Store.open(tmp_path / "store")
    found = bytes_of(tmp_path / "store")
    assert all(mark.encode() in found for _, mark in marks.values())
    assert [mark for mark in gone if mark.encode() in found] == []
    assert store.erased()
    store.close()


def test_deleting_nothing_writes_nothing(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    ann = new_user(store)
    add(store, ann)
    assert store.remove_preferences(ann) == 1
    database = tmp_path / "store" / STORE_FILE
    log = database.with_name(f"{STORE_FILE}-wal")
    before = (database.read_bytes(), log.read_bytes())
    assert store.remove_preferences(ann) == 0
    assert (database.read_bytes(), log.read_bytes()) == before
    store.close()


def test_a_deletion_stands_although_its_content_can_not_be_erased_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> None:
        raise TimeoutError("all connections are in use")

    ann = new_user(store)
    first, second = add(store, ann), add(store, ann, "loud")
    for part in ("_erase_sqlite", "_erase_postgres"):
        monkeypatch.setattr(f"fspo.serving.connection.{part}", unreachable)
    assert store.remove_preference(ann, first)
    assert [one.id for one in store.preferences(ann)] == [second] and not store.erased()
    monkeypatch.undo()
    assert store.remove_preference(ann, second) and store.erased()


def test_of_a_deleted_user_no_byte_remains(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    ann, bob = new_user(store, "ann-mark"), new_user(store, "bob-mark")
    key = store.add_key(ann)
    for owner, mark in ((ann, "ann-mark"), (bob, "bob-mark")):
        store.change_account(owner, description=f"{mark} is calm", keep_conversations=True)
        for number in range(60):
            store.add_preference(owner, PROMPT, f"{mark} {'x' * 50 * number}", "no", source=mark)
            store.keep_conversation(owner, "fspo", (Turn("user", mark),), mark, [])
    store.record_training("fspo-1", [pseudonym(ann), pseudonym(bob)])
    before = bytes_of(tmp_path / "store")
    secret = [b"ann-mark", ann.id.encode(), key.id.encode(), key.key.encode()]
    assert [s in before for s in secret] == [True, True, True, False]
    done = store.withdraw(ann)
    assert done.erased and done.policies == ("fspo-1",) and done.removed["preferences"] == 60
    after = bytes_of(tmp_path / "store")
    assert [s for s in secret if s in after] == []
    assert b"bob-mark" in after and len(store.preferences(bob)) == 60
    assert store.policies_to_train_again() == ["fspo-1"] and len(store.withdrawals()) == 1
    store.close()


def test_a_deletion_that_a_reader_held_up_is_finished_later(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    ann = new_user(store)
    add(store, ann, "mark-of-ann")
    reader = sqlite3.connect(tmp_path / "store" / STORE_FILE, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM preferences").fetchall()
    start = time.monotonic()
    assert not store.withdraw(ann).erased
    assert time.monotonic() - start < 4, "a deletion does not wait for readers"
    reader.execute("ROLLBACK")
    reader.close()
    store.close()
    Store.open(tmp_path / "store").close()
    assert b"mark-of-ann" not in bytes_of(tmp_path / "store")


def test_deletion_in_postgres_leaves_nothing_in_the_tables(postgres: str) -> None:
    url = new_database(postgres)
    store = Store.open(url)
    ann = new_user(store)
    add(store, ann, "mark-of-ann")
    assert store.withdraw(ann).erased
    folder = Path(url.partition("host=")[2]) / "data" / "base"
    assert b"mark-of-ann" not in bytes_of(folder)
    store.close()


def test_in_postgres_content_that_a_transaction_may_still_read_is_not_called_erased(postgres: str) -> None:
    import psycopg

    url = new_database(postgres)
    store = Store.open(url)
    ann = new_user(store)
    add(store, ann, "mark-of-ann")
    with psycopg.connect(url) as reader, psycopg.connect(url, autocommit=True) as other:
        other.execute("CREATE TABLE of_another_program (x text)")
        files = "SELECT pg_relation_filenode('of_another_program'), pg_relation_filenode('preferences')"
        before = other.execute(files).fetchone()
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1")
        assert not store.withdraw(ann).erased
        reader.rollback()
        store.close()
        Store.open(url).close()
        after = other.execute(files).fetchone()
    assert before is not None and after is not None
    assert before[0] == after[0] and before[1] != after[1], "only the store's tables are written again"
    folder = Path(url.partition("host=")[2]) / "data" / "base"
    assert b"mark-of-ann" not in bytes_of(folder)


def test_in_postgres_content_of_tables_that_the_role_may_not_write_again_is_not_called_erased(postgres: str) -> None:
    import psycopg

    url = new_database(postgres)
    Store.open(url).close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE helper LOGIN")
        connection.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO helper")
        connection.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO helper")
    store = Store.open(url.replace("fspo@", "helper@"))
    ann = new_user(store)
    add(store, ann, "mark-of-ann")
    assert not store.withdraw(ann).erased and not store.erased()
    store.close()
    Store.open(url).close()
    assert b"mark-of-ann" not in bytes_of(Path(url.partition("host=")[2]) / "data" / "base")


def test_a_locked_database_is_an_error_that_says_so_and_nothing_is_half_done(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", busy_seconds=0.05)
    ann = new_user(store)
    other = sqlite3.connect(tmp_path / "store" / STORE_FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy):
        add(store, ann)
    assert store.preferences(ann) == []
    other.execute("ROLLBACK")
    other.close()
    assert add(store, ann) == store.preferences(ann)[0].id
    store.close()


def test_a_full_disk_is_an_error_that_says_so_and_loses_nothing(sqlite_store: Store) -> None:
    ann = new_user(sqlite_store)
    saved = add(sqlite_store, ann)
    with sqlite_store._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreFull):
        for _ in range(5):
            add(sqlite_store, ann, "x" * 100_000)
    assert sqlite_store.preferences(ann)[0].id == saved


def test_places_that_hold_no_store_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / STORE_FILE).write_bytes(b"no database " * 500)
    for place, error in [
        (tmp_path / "file" / "store", StorageError),
        (tmp_path / "other", StorageError),
        ("mysql://host/name", ConfigError),
        ("postgresql://user:SECRET@/x?host=/nowhere", StorageError),
        ("postgresql://host:door/name", ConfigError),
    ]:
        with pytest.raises(error) as raised:
            Store.open(place)
        assert "SECRET" not in str(raised.value)


def test_a_store_of_a_newer_version_is_refused(place: str | Path) -> None:
    store = Store.open(place)
    with explained(), store._engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    with pytest.raises(StorageError, match="newer version"):
        Store.open(place)


def test_errors_of_the_database_are_sentences_and_promise_nothing_after_a_broken_commit() -> None:
    class Full(Exception):
        sqlstate = "53100"

    class Refused(OperationalError):
        """A subclass, as drivers have for each code."""

    def raised(error: Exception) -> Exception:
        with pytest.raises(StorageError) as caught, explained():
            raise error
        return caught.value

    lost = raised(OperationalError("COMMIT", {}, Exception("server closed"), connection_invalidated=True))
    assert isinstance(lost, StoreBusy) and "not known" in str(lost) and "nothing" not in str(lost)
    assert isinstance(raised(OperationalError("INSERT", {}, Full())), StoreFull)
    assert "disk image" in str(raised(Refused("SELECT", {}, sqlite3.DatabaseError("database disk image is malformed"))))
    assert isinstance(raised(TimeoutError("all connections are in use")), StoreBusy)


def test_other_accounts_can_not_read_the_files_even_in_a_folder_that_they_can(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o755)
    store = Store.open(folder)
    add(store, new_user(store))
    modes = {path.name: path.stat().st_mode & 0o077 for path in folder.glob(f"{STORE_FILE}*")}
    assert set(modes.values()) == {0} and f"{STORE_FILE}-wal" in modes
    store.close()


def test_a_store_of_an_earlier_version_keeps_its_data_and_a_look_changes_nothing(place: str | Path) -> None:
    from alembic import command

    from fspo.serving import connection as opening

    url, folder = opening._url(place)
    if folder is not None:
        folder.mkdir()
    engine, config = opening._engine(url, 5), opening._migrations()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        for statement in (
            "INSERT INTO users VALUES ('user_1', 'ann', '', true, true, '', 1)",
            "INSERT INTO preferences (user_id, created, id, turns, chosen, rejected, source, updated) VALUES "
            """('user_1', 1, 'pref_1', '[["user", "A film?"]]', 'Ja ä.', 'Nein.', '', 1)""",
            f"INSERT INTO trainings VALUES ('p', '{'0123456789abcdef' * 4}', 1, 0)",
        ):
            connection.execute(text(statement))
    engine.dispose()
    file = folder / STORE_FILE if folder else None
    before = file and file.read_bytes()
    assert opening.look_at(place) == opening.StoreState(users=1, outdated=True, version="0003")
    assert before == (file and file.read_bytes())
    store = Store.open(place)
    now = opening.look_at(place)
    assert (now.users, now.outdated) == (1, False) and now.version > "0003"
    ann = store.user_named("ann")
    (one,) = store.preferences(ann)
    assert (one.origin, one.preference.chosen, store.account(ann).allow_training) == ("comparison", "Ja ä.", False)
    with store._engine.connect() as connection:
        assert connection.execute(text("SELECT pseudonym FROM trainings")).scalar() == "person-0123456789abcdef"
        assert connection.execute(text("SELECT nbytes FROM preferences")).scalar() in (31, 32, 33)
    store.close()


def test_a_check_of_a_place_leaves_nothing_behind(place: str | Path, tmp_path: Path) -> None:
    check_place(place if "://" in str(place) else tmp_path / "new" / "store")
    assert not look_at(place).version and list(tmp_path.iterdir()) == []
    Store.open(place).close()
    before = sorted(tmp_path.rglob("*"))
    check_place(place)
    assert before == sorted(tmp_path.rglob("*"))


@pytest.mark.parametrize("folder", ["/proc/nope", "x" * 300])
def test_a_folder_that_can_not_be_created_is_no_place_for_a_store(folder: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="can't be created"):
        check_place(tmp_path / "new" / folder)
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_can_not_be_written_is_no_place_for_a_store(postgres: str) -> None:
    import psycopg

    url = new_database(postgres)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        connection.execute("CREATE ROLE guest LOGIN")
    with pytest.raises(StorageError, match="permission denied"):
        check_place(url.replace("fspo@", "guest@"))
    Store.open(url).close()
    check_place(url)
    every = "ALL TABLES IN SCHEMA public TO guest"
    with psycopg.connect(url, autocommit=True) as connection:
        for granted, missing in (
            (f"SELECT ON {every}", "'guest' lacks .* such as INSERT ON"),
            (f"UPDATE, DELETE ON {every}", "'guest' lacks .* such as INSERT ON"),
            (f"INSERT ON {every}", "'guest' lacks .* such as USAGE ON SEQUENCE"),
        ):
            connection.execute(f"GRANT {granted}")  # type: ignore[call-overload]
            with pytest.raises(StorageError, match=missing):
                check_place(url.replace("fspo@", "guest@"))
        connection.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO guest")
        with pytest.raises(StorageError, match=r"'guest' lacks .* such as the ownership of"):
            check_place(url.replace("fspo@", "guest@"))
        connection.execute("GRANT fspo TO guest")
    check_place(url.replace("fspo@", "guest@"))
