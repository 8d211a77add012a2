"""What an engine keeps of people with deletions is dropped, also where a first try fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from fspo.errors import ModelError
from fspo.serving.connection import StoreBusy
from fspo.serving.forgetting import Forgetter
from fspo.serving.ownership import Owner
from fspo.serving.store import Store


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


def test_the_log_has_a_problem_once_while_it_lasts(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ann = Owner(sqlite_store.add_user("ann").id)
    outages, looks = [1, 1, 1, 0, 1, 1], 0
    read = sqlite_store.marks

    def marks(owners: Sequence[str]) -> dict[str, int]:
        nonlocal looks
        looks += 1
        if outages[min(looks, len(outages)) - 1]:
            raise StoreBusy("The store is busy.")
        return read(owners)

    async def forget(_: str) -> None:
        pass

    async def run() -> None:
        forgetter = Forgetter(sqlite_store, forget, seconds=0.001)
        forgetter.note(ann, forgetter.mark(ann))
        monkeypatch.setattr(sqlite_store, "marks", marks)
        running = asyncio.create_task(forgetter.run())
        while looks < len(outages):
            await asyncio.sleep(0.001)
        running.cancel()

    asyncio.run(run())
    assert caplog.text.count("The store is busy.") == 2
