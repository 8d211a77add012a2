"""What an engine keeps of people with deletions is dropped, also where a first try fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from fspo.errors import ModelError
from fspo.serving.connection import StoreBusy
from fspo.serving.forgetting import Forgetter
from fspo.serving.ownership import Owner, event_row
from fspo.serving.store import Store
from tests.serving.conftest import add, new_database, new_user


def test_a_look_that_fails_for_one_person_is_repeated_and_serves_the_others(sqlite_store: Store) -> None:
    ann, bob = (Owner(sqlite_store.add_user(name).id) for name in ("ann", "bob"))
    down, dropped = {ann.id}, []

    async def forget(owner: str) -> None:
        if owner in down:
            raise ModelError("The engine does not answer.")
        dropped.append(owner)

    forgetter = Forgetter(sqlite_store, forget)
    for owner in (ann, bob):
        forgetter.note(owner, forgetter.mark(owner))
        sqlite_store.withdraw(owner)
    with pytest.raises(ModelError):
        asyncio.run(forgetter.look())
    assert dropped == [bob.id]
    with pytest.raises(ModelError):
        asyncio.run(forgetter.forget(ann))
    down.clear()
    asyncio.run(forgetter.look())
    asyncio.run(forgetter.look())
    assert dropped == [bob.id, ann.id]


def test_a_look_reads_no_marks_until_the_store_changes_or_something_is_noted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = (new_user(store, name) for name in ("ann", "bob"))
    first = add(store, ann)
    read, asked, dropped = store.marks, [], []

    def marks(owners: Sequence[str]) -> dict[str, int]:
        asked.append(set(owners))
        return read(owners)

    async def forget(owner: str) -> None:
        dropped.append(owner)

    def look() -> list[set[str]]:
        asked.clear()
        asyncio.run(forgetter.look())
        return list(asked)

    forgetter = Forgetter(store, forget)
    before = {owner: forgetter.mark(owner) for owner in (ann, bob)}
    for owner, mark in before.items():
        forgetter.note(owner, mark)
    monkeypatch.setattr(store, "marks", marks)
    assert look() == [{ann.id, bob.id}] and look() == [] and not dropped
    store.remove_preference(ann, first)
    assert look() == [{ann.id, bob.id}] and dropped == [ann.id]
    assert look() == []
    forgetter.note(ann, before[ann])  # a request that began before the deletion ends after the look
    assert look() == [{ann.id}] and dropped == [ann.id, ann.id]
    add(store, bob)
    store.withdraw(bob)
    assert look() == [{bob.id}] and dropped[2:] == [bob.id]


def test_a_look_sees_what_another_program_saves_late(postgres: str) -> None:
    url = new_database(postgres)
    store, other = Store.open(url), Store.open(url)
    ann, bob = new_user(store), new_user(store, "bob")
    dropped = []

    async def forget(owner: str) -> None:
        dropped.append(owner)

    forgetter = Forgetter(store, forget)
    forgetter.note(ann, forgetter.mark(ann))
    with other._write(ann) as session:
        session.add(event_row(ann, "preference.deleted", {}))
        session.flush()
        add(store, bob)  # its event has a larger number
        asyncio.run(forgetter.look())
        assert dropped == []
    asyncio.run(forgetter.look())
    assert dropped == [ann.id]
    store.close()
    other.close()


def test_the_log_has_a_problem_once_while_it_lasts(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ann = Owner(sqlite_store.add_user("ann").id)
    outages, looks = [1, 1, 1, 0, 1, 1], 0
    read = sqlite_store.version

    def version() -> str:
        nonlocal looks
        looks += 1
        if outages[min(looks, len(outages)) - 1]:
            raise StoreBusy("The store is busy.")
        return read()

    async def forget(_: str) -> None:
        pass

    async def run() -> None:
        forgetter = Forgetter(sqlite_store, forget, seconds=0.001)
        forgetter.note(ann, forgetter.mark(ann))
        monkeypatch.setattr(sqlite_store, "version", version)
        running = asyncio.create_task(forgetter.run())
        while looks < len(outages):
            await asyncio.sleep(0.001)
        running.cancel()

    asyncio.run(run())
    assert caplog.text.count("The store is busy.") == 2
