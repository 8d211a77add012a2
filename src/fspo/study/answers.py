"""The answers of the second stage: both arms answer each question of a participant, in the background.

Both answers of an item are saved in one step, so that none is ever shown alone. What fails is tried again when the
participant asks for it, and is never a vote.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Literal

from anyio.to_thread import run_sync

from fspo.errors import FspoError, ModelError
from fspo.preferences.types import Preference, Turn
from fspo.preferences.wording import is_blank
from fspo.serving.connection import StoreBusy
from fspo.serving.engine import Engine, GenerationRequest
from fspo.serving.forgetting import Forgetter
from fspo.serving.health import health_of
from fspo.serving.logged_errors import outlined
from fspo.serving.ownership import Owner, UnknownOwner
from fspo.serving.schema import StudyItemRow
from fspo.serving.views import HealthView
from fspo.study.config import StudyConfig
from fspo.study.matching import alike, as_shown, closest, whole_sentences
from fspo.study.store import NotAParticipant, StudyStore

__all__ = ["AnswerWriter", "Writing"]

Writing = Literal["idle", "running", "failed"]
_TRIES = 3
"""Requests for one answer until an empty one counts as a failure."""
_BUSY_PAUSES = (0.25, 1.0, 4.0)
"""Seconds between the tries to save answers, beside those that a transaction waits for another one."""
_LOG = logging.getLogger(__name__)


class AnswerWriter:
    """Writes the answers of all participants of one study."""

    def __init__(
        self, store: StudyStore, config: StudyConfig, engines: Mapping[str, Engine], *, look_seconds: float = 1.0
    ) -> None:
        """Arms may share an engine. What another program has deleted in the store is noticed in `look_seconds`."""
        self._forgetter = Forgetter(store, self._drop, seconds=look_seconds)
        self._store, self._config, self._engines = store, config, dict(engines)
        self._together = asyncio.Semaphore(config.answers.together)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failed: set[str] = set()

    def state(self, owner: Owner) -> Writing:
        """How far the answers of a participant are."""
        if owner.id in self._tasks:
            return "running"
        return "failed" if owner.id in self._failed else "idle"

    def start(self, owner: Owner) -> None:
        """Write what the participant still needs, unless that is under way."""
        if owner.id in self._tasks:
            return
        self._failed.discard(owner.id)
        task = asyncio.get_running_loop().create_task(self._write(owner))
        self._tasks[owner.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(owner.id, None))

    async def forget(self, owner: Owner) -> None:
        """Stop writing for a participant, and drop what the engines keep of them."""
        try:
            await self._forgetter.forget(owner)
        except FspoError as error:  # `watch` tries again
            _LOG.warning("An engine did not forget a participant (%s).", type(error).__name__)

    async def health(self) -> HealthView:
        """Whether the store and the engines of all arms can answer."""
        return await health_of(self._store, self._distinct(), len(self._tasks))

    async def watch(self) -> None:
        """Forget participants whose data another program deletes, until this is cancelled."""
        await self._forgetter.run()

    async def _drop(self, owner: str) -> None:
        self._failed.discard(owner)
        task = self._tasks.get(owner)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        problem: FspoError | None = None
        for engine in self._distinct():
            try:
                await engine.forget(owner)
            except FspoError as error:
                problem = error
        if problem is not None:
            raise problem

    async def close(self) -> None:
        """Stop writing, and close the engines."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for engine in self._distinct():
            await engine.close()

    def _distinct(self) -> list[Engine]:
        return list({id(engine): engine for engine in self._engines.values()}.values())

    async def _write(self, owner: Owner) -> None:
        try:
            mark = await run_sync(self._forgetter.mark, owner)  # before the labels are read
            self._forgetter.note(owner, mark)
            try:
                await self._write_items(owner)
            finally:  # also what is read after a deletion is dropped
                self._forgetter.note(owner, mark)
        except (NotAParticipant, UnknownOwner):
            return  # they withdrew meanwhile
        except Exception as error:  # of the engine or the store; its text may quote a participant
            await self._fail(owner, error)

    async def _write_items(self, owner: Owner) -> None:
        visit = await run_sync(self._store.visit, owner, self._config.name)
        for item in visit.stage("compare"):
            if not item.first and item.first_arm:
                shots = visit.shots(item.shots)
                await self._write_item(owner, item, shots, await self._most_read(item, shots))

    async def _fail(self, owner: Owner, error: Exception) -> None:
        kind = type(error).__name__
        _LOG.error("The answers for a participant could not be written (%s).", outlined(error))
        self._failed.add(owner.id)
        try:
            await run_sync(lambda: self._store.note(owner, "failed", error=kind))
        except FspoError:
            _LOG.warning("The failure was not recorded (%s).", kind)

    async def _most_read(self, item: StudyItemRow, shots: tuple[Preference, ...]) -> int:
        """How many of the labels have room in the prompt of the arm that reads most of them."""
        turns, tokens = (Turn("user", item.prompt),), self._config.answers.max_tokens
        read = [
            await self._engines[arm].fits(shots, turns, tokens)
            for arm in (item.first_arm, item.second_arm)
            if self._config.arms[arm].personalised
        ]
        if read and max(read) < len(shots):
            _LOG.warning("An answer is written with %d of %d labels; no more have room.", max(read), len(shots))
        return max(read, default=len(shots))

    async def _write_item(
        self, owner: Owner, item: StudyItemRow, shots: tuple[Preference, ...], most_read: int
    ) -> None:
        matching = self._config.matching
        firsts: list[str] = []
        seconds: list[str] = []
        for _ in range(matching.candidates):
            first, second = await self._both(owner, item, shots)
            firsts.append(first)
            seconds.append(second)
            if alike(*closest(firsts, seconds, matching), matching):
                break
        first, second = closest(firsts, seconds, matching)
        matched = alike(first, second, matching)
        shown = as_shown(first, matching), as_shown(second, matching)
        name = self._config.name
        await self._save(
            lambda: self._store.save_answers(owner, name, item.id, *shown, matched=matched, shots=most_read)
        )

    async def _save(self, save: Callable[[], bool]) -> None:
        """Save answers, also where the store is busy for a while: they took longer to write than that.

        Raises:
            StoreBusy: it stays busy.
        """
        for pause in _BUSY_PAUSES:
            try:
                await run_sync(save)
                return
            except StoreBusy:
                await asyncio.sleep(pause)
        await run_sync(save)

    async def _both(self, owner: Owner, item: StudyItemRow, shots: tuple[Preference, ...]) -> tuple[str, str]:
        first = asyncio.ensure_future(self._answer(owner, item.first_arm, item.prompt, shots))
        second = asyncio.ensure_future(self._answer(owner, item.second_arm, item.prompt, shots))
        try:
            return await first, await second
        finally:
            for task in (first, second):
                task.cancel()
            await asyncio.gather(first, second, return_exceptions=True)

    async def _answer(self, owner: Owner, arm: str, prompt: str, shots: tuple[Preference, ...]) -> str:
        """An answer in which there is something to read.

        Raises:
            FspoError: the engine can't answer.
            TimeoutError: it takes too long.
        """
        engine, settings = self._engines[arm], self._config.answers
        personalised = self._config.arms[arm].personalised
        for _ in range(_TRIES):
            request = GenerationRequest(
                owner=owner.id,
                shots=shots if personalised else (),
                turns=(Turn("user", prompt),),
                max_tokens=settings.max_tokens,
                temperature=settings.temperature,
                top_p=settings.top_p,
                stop=(),
                seed=None,
                personalised=personalised,
                times_forgotten=engine.times_forgotten(owner.id),
            )
            async with self._together, asyncio.timeout(settings.timeout):
                text = await _whole(engine, request)
            if not is_blank(as_shown(text, self._config.matching)):
                return text
        raise ModelError(f"The answers of the arm '{arm}' are empty.")


async def _whole(engine: Engine, request: GenerationRequest) -> str:
    """The answer, without an unfinished sentence where the limit ended it."""
    pieces = engine.stream(request)
    try:
        written = [piece async for piece in pieces]
    finally:
        await pieces.aclose()  # type: ignore[attr-defined]
    text = "".join(piece.text for piece in written)
    return whole_sentences(text) if written and written[-1].finish == "length" else text
