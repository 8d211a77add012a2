"""An engine in this process: a policy answers many people at once, and remembers what it has read of their shots.

One thread does all the work of the model, round by round; requests come and go between two rounds. The policy answers
with the user's shots, and its base model without adapters and shots, over the same weights in memory.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fspo.errors import ConfigError, FspoError, ModelError
from fspo.modeling.policy import Policy
from fspo.modeling.rendering import EpisodeRenderer, RenderedPrompt
from fspo.preferences.sampling import shots_beside
from fspo.preferences.types import Person, Preference, Turn, as_turns, transcript
from fspo.serving.engine import EngineState, GenerationRequest, Piece
from fspo.serving.engines.description_cache import DescriptionCache
from fspo.serving.engines.lane import Job, Lane
from fspo.serving.engines.requests import check_length, check_request, within_reach
from fspo.serving.engines.trunk_cache import CacheCounts, TrunkCache
from fspo.serving.logged_errors import outlined

__all__ = ["EngineCounts", "LocalEngine", "check_settings"]

T = TypeVar("T")
_LOG = logging.getLogger(__name__)

_BATCH_SIZE = 32
"""Requests that are answered side by side, by default."""
_LOOK = 1.0
"""Seconds between two looks whether the program has ended."""


@dataclass(frozen=True)
class EngineCounts:
    """What an engine is doing."""

    requests: int
    """Under way now."""
    trunks: int
    """Users whose shots are in memory."""
    trunk_bytes: int
    cache: CacheCounts


def check_settings(policy: Policy, *, budget: int, guidance: float, batch_size: int = _BATCH_SIZE) -> None:
    """Check what a `LocalEngine` is made of.

    Raises:
        ConfigError: a setting is out of its range, or there is guidance for a policy that describes people.
        ModelError: the policy is in training.
    """
    if budget < 0 or batch_size < 1:
        raise ConfigError("The budget must be at least 0 bytes, and the batch size at least 1.")
    if not 0 <= guidance < math.inf:
        raise ConfigError(f"guidance must be at least 0 and finite, but it is {guidance}.")
    if guidance and policy.describes:
        raise ConfigError("A policy that describes people is served without guidance; leave the guidance out.")
    if policy.weights is None:
        raise ModelError("This policy is in training; train it to the end, and load it with Policy.load.")


class LocalEngine:
    """Answers with a policy that is in the memory of this process. See `Engine`.

    An answer is the one that `Policy.generate` gives with the same seed, whatever else is answered at the time and
    whether the shots were in memory or not, up to the rounding of sums.
    """

    def __init__(
        self, policy: Policy, *, budget: int = 2**30, batch_size: int = _BATCH_SIZE, guidance: float = 0.0
    ) -> None:
        """The weights are loaded at the first request.

        Args:
            policy: answers personalised requests; its base model answers the others.
            budget: bytes for the keys and values of all users' shots.
            batch_size: requests answered side by side; further ones wait.
            guidance: how far personalised answers are pushed away from those for the mirrored user, as in
                `Policy.generate`; it doubles the work and the memory of these answers. 0 samples plainly.

        Raises:
            ConfigError, ModelError: see `check_settings`.
        """
        check_settings(policy, budget=budget, batch_size=batch_size, guidance=guidance)
        assert policy.weights is not None
        self._policy = policy
        self._cache = TrunkCache(budget)
        self._bare = _as_conversation(policy.renderer)
        weights = policy.weights
        self._model_name = Path(weights.base_name).name
        self._descriptions = DescriptionCache(lambda shots: policy.describe(Person(shots)))
        self._forgotten: Counter[str] = Counter()
        common = (self._cache, batch_size, self.times_forgotten)
        self._personal = Lane(weights.policy, policy.renderer, self._with_shots, *common, guidance=guidance)
        self._base = Lane(weights.base, self._bare, self._without_shots, *common)
        self._calls: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="fspo-engine")
        self._thread.start()

    @property
    def counts(self) -> EngineCounts:
        """What the engine is doing; a snapshot."""
        return EngineCounts(
            len(self._personal) + len(self._base), len(self._cache), self._cache.nbytes, self._cache.counts
        )

    async def stream(self, request: GenerationRequest) -> AsyncIterator[Piece]:
        """See `Engine`."""
        check_request(request)
        check_length(request.turns, self._policy.renderer.max_length)
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[Piece | FspoError] = asyncio.Queue()

        def deliver(piece: Piece | FspoError) -> None:
            try:
                loop.call_soon_threadsafe(pieces.put_nowait, piece)
            except RuntimeError:  # the loop is closed: nobody waits any more
                job.cancelled = True

        seed = secrets.randbits(32) if request.seed is None else request.seed
        job = Job(request, deliver, seed)
        lane = self._personal if request.personalised else self._base
        self._post(lambda: lane.add(job))
        try:
            while True:
                piece = await pieces.get()
                if isinstance(piece, FspoError):
                    raise piece
                yield piece
                if piece.finish is not None:
                    return
        finally:
            job.cancelled = True

    @property
    def reads_description(self) -> bool:
        """See `Engine`."""
        return self._policy.renderer.reads_description

    async def fits(
        self, shots: Sequence[Preference], turns: Sequence[Turn], max_tokens: int, description: str = ""
    ) -> int:
        """See `Engine`."""
        longest = self._policy.renderer.max_length
        check_length(turns, longest)
        prompt = as_turns(turns)

        def count() -> int:
            most = self._policy.shots if self._policy.reads_shots else 0
            shown = shots_beside(transcript(prompt), within_reach(shots, longest), most)
            # A description that the policy would write takes long to write: its place is kept free instead.
            place = "word " * self._policy.description_tokens if self._policy.describes else ""
            rendered = self._policy.renderer.render_prompt(shown, prompt, description or place, reserve=max_tokens)
            return len(shown) - rendered.dropped_shots

        return await self._called(count)

    def times_forgotten(self, owner: str) -> int:
        """See `Engine`."""
        return self._forgotten[owner]

    async def forget(self, owner: str) -> None:
        """See `Engine`. Requests of the owner under way are answered, and what they read is not kept."""
        self._forgotten[owner] += 1

        def forget() -> None:
            self._cache.forget(owner)
            self._descriptions.forget(owner)

        if not self._closed:  # its end drops everything
            with suppress(ModelError):
                await self._called(forget)

    async def state(self) -> EngineState:
        """See `Engine`."""
        alive = self._thread.is_alive() and not self._closed
        return EngineState(alive, self._model_name, self._personal.waiting + self._base.waiting)

    async def close(self) -> None:
        """See `Engine`."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    def _with_shots(self, request: GenerationRequest) -> RenderedPrompt:
        prompt = as_turns(request.turns)
        description = request.description or self._described(request, transcript(prompt))
        shown = self._policy.shown(Person(request.shots), prompt, description)
        return self._policy.renderer.render_prompt(
            shown.shots, shown.text, shown.description, reserve=request.max_tokens
        )

    def _described(self, request: GenerationRequest, said: str) -> str:
        """What the policy writes of the owner, if it describes people."""
        if not self._policy.describes:
            return ""
        shots = shots_beside(said, request.shots, self._policy.shots)
        keep = request.times_forgotten == self.times_forgotten(request.owner)
        return self._descriptions.of(request.owner, shots, keep=keep)

    def _without_shots(self, request: GenerationRequest) -> RenderedPrompt:
        return self._bare.render_prompt((), as_turns(request.turns), reserve=request.max_tokens)

    async def _called(self, function: Callable[[], T]) -> T:
        """What `function` returns in the engine's thread, between two rounds."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def settle(value: T | None, error: Exception | None) -> None:
            if not answer.done():
                answer.set_exception(error) if error else answer.set_result(value)  # type: ignore[arg-type]

        def call() -> None:
            value, problem = None, None
            try:
                value = function()
            except Exception as error:
                problem = error
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, value, problem)

        self._post(call)
        return await answer

    def _post(self, call: Callable[[], None]) -> None:
        with self._wake:
            if self._closed:
                raise ModelError("The engine is closed; start the server again.")
            self._calls.append(call)
            self._wake.notify()

    def _work(self) -> None:
        """The engine's thread, which ends with the program's main thread at the latest."""
        try:
            self._work_in_rounds()
        except Exception as error:  # its text may quote a person, and Python would print it
            _LOG.error("The engine broke (%s).", outlined(error))
        with self._wake:
            self._closed = True
            calls = list(self._calls)
        for call in calls:  # nobody waits for them in vain
            call()
        try:
            for lane in (self._personal, self._base):
                lane.fail(ModelError("The engine was closed before the answer was finished."))
        finally:
            self._cache.clear()
            self._descriptions.clear()

    def _work_in_rounds(self) -> None:
        while True:
            with self._wake:
                busy = bool(len(self._personal) or len(self._base))
                if not (busy or self._calls or self._closed):
                    self._wake.wait(_LOOK)
                closed = self._closed or not threading.main_thread().is_alive()
                calls = list(self._calls)
                self._calls.clear()
            for call in calls:
                call()
            if closed:
                break
            self._personal.work()
            self._base.work()


def _as_conversation(renderer: EpisodeRenderer) -> EpisodeRenderer:
    """Renders for the base model: nothing of the user, and turns as turns where the chat template shows them."""
    settings: dict[str, Any] = {"context": "none", "max_length": renderer.max_length}
    try:
        return EpisodeRenderer(renderer.tokenizer, layout="conversation", **settings)
    except ModelError:
        return EpisodeRenderer(renderer.tokenizer, layout=renderer.layout, **settings)
