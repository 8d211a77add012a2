"""An OpenAI-compatible endpoint (OpenAI, vLLM, SGLang, llama.cpp, Ollama) as a language model to ask."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

from fspo.errors import FspoError, ModelError, StorageError
from fspo.llm import background
from fspo.llm.budget import Account, BudgetReached, Reserved
from fspo.llm.cache import RequestCache, Spent, key_of
from fspo.llm.endpoint_config import EndpointConfig
from fspo.llm.pacing import Pacer
from fspo.llm.transport import Answered, Failure, Garbled, Overload, Refusal, Transport, WebTransport
from fspo.llm.types import Completion, CompletionRequest
from fspo.llm.wire import LONGEST_WAIT

__all__ = ["Endpoint", "EndpointConfig"]

_REFUSED = Completion("", 0, "refused")
_SHORTEST = 0.5
"""Seconds to wait before a request is sent again the first time."""
_PIECES = 8
"""Pieces that what is asked ahead is divided into."""

_Answer = Completion | FspoError


class Endpoint:
    """Asks `chat/completions`, as many requests at once as the server can take.

    An answer is in the cache, where there is one, before it is handed out, and equal requests under way at once are
    sent once. Overloads, timeouts and lost connections are asked again, after as long as the server says or else ever
    longer; what fails in the end is noted, and asked again by the next call.
    """

    def __init__(
        self, config: EndpointConfig, cache: RequestCache | None = None, transport: Transport | None = None
    ) -> None:
        """Nothing is sent before the first request.

        Args:
            config: where to ask, and how much at once.
            cache: holds earlier answers.
            transport: the way to the server; over HTTP by default.
        """
        self._config, self._cache, self._transport = config, cache, transport
        # Those that wait to be sent again count too: who can't answer some gets no others meanwhile.
        self._places = asyncio.Semaphore(config.requests_in_flight)
        self._pacer = Pacer(config.requests_in_flight)
        self._account = Account(config.budget, cache.spent() if cache is not None else None)
        self._last_answer = -math.inf
        self._away: float | None = None
        """Since when nothing has been reached."""
        self._patience: float = sum(min(LONGEST_WAIT, _SHORTEST * 2**attempt) for attempt in range(config.retries))
        """Seconds that nothing is reached until the server is given up: as long as one request waits by itself."""
        self._proven = False
        """Whether the endpoint has answered anything, in this call or an earlier one."""
        self._reused = 0
        self._tasks: dict[tuple[_Call, str], asyncio.Task[_Answer]] = {}

    @property
    def name(self) -> str:
        """The model's name, and where it is asked."""
        return f"{self._config.model} at {self._config.base_url}"

    @property
    def title(self) -> str:
        """The model's name alone."""
        return self._config.model

    @property
    def spent(self) -> Spent:
        """What all answers have cost, those of earlier calls too, in tokens."""
        return self._account.spent

    @property
    def dollars(self) -> float:
        """The same in dollars; 0 without prices."""
        return self._account.dollars

    @property
    def reused(self) -> int:
        """Answers that came from the cache."""
        return self._reused

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """One completion for each request, in order; one that is refused for what it says is empty and marked so.

        Raises:
            ConfigError: the `openai` package is missing, or the endpoint refuses the key or the model's name.
            BudgetReached: the next request might pass the budget.
            ModelError: the endpoint can't be reached, answers in another form, refuses all requests, or fails on some
                again and again; answers that came are in the cache.
        """
        return list(self._handed_out(iter([list(requests)]), 1))

    def stream(self, requests: Iterable[CompletionRequest], ahead: int) -> Iterator[Completion]:
        """The same for any number of requests, of which at most `ahead` are asked before their turn.

        Raises:
            ConfigError: as `complete`.
            ModelError: as `complete`.
        """
        ahead = max(ahead, 2 * self._config.requests_in_flight)  # else the places could not all be taken
        requests, size = iter(requests), max(1, ahead // _PIECES)
        return self._handed_out(iter(lambda: list(islice(requests, size)), []), _PIECES)

    def _handed_out(self, pieces: Iterator[list[CompletionRequest]], ahead: int) -> Iterator[Completion]:
        """The completions of all pieces, in order; `ahead` of them are asked at once."""
        with closing(self.asking()) as asking:
            for count, piece in enumerate(pieces, start=1):
                asking.begin(piece)
                if count >= ahead:
                    yield from asking.take()
            while asking.left:
                yield from asking.take()

    def mark_unusable(self, requests: Sequence[CompletionRequest]) -> None:
        """Note that the answers to these requests could not be used, so that they can be asked again on request.

        Raises:
            StorageError: the disk is full.
        """
        if self._cache is not None:
            self._cache.mark_unusable([key_of(self._config.identity(), request) for request in requests])

    def asking(self) -> _Asking:
        """A line of pieces of requests, all under way at once; its `take` raises what `complete` does."""
        return _Asking(self)

    def _connect(self) -> Transport:
        if self._transport is None:
            self._transport = WebTransport(self._config)
        return self._transport

    def _sound(self, answers: Sequence[_Answer], cause: FspoError | None) -> list[Completion]:
        """The answers of a piece, where none is missing."""
        problems = [answer for answer in answers if isinstance(answer, FspoError)]
        lasting = [problem for problem in problems if not isinstance(problem, Refusal)]
        if lasting:
            raise _worst(lasting, len(answers), cause)
        if problems and len(problems) == len(answers) and not self._proven:
            raise problems[0]
        return [_REFUSED if isinstance(answer, FspoError) else answer for answer in answers]

    # What follows runs in the loop of `background`.

    async def _all(self, call: _Call, requests: Sequence[CompletionRequest]) -> list[_Answer]:
        keys = [key_of(self._config.identity(), request) for request in requests]
        known = self._cache.get_all(keys) if self._cache is not None else {}
        self._reused += sum(key in known for key in keys)
        self._proven = self._proven or bool(known)
        tasks = {
            key: self._task(call, key, request) for key, request in zip(keys, requests, strict=True) if key not in known
        }
        given = await asyncio.gather(*tasks.values(), return_exceptions=True)
        found: dict[str, Any] = {**known, **dict(zip(tasks, given, strict=True))}
        for answer in given:
            if isinstance(answer, BaseException) and not isinstance(answer, FspoError):
                raise answer
        return [found[key] for key in keys]

    def _task(self, call: _Call, key: str, request: CompletionRequest) -> asyncio.Task[_Answer]:
        """The task that gets this answer; one that is under way serves all who ask the same."""
        place = call, key
        if place not in self._tasks:
            task = asyncio.create_task(self._answer(call, key, request))
            self._tasks[place] = task
            task.add_done_callback(lambda _: self._tasks.pop(place, None))
        return self._tasks[place]

    async def _answer(self, call: _Call, key: str, request: CompletionRequest) -> _Answer:
        """The completion, or why there is none."""
        try:
            with call.waiting():
                await self._places.acquire()
            try:
                found = await self._asked(call, request)
            finally:
                self._places.release()
            if isinstance(found, FspoError):
                if self._cache is not None and not isinstance(found, Refusal | _Unasked):
                    self._cache.fail(key, str(found))
                return found
            completion, prompt_tokens = found
            if self._cache is not None:
                self._cache.put(key, completion, prompt_tokens)
            return completion
        except asyncio.CancelledError:
            return _Unasked("The request was not sent, since an earlier one could not be.")
        except (BudgetReached, StorageError) as error:  # no room for another answer, in the budget or on the disk
            call.stop(error)
            return error
        except BaseException:
            call.stop()
            raise

    async def _asked(self, call: _Call, request: CompletionRequest) -> tuple[Completion, int] | FspoError:
        """The completion and the tokens of its prompt; or what went wrong in the end."""
        attempt, first = 0, time.monotonic()
        while True:
            with call.waiting():
                began = await self._pacer.enter()
            try:
                with call.waiting():
                    reserved = await self._account.reserve(request)
                found = await call.transport.send(request)
                if isinstance(found, Garbled) and self._proven:  # the address is right, so that it was this answer
                    found = Overload(found, late=True)
                if isinstance(found, Overload):
                    self._pacer.overloaded(began, found.wait)
                elif isinstance(found, Answered):
                    self._pacer.answered()
            finally:
                self._pacer.leave()
            if not isinstance(found, Overload):
                return self._judged(call, found, request, reserved)
            self._lost(reserved) if found.late else self._account.release(reserved)
            if attempt == self._config.retries or self._gone(found):
                if found.unreachable or self._last_answer < first:
                    call.stop(found.error)  # nobody was answered all the while
                return found.error
            pause = min(LONGEST_WAIT, _SHORTEST * 2**attempt) * (0.5 + random.random() / 2)
            with call.waiting():
                await asyncio.sleep(max(pause, found.wait))
            attempt += 1

    def _gone(self, found: Overload) -> bool:
        """Whether the server has been away for long: single requests can't tell, which wait behind each other then."""
        if not found.unreachable or found.late:  # somebody took the connection
            self._away = None
            return False
        now = time.monotonic()
        self._away = now if self._away is None else self._away
        return now - self._away >= self._patience

    def _lost(self, reserved: Reserved) -> None:
        """What was under way and never came may have been worked on, and be paid for."""
        self._account.lose(reserved)
        if self._cache is not None:
            self._cache.lose(reserved.prompt, reserved.answer)

    def _judged(
        self, call: _Call, found: Answered | FspoError, request: CompletionRequest, reserved: Reserved
    ) -> tuple[Completion, int] | FspoError:
        """What is handed out, after drawing the conclusions for other requests and for the budget."""
        if isinstance(found, FspoError):
            self._account.release(reserved)
            if not isinstance(found, Refusal | Failure):
                call.stop(found)  # the key, the name, the form of the answers: all others would fail too
            return found
        self._last_answer, self._proven, self._away = time.monotonic(), True, None
        completion, prompt_tokens = found.completion, found.prompt_tokens
        if prompt_tokens is None:  # a server that doesn't count: at most so many
            prompt_tokens = round(reserved.prompt)
            completion = replace(completion, tokens=min(request.max_tokens, len(completion.text.encode())))
        self._account.settle(reserved, prompt_tokens, completion.tokens)
        return completion, prompt_tokens


class _Asking:
    """What `Endpoint.asking` gives."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint, self._call = endpoint, _Call(endpoint._connect())
        self._under_way: deque[Future[list[_Answer]]] = deque()

    @property
    def left(self) -> int:
        """Pieces that are not taken."""
        return len(self._under_way)

    def begin(self, requests: Sequence[CompletionRequest]) -> None:
        self._under_way.append(background.submit(self._endpoint._all(self._call, requests)))

    def take(self) -> list[Completion]:
        # Under way until it is there: an interrupt may come while it is waited for.
        answers = background.result(self._under_way[0])
        self._under_way.popleft()
        return self._endpoint._sound(answers, self._call.cause)

    def close(self) -> None:
        """After a failure or an interrupt: what is under way is waited for and kept, and nothing else is sent."""
        if self._under_way:
            background.call(self._call.stop)
            background.settle(self._under_way)


class _Call:
    """One call of an endpoint: it stops as a whole, and no other with it. What is here runs in the loop."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.cause: FspoError | None = None
        """Why it was stopped, where it was for an error."""
        self._stopped = False
        self._idle: set[asyncio.Task[Any]] = set()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While a request is not under way, it need not be sent: a stop cancels it."""
        if self._stopped:
            raise asyncio.CancelledError
        task = asyncio.current_task()
        assert task is not None
        self._idle.add(task)
        try:
            yield
        finally:
            self._idle.discard(task)

    def stop(self, cause: FspoError | None = None) -> None:
        """Send nothing more."""
        self._stopped, self.cause = True, self.cause or cause
        for task in tuple(self._idle):
            task.cancel()


class _Unasked(ModelError):
    """A request that was not sent."""


def _worst(problems: Sequence[FspoError], asked: int, cause: FspoError | None) -> FspoError:
    """The one problem to tell of: what stops everything, or else how many requests failed and why the first did."""
    told = [problem for problem in problems if not isinstance(problem, _Unasked)]
    if not told:  # others stopped these
        return cause or problems[0]
    stopping = [problem for problem in told if not isinstance(problem, Failure)]
    if stopping:
        return stopping[0]
    if len(told) == 1:
        return told[0]
    return ModelError(f"{len(told)} of {asked} requests failed; the first: {told[0]}")
