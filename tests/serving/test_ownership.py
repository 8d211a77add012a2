"""Everybody sees their own data alone, and many may write at once."""

from __future__ import annotations

import io
import threading
import time
import zipfile
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import aliased

from fspo.serving.connection import StoreBusy
from fspo.serving.ownership import NoOwner, Owner, OwnSession
from fspo.serving.schema import PreferenceRow
from fspo.serving.store import Store
from tests.serving.conftest import add, new_user


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


def test_of_many_events_the_oldest_go_but_not_the_one_that_shows_the_last_deletion(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fspo.serving.ownership._MOST_EVENTS", 5)
    ann, bob = new_user(store), new_user(store, "bob")
    store.remove_preference(ann, add(store, ann))
    add(store, bob)
    mark = store.marks([ann.id])
    for number in range(9):
        add(store, ann, str(number))
    events = zipfile.ZipFile(io.BytesIO(store.export(ann))).read("events.jsonl").decode().splitlines()
    assert len(events) == 6 and store.marks([ann.id]) == mark
    assert len(zipfile.ZipFile(io.BytesIO(store.export(bob))).read("events.jsonl").splitlines()) == 1
