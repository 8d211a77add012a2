"""What an engine keeps of people with deletions is dropped, also where a first try fails."""

from __future__ import annotations

import asyncio

import pytest

from fspo.errors import ModelError
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
