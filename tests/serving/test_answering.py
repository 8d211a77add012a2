"""What an answer is made of: shots and description, read once and in the right order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from fspo.errors import DataError
from fspo.preferences.types import Preference, Turn
from fspo.serving.admission import Admission, ServerFull, TooManyAnswers
from fspo.serving.answering import Answer, Answerer, Sampling
from fspo.serving.counters import ServerCounters
from fspo.serving.engine import GenerationRequest, Piece
from fspo.serving.forgetting import Forgetter
from fspo.serving.ownership import Owner
from fspo.serving.store import Store
from tests.serving.echo import EchoEngine

TURNS = (Turn("user", "A film?"),)


def person(store: Store, name: str = "ann") -> Owner:
    """A user with one preference."""
    store.add_user(name)
    owner = store.user_named(name)
    store.add_preference(owner, (Turn("user", "A book?"),), "A calm one.", "A loud one.")
    return owner


def answerer(store: Store, engine: EchoEngine, each: int = 8, together: int = 8) -> Answerer:
    return Answerer(store, engine, ServerCounters(), Forgetter(store, engine.forget), Admission(each, together))


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


def test_an_answer_that_the_database_can_not_hold_is_answered_all_the_same(
    sqlite_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    owner = person(sqlite_store)
    sqlite_store.change_account(owner, keep_conversations=True)

    class Odd(EchoEngine):
        async def stream(self, request: GenerationRequest) -> AsyncIterator[Piece]:
            yield Piece("private \ud800", "stop", 5, 1, 0)

    async def texts() -> list[str]:
        answer = await answerer(sqlite_store, Odd()).begin(owner, "fspo", TURNS, Sampling(500, 0.0, 1.0))
        return [piece.text async for piece in answer.pieces]

    assert asyncio.run(texts()) == ["private \ud800"]
    assert "UnicodeEncodeError at " in caplog.text and "serving/saved_answers.py:" in caplog.text
    assert "private" not in caplog.text


def test_answers_under_way_are_limited_for_a_user_and_for_all(sqlite_store: Store) -> None:
    ann, ben = person(sqlite_store, "ann"), person(sqlite_store, "ben")
    too_long = (Turn("user", "x" * 20_000),)

    async def crowd() -> None:
        answers = answerer(sqlite_store, EchoEngine(), each=2, together=3)

        async def begun(owner: Owner, turns: tuple[Turn, ...] = TURNS) -> Answer:
            return await answers.begin(owner, "fspo", turns, Sampling(500, 0.0, 1.0))

        for _ in range(3):  # every way to end gives the place back
            with pytest.raises(DataError):
                await begun(ann, too_long)
            first, second = await begun(ann), await begun(ann)
            with pytest.raises(TooManyAnswers):
                await begun(ann)
            third = await begun(ben)
            with pytest.raises(ServerFull):
                await begun(ben)
            assert [piece async for piece in first.pieces]
            fourth = await begun(ben)
            for left in (second, third, fourth):
                await anext(left.pieces)
                await left.pieces.aclose()  # type: ignore[attr-defined]

    asyncio.run(crowd())


def test_an_answer_reads_no_more_than_the_newest_preferences(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = person(sqlite_store)
    for number in range(9):
        sqlite_store.add_preference(owner, (Turn("user", f"Question {number}?"),), f"Calm {number}.", "Loud.")
    monkeypatch.setattr("fspo.serving.answering.READ", 4)

    async def shown() -> list[str]:
        engine = EchoEngine()
        answer = await answerer(sqlite_store, engine).begin(owner, "fspo", TURNS, Sampling(500, 0.0, 1.0))
        assert [piece async for piece in answer.pieces]
        return [shot.chosen for shot in engine.requests[-1].shots]

    assert asyncio.run(shown()) == [f"Calm {number}." for number in range(5, 9)]
