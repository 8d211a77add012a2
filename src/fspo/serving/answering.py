"""From a request to the pieces of its answer: the user's shots are read, chosen and given to the engine."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from anyio.to_thread import run_sync

from fspo.errors import FspoError
from fspo.preferences.types import Turn, transcript
from fspo.serving.admission import Admission
from fspo.serving.counters import ServerCounters
from fspo.serving.engine import Engine, GenerationRequest, Piece
from fspo.serving.forgetting import Forgetter
from fspo.serving.logged_errors import outlined
from fspo.serving.ownership import Owner
from fspo.serving.shot_choice import READ, choose_shots, usable
from fspo.serving.store import Store
from fspo.serving.stored_preferences import StoredPreference

__all__ = ["Answer", "Answerer", "Sampling"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sampling:
    """How an answer is sampled; see `GenerationRequest`."""

    max_tokens: int
    temperature: float
    top_p: float
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass
class Answer:
    """An answer under way."""

    model: str
    shots: Sequence[StoredPreference]
    pieces: AsyncIterator[Piece]
    created: int = field(default_factory=lambda: int(time.time()))
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    last: Piece | None = None
    """The piece that ended it."""

    @property
    def usage(self) -> tuple[int, int, int]:
        """Tokens of the prompt, those of them that were cached, and tokens of the answer."""
        return (
            (self.last.prompt_tokens, self.last.cached_tokens, self.last.completion_tokens) if self.last else (0,) * 3
        )

    def given(self) -> dict[str, Any]:
        """Which preferences the answer was given, as the API shows them."""
        return {
            "shots": [
                {
                    "id": shot.id,
                    "prompt": shot.preference.prompt,
                    "chosen": shot.preference.chosen,
                    "rejected": shot.preference.rejected,
                }
                for shot in self.shots
            ]
        }


class Answerer:
    """Answers the requests of all users with one engine."""

    def __init__(
        self, store: Store, engine: Engine, counters: ServerCounters, forgetter: Forgetter, admission: Admission
    ) -> None:
        """Shots come from the store, answers from the engine; the forgetter notes whose shots the engine may keep."""
        self._store, self._engine, self._counters, self._forgetter = store, engine, counters, forgetter
        self._admission = admission

    async def begin(self, owner: Owner, model: str, turns: tuple[Turn, ...], sampling: Sampling) -> Answer:
        """Choose the shots and begin the answer, which ends with its pieces.

        Raises:
            DataError: the turns have no room.
            TooManyAnswers: the owner has too many answers under way.
            ServerFull: all users together have.
        """
        self._admission.enter(owner.id)
        try:
            return await self._admitted(owner, model, turns, sampling)
        except BaseException:
            self._admission.leave(owner.id)
            raise

    async def _admitted(self, owner: Owner, model: str, turns: tuple[Turn, ...], sampling: Sampling) -> Answer:
        # Both numbers before anything is read: the user may delete it meanwhile.
        times_forgotten = self._engine.times_forgotten(owner.id)
        mark = await run_sync(self._forgetter.mark, owner) if model == "fspo" else None
        account = await run_sync(self._store.account, owner)
        personalised = model == "fspo" and account.personalise
        description = account.description if personalised else ""
        shots = await self._shots(owner, turns, sampling.max_tokens, description) if personalised else []
        request = GenerationRequest(
            owner=owner.id,
            shots=tuple(shot.preference for shot in shots),
            turns=turns,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            stop=sampling.stop,
            seed=sampling.seed,
            personalised=personalised,
            description=description,
            times_forgotten=times_forgotten,
        )
        answer = Answer(model, shots, self._engine.stream(request))
        answer.pieces = self._followed(owner, answer, turns, answer.pieces, mark if personalised else None)
        return answer

    async def _shots(
        self, owner: Owner, turns: Sequence[Turn], max_tokens: int, description: str
    ) -> list[StoredPreference]:
        said = transcript(turns)
        newest, older = await run_sync(self._store.newest, owner, READ)
        known = await run_sync(usable, newest, said)
        room = len(known)
        while True:
            chosen = await run_sync(choose_shots, known, said, room, older)
            if not chosen:
                return []
            shown = [shot.preference for shot in chosen]
            fitting = await self._engine.fits(shown, turns, max_tokens, description)
            if fitting >= len(chosen):
                return chosen
            room = fitting  # smaller each time

    async def _followed(
        self, owner: Owner, answer: Answer, turns: tuple[Turn, ...], pieces: AsyncIterator[Piece], mark: int | None
    ) -> AsyncIterator[Piece]:
        """The pieces; afterwards the answer is counted, and saved where the user wants that."""
        start, texts = time.perf_counter(), list[str]()
        try:
            if mark is not None:
                self._forgetter.note(owner, mark)
            async for piece in pieces:
                if piece.text and not any(texts):
                    self._counters.first_text.labels(answer.model).observe(time.perf_counter() - start)
                texts.append(piece.text)
                if piece.finish is not None:
                    answer.last = piece
                    await self._finish(owner, answer, turns, "".join(texts))
                yield piece
        except Exception:
            self._counters.failed.labels(answer.model).inc()
            raise
        except BaseException:  # the client left
            if answer.last is None:
                self._counters.cancelled.labels(answer.model).inc()
            raise
        finally:
            self._admission.leave(owner.id)
            if mark is not None:
                self._forgetter.note(owner, mark)
            await pieces.aclose()  # type: ignore[attr-defined]

    async def _finish(self, owner: Owner, answer: Answer, turns: tuple[Turn, ...], text: str) -> None:
        for kind, count in zip(("prompt", "cached", "completion"), answer.usage, strict=True):
            self._counters.tokens.labels(answer.model, kind).inc(count)
        shots = [shot.id for shot in answer.shots]
        try:
            save = partial(self._store.keep_conversation, answer_id=answer.id)
            await run_sync(save, owner, answer.model, turns, text, shots)
        except FspoError as error:  # the answer is worth more than its record
            _LOG.warning("A conversation was not saved: %s", error)
        except Exception as error:  # its text may quote the answer
            _LOG.error("A conversation was not saved (%s).", outlined(error))
