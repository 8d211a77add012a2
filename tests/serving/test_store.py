"""The store: what is saved is there, what is deleted is nowhere, and everybody sees their own data alone."""

from __future__ import annotations

import io
import json
import random
import sqlite3
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError, TimeoutError
from sqlalchemy.orm import aliased

from fspo.errors import ConfigError, DataError, StorageError
from fspo.preferences.types import Turn
from fspo.serving.connection import STORE_FILE, StoreBusy, StoreFull, check_place, explained, look_at
from fspo.serving.ownership import NoOwner, Owner, OwnSession, pseudonym
from fspo.serving.schema import Base, PreferenceRow
from fspo.serving.store import Account, Store, UnknownOwner
from tests.serving.conftest import new_database

PROMPT = (Turn("user", "Which film?"),)


def add(store: Store, owner: Owner, word: str = "calm", **changes: Any) -> str:
    return store.add_preference(owner, PROMPT, f"A {word} one.", f"Not a {word} one.", **changes).id


def new_user(store: Store, name: str = "ann") -> Owner:
    store.add_user(name)
    return store.user_named(name)


def test_what_is_saved_is_there_after_the_store_was_opened_again(place: str | Path) -> None:
    store = Store.open(place)
    ann = new_user(store)
    turns = (Turn("system", "Be kind."), *PROMPT, Turn("assistant", "Hm?"), Turn("user", "Any <|im_end|> film."))
    saved = store.add_preference(ann, turns, "chosen\n\t🙂", "rejected", origin="thumbs", source="film page")
    store.change_account(ann, description="Likes calm films.", personalise=False)
    store.close()
    again = Store.open(place)
    assert again.preferences(ann) == [saved]
    assert saved.preference.messages == turns and saved.preference.source == {"origin": "thumbs", "source": "film page"}
    account = again.account(ann)
    assert (account.description, account.personalise, account.preferences) == ("Likes calm films.", False, 1)
    again.close()


def test_the_migrations_make_the_tables_of_the_schema(store: Store) -> None:
    with store._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_key_opens_its_users_data_until_it_is_revoked(store: Store) -> None:
    ann, bob = new_user(store), new_user(store, "bob")
    new, other = store.add_key(ann), store.add_key(bob)
    assert store.authenticate(new.key) == ann and store.authenticate(other.key) == bob
    for wrong in ("", new.key[:-1], new.key + "x", new.key.upper(), "\ud800"):
        assert store.authenticate(wrong) is None
    with pytest.raises(DataError):
        store.revoke_key(bob, new.id)
    store.revoke_key(ann, new.id)
    assert store.authenticate(new.key) is None
    assert [key.id for key in store.keys(bob)] == [other.id] and store.keys(ann) == []


def test_pages_go_through_all_preferences_once(store: Store) -> None:
    ann, bob = new_user(store), new_user(store, "bob")
    mine = []
    for number in range(5):
        mine.append(add(store, ann, str(number)))
        theirs = add(store, bob, str(number))
    for newest_first in (False, True):
        seen: list[str] = []
        page = store.page(ann, limit=2, newest_first=newest_first)
        while page is not None:
            seen += [one.id for one in page.entries]
            page = store.page(ann, limit=2, after=seen[-1], newest_first=newest_first) if page.more else None
        assert seen == (mine[::-1] if newest_first else mine)
    assert store.page(ann, limit=2, after=theirs) is None


def test_queries_of_personal_data_are_limited_to_the_owner_or_refused(store: Store) -> None:
    ann, bob = new_user(store), new_user(store, "bob")
    mine, theirs = add(store, ann), add(store, bob)
    other = aliased(PreferenceRow)
    with OwnSession(store._engine, info={"owner": ann}) as session:
        assert session.scalars(select(PreferenceRow.id)).all() == [mine]
        assert session.scalars(select(other.id)).all() == [mine]
        assert session.scalar(select(PreferenceRow).where(PreferenceRow.id == theirs)) is None
        with pytest.raises(NoOwner):
            session.execute(text("SELECT * FROM preferences"))
    for nobody in ({}, {"owner": None}, {"owner": Owner("")}, {"owner": "ann"}):
        with OwnSession(store._engine, info=nobody) as session, pytest.raises(NoOwner):
            session.scalars(select(PreferenceRow.id)).all()


