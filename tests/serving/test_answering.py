"""What an answer is made of: shots and description, read once and in the right order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fspo.preferences.types import Preference
from fspo.preferences.types import Turn as PromptTurn
from fspo.serving.answering import Answerer, Sampling
from fspo.serving.counters import ServerCounters
from fspo.serving.engine import Turn
from fspo.serving.forgetting import Forgetter
from fspo.serving.store import Owner, Store
from tests.serving.echo import EchoEngine

TURNS = (Turn("user", "A film?"),)


def person(store: Store, name: str = "ann") -> Owner:
    """A user with one preference."""
    store.add_user(name)
    owner = store.user_named(name)
    store.add_preference(owner, (PromptTurn("user", "A book?"),), "A calm one.", "A loud one.")
    return owner


def answerer(store: Store, engine: EchoEngine) -> Answerer:
    return Answerer(store, engine, ServerCounters(), Forgetter(store, engine))


def test_shots_that_are_deleted_while_the_answer_begins_are_not_kept(sqlite_store: Store) -> None:
    owner = person(sqlite_store)

    class Deleting(EchoEngine):
        async def fits(
            self, shots: Sequence[Preference], turns: Sequence[Turn], max_tokens: int, description: str = ""
        ) -> int:
            await self.forget(owner.id)
            return await super().fits(shots, turns, max_tokens, description)

    async def twice() -> None:
        engine = Deleting()
        for _ in range(2):
            answer = await answerer(sqlite_store, engine).begin(owner, "fspo", TURNS, Sampling(500, 0.0, 1.0))
            assert [piece async for piece in answer.pieces]
            assert engine.requests[-1].times_forgotten == engine.times_forgotten(owner.id) - 1

    asyncio.run(twice())


def test_only_shots_that_have_room_beside_the_description_are_named(sqlite_store: Store) -> None:
    owner = person(sqlite_store)

    async def shown() -> list[int]:
        engine = EchoEngine(room=60)
        found = []
        for description in ("", "Likes calm films. " * 3):
            sqlite_store.change_account(owner, description=description)
            answer = await answerer(sqlite_store, engine).begin(owner, "fspo", TURNS, Sampling(500, 0.0, 1.0))
            assert [piece async for piece in answer.pieces]
            assert len(answer.shots) == len(engine.requests[-1].shots)
            found.append(len(answer.shots))
        return found

    assert asyncio.run(shown()) == [1, 0]