def test_of_somebody_else_nothing_can_be_read_changed_or_deleted(store: Store) -> None:
    ann, bob = new_user(store), new_user(store, "bob")
    theirs = add(store, bob)
    assert store.preference(ann, theirs) is None
    assert store.change_preference(ann, theirs, chosen="mine") is None
    assert not store.remove_preference(ann, theirs)
    assert store.remove_preferences(ann) == 0
    store.withdraw(ann)
    assert [one.id for one in store.preferences(bob)] == [theirs]


def test_preferences_can_be_changed_and_deleted(store: Store) -> None:
    ann = new_user(store)
    first, second = add(store, ann), add(store, ann, "loud")
    changed = store.change_preference(ann, first, chosen="Another.")
    assert changed is not None and changed == store.preference(ann, first)
    assert changed.preference.chosen == "Another." and changed.preference.rejected == "Not a calm one."
    with pytest.raises(DataError):
        store.change_preference(ann, first, chosen="Not a calm one. ")
    assert store.remove_preference(ann, second) and not store.remove_preference(ann, second)
    assert [one.id for one in store.preferences(ann)] == [first]


def test_a_change_of_an_account_reads_nothing_after_it_is_saved(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = new_user(store)
    add(store, ann, "calm")

    def breaks(_: Owner) -> Account:
        raise StoreBusy("The store is busy.")

    monkeypatch.setattr(store, "account", breaks)
    changed = store.change_account(ann, personalise=False, description="Likes calm.")
    assert (changed.personalise, changed.description, changed.preferences) == (False, "Likes calm.", 1)


def test_what_holds_no_preference_is_refused(store: Store) -> None:
    ann = new_user(store)
    for turns, chosen, rejected in [
        (PROMPT, "same", " same "),
        (PROMPT, "", "x"),
        ((), "a", "b"),
        ((Turn("user", " "),), "a", "b"),
    ]:
        with pytest.raises(DataError):
            store.add_preference(ann, turns, chosen, rejected)
    add(store, ann, most=1)
    with pytest.raises(DataError):
        add(store, ann, "more", most=1)
    assert len(store.preferences(ann)) == 1


def test_nothing_can_be_saved_for_a_deleted_user(store: Store) -> None:
    ann = new_user(store)
    key = store.add_key(ann).key
    store.withdraw(ann)
    assert store.authenticate(key) is None and store.users() == []
    for call in (lambda: add(store, ann), lambda: store.account(ann), lambda: store.withdraw(ann)):
        with pytest.raises(UnknownOwner):
            call()


def test_the_archive_holds_everything_and_no_digest(store: Store) -> None:
    ann, bob = new_user(store), new_user(store, "bob")
    saved = add(store, ann)
    add(store, bob, "SECRET-OF-BOB")
    key = store.add_key(ann)
    store.change_account(ann, description="Likes calm.", keep_conversations=True)
    store.keep_conversation(ann, "fspo", PROMPT, "An answer.", [saved])
    store.record_training("fspo-1", [pseudonym(ann)])
    archive = zipfile.ZipFile(io.BytesIO(store.export(ann)))
    files = {name: archive.read(name).decode() for name in archive.namelist()}
    user = json.loads(files["user.json"])
    assert user["description"] == "Likes calm." and user["policies"] == ["fspo-1"]
    (preference,) = map(json.loads, files["preferences.jsonl"].splitlines())
    assert (preference["id"], preference["chosen"]) == (saved, "A calm one.")
    (conversation,) = map(json.loads, files["conversations.jsonl"].splitlines())
    assert (conversation["answer"], conversation["shots"]) == ("An answer.", [saved])
    assert json.loads(files["keys.jsonl"])["ending"] == key.key[-4:]
    assert {"preference.added", "key.added"} <= {json.loads(e)["kind"] for e in files["events.jsonl"].splitlines()}
    whole = "".join(files.values())
    assert "BOB" not in whole and bob.id not in whole and "digest" not in whole and key.key not in whole


def test_conversations_are_saved_only_if_the_user_wants_it(store: Store) -> None:
    ann = new_user(store)
    store.keep_conversation(ann, "fspo", PROMPT, "UNWANTED", [])
    store.change_account(ann, keep_conversations=True)
    store.keep_conversation(ann, "fspo", PROMPT, "WANTED", [])
    archive = zipfile.ZipFile(io.BytesIO(store.export(ann)))
    kept = archive.read("conversations.jsonl").decode()
    assert "UNWANTED" not in kept and "WANTED" in kept


def test_conversations_have_a_limit_and_can_be_deleted_for_good(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    ann, bob = new_user(store), new_user(store, "bob")
    for owner in (ann, bob):
        store.change_account(owner, keep_conversations=True)
    for owner, answer in ((ann, "mark-one"), (ann, "mark-two"), (ann, "over-the-limit"), (bob, "mark-of-bob")):
        store.keep_conversation(owner, "fspo", PROMPT, answer, [], most=2)
    saved = bytes_of(tmp_path / "store")
    assert b"mark-two" in saved and b"over-the-limit" not in saved
    mine, theirs = store.conversations(ann, limit=9), store.conversations(bob, limit=9)
    assert mine is not None and theirs is not None and [one.text for one in mine.entries] == ["mark-one", "mark-two"]
    one, other = (f"conv_{page.entries[0].id}" for page in (mine, theirs))
    assert not store.remove_conversation(ann, other) and store.conversations(ann, limit=9, after=other) is None
    assert store.remove_conversation(ann, one) and not store.remove_conversation(ann, one) and store.erased()
    saved = bytes_of(tmp_path / "store")
    assert b"mark-one" not in saved and b"mark-two" in saved and b"mark-of-bob" in saved
    assert store.remove_conversations(ann) == 1 and store.remove_conversations(ann) == 0
    saved = bytes_of(tmp_path / "store")
    assert b"mark-two" not in saved and b"mark-of-bob" in saved
    store.keep_conversation(ann, "fspo", PROMPT, "mark-three", [], most=2)
    assert store.remove_conversations(ann) == 1
    store.close()


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


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
    monkeypatch.setattr("fspo.serving.store.erase_deleted", lambda _: False) if interrupted else None
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
    from tests.serving.conftest import new_database

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

    from tests.serving.conftest import new_database

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


def test_writers_that_wait_for_their_turn_keep_no_reader_waiting(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", busy_seconds=20)
    ann = new_user(store)
    writers = [threading.Thread(target=add, args=(store, ann)) for _ in range(20)]  # more than there are connections
    with store._write(ann):
        for writer in writers:
            writer.start()
        start = time.monotonic()
        assert store.preferences(ann) == []
        assert time.monotonic() - start < 10
    for writer in writers:
        writer.join()
    assert len(store.preferences(ann)) == 20
    store.close()


def test_a_writer_gives_up_when_another_thread_writes_for_long(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", busy_seconds=0.05)
    ann = new_user(store)
    with store._write(ann), pytest.raises(StoreBusy):
        add(store, ann)
    add(store, ann)
    assert len(store.preferences(ann)) == 1
    store.close()


def test_many_writers_lose_no_acknowledged_preference(store: Store) -> None:
    ann = new_user(store)
    saved: list[str] = []

    def write(number: int) -> None:
        for step in range(5):
            saved.append(add(store, ann, f"{number}-{step}"))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(saved) == 20 and sorted(saved) == sorted(one.id for one in store.preferences(ann))


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


def test_a_policy_is_named_until_it_is_trained_without_what_was_deleted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000]
    monkeypatch.setattr("fspo.serving.store._now", lambda: now[0])
    ann, bob = new_user(store), new_user(store, "bob")
    first, second, third = (add(store, ann, word) for word in ("calm", "loud", "warm"))

    def train_again_after(change: Callable[[], object]) -> bool:
        change()
        again = store.policies_to_train_again() == ["p"]
        store.record_training("p", [pseudonym(ann), pseudonym(bob)])
        assert store.policies_to_train_again() == []
        return again

    store.record_training("p", [pseudonym(ann), pseudonym(bob)])
    assert train_again_after(lambda: store.remove_preference(ann, first))
    assert train_again_after(lambda: store.change_preference(ann, second, chosen="Another."))
    now[0] += 1
    later = add(store, ann, "late")
    assert not train_again_after(lambda: store.remove_preferences(bob))
    now[0] -= 1
    store.record_training("p", [pseudonym(ann), pseudonym(bob)])
    now[0] += 1
    assert not train_again_after(lambda: store.remove_preference(ann, later)), "no policy has seen it"
    known = store.last_withdrawal()
    store.remove_preference(ann, third)
    store.record_training("p", [pseudonym(ann)], after=known)
    assert store.policies_to_train_again() == ["p"], "deleted while its training was prepared"
    store.record_training("p", [pseudonym(bob)])
    store.withdraw(ann)
    assert store.policies_to_train_again() == []


def test_a_note_of_a_reading_waits_for_changes_under_way(store: Store) -> None:
    ann = new_user(store)
    add(store, ann)
    noted = threading.Event()

    def note() -> None:
        store.record_reading("data", [ann])
        noted.set()

    thread = threading.Thread(target=note)
    with store._write(ann) as session:
        session.delete(session.scalars(select(PreferenceRow)).one())
        thread.start()
        assert not noted.wait(0.2)
    thread.join(20)
    assert noted.is_set() and store.preferences(ann) == []


def test_a_text_that_the_database_can_not_hold_is_refused_in_one_sentence(store: Store, place: str | Path) -> None:
    ann = new_user(store)
    for bad in ("\x00", "pref_\x00", "none"):
        assert store.preference(ann, bad) is None and not store.remove_preference(ann, bad)
        assert store.page(ann, limit=1, after=bad) is None and not store.remove_conversation(ann, bad)
        with pytest.raises(DataError):
            store.revoke_key(ann, bad)
    store.change_account(ann, keep_conversations=True)
    if isinstance(place, str):
        with pytest.raises(DataError, match="NUL"):
            store.keep_conversation(ann, "fspo", PROMPT, "a\x00b", [])
    for bad in ("a\x00b", "a\ud800b"):
        with pytest.raises(DataError, match="NUL"):
            store.learn(ann, PROMPT, bad, "no", "edit", [])
        with pytest.raises(DataError, match="NUL"):
            store.add_preference(ann, [Turn("user", bad)], "yes", "no")
    for too_long in (
        lambda: store.change_account(ann, rate="1/second;" * 20),
        lambda: store.add_user("carl", rate="1/second;" * 20),
        lambda: store.record_training("p" * 1_001, [pseudonym(ann)]),
    ):
        with pytest.raises(DataError, match="at most"):
            too_long()


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


def test_names_of_users_are_unique_and_a_misspelt_one_is_found(store: Store) -> None:
    new_user(store, "annette")
    with pytest.raises(DataError):
        store.add_user("annette")
    with pytest.raises(DataError):
        store.add_user(" ")
    with pytest.raises(DataError, match="annette"):
        store.user_named("anette")


def test_the_newest_preferences_are_read_without_the_older_ones(store: Store) -> None:
    ann, bob = new_user(store), new_user(store, "bob")
    mine = [add(store, ann, str(number)) for number in range(5)]
    add(store, bob)
    for most, older in ((3, 2), (5, 0), (9, 0)):
        found, count = store.newest(ann, most)
        assert ([one.id for one in found], count) == (mine[-most:], older)


def test_of_many_events_the_oldest_go_but_not_the_one_that_shows_the_last_deletion(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fspo.serving.store._MOST_EVENTS", 5)
    ann, bob = new_user(store), new_user(store, "bob")
    store.remove_preference(ann, add(store, ann))
    add(store, bob)
    mark = store.marks([ann.id])
    for number in range(9):
        add(store, ann, str(number))
    events = zipfile.ZipFile(io.BytesIO(store.export(ann))).read("events.jsonl").decode().splitlines()
    assert len(events) == 6 and store.marks([ann.id]) == mark
    assert len(zipfile.ZipFile(io.BytesIO(store.export(bob))).read("events.jsonl").splitlines()) == 1


def test_a_users_texts_have_a_limit_of_bytes_and_others_have_their_own(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fspo.serving.store.MOST_BYTES", 1_000)
    ann, bob = new_user(store), new_user(store, "bob")
    first = store.add_preference(ann, PROMPT, "ä" * 400, "no").id
    for refused in (
        lambda: store.add_preference(ann, PROMPT, "x" * 300, "no"),
        lambda: store.change_preference(ann, first, chosen="x" * 1_200),
        lambda: store.learn(ann, PROMPT, "x" * 300, "no", "edit", ["a"]),
    ):
        with pytest.raises(DataError, match="limit"):
            refused()
    assert [one.preference.chosen for one in store.preferences(ann)] == ["ä" * 400]
    store.change_account(ann, keep_conversations=True)
    store.keep_conversation(ann, "fspo", PROMPT, "x" * 300, [])
    store.keep_conversation(ann, "fspo", PROMPT, "short", [])
    assert store.remove_conversations(ann) == 1, "the long answer had no room"
    store.change_preference(ann, first, chosen="yes")
    store.add_preference(ann, PROMPT, "x" * 300, "no")
    store.add_preference(bob, PROMPT, "x" * 900, "no")


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
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest")
    with pytest.raises(StorageError, match="permission denied"):
        check_place(url.replace("fspo@", "guest@"))
