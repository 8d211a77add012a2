"""An OpenAI-compatible endpoint (OpenAI, vLLM, SGLang, llama.cpp, Ollama) as a language model to ask.

Retries, pauses and the window of requests under way are written here and in `fspo.llm.pacing`, because they belong
together: a request that is sent again waits for its place in the window, which an overload has halved; a lost
connection counts in the budget; a server that is away is given up for all requests at once, after half a minute and not
half a minute each. A library that retries one call at a time can do none of this.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any
from weakref import WeakSet

from fspo.errors import FspoError, ModelError, StorageError
from fspo.llm import background
from fspo.llm.budget import Account, BudgetReached, Reserved
from fspo.llm.cache import RequestCache, Spent, key_of
from fspo.llm.endpoint_config import EndpointConfig
from fspo.llm.http_errors import LONGEST_WAIT
from fspo.llm.learned import Learned
from fspo.llm.pacing import Pacer
from fspo.llm.parameters import Names
from fspo.llm.replies import Read
from fspo.llm.transport import Failure, Otherwise, Outcome, Refusal, Retry, Transport, WebTransport
from fspo.llm.types import Completion, CompletionRequest
from fspo.progress import duration

__all__ = ["FAILED", "Endpoint", "EndpointConfig"]

_SHORTEST = 0.5
"""Seconds to wait before a request is sent again the first time."""
_PIECES = 8
"""Pieces that what is asked ahead is divided into."""
_AGAIN = 2
"""How often a request is sent again, at most, whose replies are no answers though the server is well."""
_FIRST, _ROW = 3, 20
"""Requests that fail one after the other until a server is given up: one that has answered nothing yet, and others."""
_QUIET = 30.0
"""Seconds without an answer after which a line says so, and between two such lines."""
FAILED = "failed requests"
"""What requests that were given up are counted under."""

_Answer = Completion | FspoError | asyncio.CancelledError
"""What became of a request; cancelled: it was not sent, since the call was stopped."""

_ODD_ANSWERS = {
    "reasoning cut off": "answers hold reasoning, which is cut off and counted",
    "cut at a control token": "answers hold control tokens, and are cut at the first one and counted",
    "control characters removed": "answers hold control characters, which are removed and counted",
    "only reasoning": "an answer was nothing but reasoning up to its limit of tokens; such are counted",
    "withheld by a filter": "a filter withheld an answer; such are counted as refused",
    "no text": "an answer has no text; such are counted",
}
"""What is said of the first answer of a kind."""


class Endpoint:
    """Asks `chat/completions`, as many requests at once as the server can take.

    An answer is in the cache, where there is one, before it is handed out, and equal requests under way at once are
    sent once. What becomes of each kind of reply is in docs/endpoints.md. Overloads, timeouts and lost connections are
    asked again, after as long as the server says or else ever longer, and replies that are no answers a few times; what
    fails in the end is noted, has a completion without text, and is asked again by the next call.
    """

    def __init__(
        self,
        config: EndpointConfig,
        cache: RequestCache | None = None,
        transport: Transport | None = None,
        say: Callable[[str], None] | None = None,
        account: Account | None = None,
    ) -> None:
        """Nothing is sent before the first request.

        `cache` holds earlier answers and what was learned of the server. `say` shows a line while answers are waited
        for: what was learned, what is odd, and long silence. `account` counts what is spent, for other endpoints of the
        same server too.
        """
        self._config, self._transport, self._say = config, transport, say
        self._keeps, self._cache = cache is not None, cache or RequestCache(":memory:")
        # Those that wait to be sent again count too: a server that can't answer some gets no others meanwhile.
        self._places = asyncio.Semaphore(config.requests_in_flight)
        self._pacer = Pacer(config.requests_in_flight)
        self._account = account or Account(self._cache.spent())
        self.name = config.name
        """The model's name, and where it is asked."""
        self.title = config.model
        """The model's name alone."""
        self.identity = config.identity()
        """The settings that decide what is answered; not the address, since a server may move."""
        self.reused = 0
        """Answers that came from the cache."""
        self._learned = Learned(config, self._cache)
        self._proven = False
        """Whether the endpoint has answered anything, in this call or an earlier one."""
        self._row = 0
        """Requests that failed since the last answer."""
        self._heard = -math.inf
        """When the last request was done with."""
        self._told_to_wait = -math.inf
        """Until when the server has asked to wait."""
        self._trouble = ""
        """What kept the last request from being answered."""
        self._away: float | None = None
        """Since when nothing has been reached."""
        self._patience: float = sum(min(LONGEST_WAIT, _SHORTEST * 2**attempt) for attempt in range(config.retries))
        """Seconds that nothing is reached until the server is given up: as long as one request waits by itself."""
        self._open: WeakSet[_Asking] = WeakSet()
        self._mentioned: set[str] = set()
        self._lines: deque[str] = deque()
        """What is to be shown, in the thread that waits."""
        self._next_line = -math.inf

    @property
    def spent(self) -> Spent:
        """What all answers have cost, those of earlier calls too, in tokens."""
        return self._account.spent

    def cost(self, spent: Spent) -> float:
        """Dollars for so many tokens; 0 without prices."""
        return self._config.budget.cost(spent.prompt_tokens, spent.tokens)

    @property
    def replies(self) -> dict[str, int]:
        """What was odd about replies -> how many, and requests that failed in the end, over all calls."""
        failed = Counter({FAILED: sum(self._cache.failures().values())})
        return dict((Counter(self._cache.replies()) + failed).most_common())

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """One completion for each request, in order; one that is refused or fails is empty and marked so.

        Raises:
            ConfigError: the package aiohttp is missing, or the endpoint refuses the key or the model's name.
            BudgetReached: the next request might pass the budget.
            ModelError: the endpoint can't be reached, is no such server, has no quota left, refuses or fails on all
                requests, or on many one after the other; answers that came are in the cache.
        """
        return list(self._handed_out(iter([list(requests)])))

    def stream(self, requests: Iterable[CompletionRequest], ahead: int) -> Iterator[Completion]:
        """The same for any number of requests, of which at most `ahead` are asked before their turn.

        Raises:
            ConfigError: as `complete`.
            ModelError: as `complete`.
        """
        ahead = max(ahead, 2 * self._config.requests_in_flight)  # else the places could not all be taken
        requests, size = iter(requests), max(1, ahead // _PIECES)
        return self._handed_out(iter(lambda: list(islice(requests, size)), []))

    def _handed_out(self, pieces: Iterable[list[CompletionRequest]]) -> Iterator[Completion]:
        with closing(self.asking()) as asking:
            for count, piece in enumerate(pieces, start=1):
                asking.begin(piece)
                if count >= _PIECES:
                    yield from asking.take()
            while asking.left:
                yield from asking.take()

    def asking(self) -> _Asking:
        """A line of pieces of requests, all under way at once; its `take` raises what `complete` does."""
        if self._transport is None:
            self._transport = WebTransport(self._config)
        asking = _Asking(self, self._transport)
        self._open.add(asking)
        return asking

    def close(self) -> None:
        """Send nothing more, and wait for what is under way, so that it is kept."""
        for asking in list(self._open):
            asking.close()

    def mark_unusable(self, requests: Sequence[CompletionRequest]) -> None:
        """Note that the answers to these requests could not be used, so that they can be asked again on request.

        Raises:
            StorageError: the disk is full.
        """
        identities = self._identities()
        self._cache.mark_unusable([key_of(one, request) for request in requests for one in identities])

    def _identities(self) -> list[dict[str, Any]]:
        """By what answers to the same requests may be kept, the present one first."""
        # Before the settings left a parameter out, the server had refused it: these requests were sent without it too.
        before = self._config.identity_without(self._learned.left_out)
        return [self.identity, *([before] if before != self.identity else [])]

    def _sound(self, answers: Sequence[_Answer], cause: FspoError | None, more: bool) -> list[Completion]:
        """The answers of a piece, where none is missing; `more`: whether there are other pieces under way."""
        errors = [answer for answer in answers if isinstance(answer, FspoError)]
        lasting = [error for error in errors if not isinstance(error, Refusal | Failure)]
        stopped = any(isinstance(answer, asyncio.CancelledError) for answer in answers)
        if lasting or stopped:
            raise lasting[0] if lasting else cause or ModelError("The requests were stopped.")
        if errors and len(errors) == len(answers) and not self._proven and not more:
            raise errors[0]
        return [_given(answer) for answer in answers]

    def _speak(self) -> None:
        """Show what there is to say, in the thread that waits."""
        while self._lines:
            line = self._lines.popleft()
            if self._say is not None:
                self._say(line)

    # What follows runs in the loop of `background`.

    async def _all(self, call: _Asking, requests: Sequence[CompletionRequest]) -> list[_Answer]:
        """What became of each request of a piece."""
        keys = [key_of(self.identity, request) for request in requests]
        wanted = dict(zip(keys, requests, strict=True))
        known = self._known(wanted)
        self.reused += sum(key in known for key in keys)
        self._proven = self._proven or bool(known)
        tasks = {key: call.task(key, request) for key, request in wanted.items() if key not in known}
        watch = asyncio.create_task(self._watch(call))
        try:
            given = await asyncio.gather(*tasks.values(), return_exceptions=True)
        finally:
            watch.cancel()
        for answer in given:
            if isinstance(answer, BaseException) and not isinstance(answer, FspoError | asyncio.CancelledError):
                raise answer
        found = self._learned.corrected({**known, **dict(zip(tasks, given, strict=True))})
        return [found[key] for key in keys]

    def _known(self, wanted: dict[str, CompletionRequest]) -> dict[str, Completion]:
        """Key -> answer, for requests that were answered before."""
        if not self._keeps:
            return {}
        known = self._cache.get_all(list(wanted))
        for identity in self._identities()[1:]:
            others = {key_of(identity, request): key for key, request in wanted.items() if key not in known}
            known |= {others[other]: answer for other, answer in self._cache.get_all(list(others)).items()}
        return known

    async def _answer(self, call: _Asking, key: str, request: CompletionRequest) -> Completion | FspoError:
        """The completion, or why there is none."""
        try:
            call.check()
            async with self._places:
                found = await self._asked(call, key, request)
            if isinstance(found, FspoError):
                self._cache.fail(key, str(found))
                if isinstance(found, Refusal | Failure):
                    self._mention(FAILED, f"{found} It is counted as failed, and the others go on.")
            return found
        except asyncio.CancelledError:
            raise
        except (BudgetReached, StorageError) as error:  # no room for another answer, in the budget or on the disk
            call.stop(error)
            return error
        except BaseException:
            call.stop()
            raise

    async def _asked(self, call: _Asking, key: str, request: CompletionRequest) -> Completion | FspoError:
        """The completion, which is kept; or what went wrong in the end."""
        attempts, trial = Counter[bool](), None
        while True:
            names = {**self._learned.names, **(trial.names if trial else {})}
            found, reserved = await self._sent(call, request, names)
            if isinstance(found, Read):
                new = "" if trial is None else self._learned.adopt(trial.names)
                if trial is not None and new:
                    self._lines.append(f"{self.name}: {new} from now on (its words: {trial.words}).")
                return self._settled(found, key, request, reserved)
            if isinstance(found, Retry):
                odd = found.kind is not None and not found.patient  # else overloads would use up its second chance
                pause = self._pause_after(call, found, attempts[odd], reserved)
                if isinstance(pause, FspoError):
                    return pause
                call.check()
                await asyncio.sleep(pause)
                attempts[odd] += 1
                continue
            self._account.release(reserved)
            if not isinstance(found, Otherwise):
                return self._concluded(call, found)
            trial = found

    async def _sent(self, call: _Asking, request: CompletionRequest, names: Names) -> tuple[Outcome, Reserved]:
        """What came of sending it once, and what was set aside for it."""
        call.check()
        began = await self._pacer.enter()
        try:
            reserved = await self._account.reserve(request, self._config.budget)
            try:
                with call.sending():
                    found = await call.transport.send(request, names)
            except asyncio.CancelledError:  # given up while it was under way
                self._lost(reserved)
                raise
            if isinstance(found, Retry) and found.kind is None:
                self._pacer.overloaded(began, found.wait)
            elif isinstance(found, Read):
                self._pacer.answered()
            return found, reserved
        finally:
            self._pacer.leave()

    def _pause_after(self, call: _Asking, found: Retry, attempt: int, reserved: Reserved) -> float | FspoError:
        """Seconds until the request is sent again, or what it failed of in the end."""
        self._trouble = str(found.error)
        if found.late or found.used is not None:
            self._lost(reserved, found.used)
        else:
            self._account.release(reserved)
        if found.kind is not None:  # after what was set aside is given back, since a full disk ends this here
            self._cache.count(found.kind)
            words = f"a reply is no answer ({found.kind}); such requests are sent again, and counted"
            self._mention(found.kind, f"{self.name}: {words}.")
        if found.wait:
            self._told_to_wait = max(self._told_to_wait, time.monotonic() + found.wait)
        retries = self._config.retries
        if attempt < (retries if found.kind is None or found.patient else min(retries, _AGAIN)) and not self._gone(
            found
        ):
            pause: float = min(LONGEST_WAIT, _SHORTEST * 2**attempt) * (0.5 + random.random() / 2)
            return max(pause, found.wait)
        if found.kind is None and (found.unreachable or not self._proven):
            call.stop(found.error)
            return found.error
        return self._concluded(call, found.foreign if found.foreign is not None and not self._proven else found.error)

    def _gone(self, found: Retry) -> bool:
        """Whether the server has been away for long: single requests can't tell, which wait behind each other then."""
        if not found.unreachable or found.late:  # a server took the connection
            self._away = None
            return False
        now = time.monotonic()
        self._away = now if self._away is None else self._away
        return now - self._away >= self._patience

    def _lost(self, reserved: Reserved, used: tuple[int, int] | None = None) -> None:
        """Count a request without an answer that the server may have worked on; `used`: the tokens that it counts."""
        cost = self._account.lose(reserved, None if used is None else Reserved(*used))
        self._cache.lose(cost.prompt, cost.answer)

    def _concluded(self, call: _Asking, error: FspoError) -> FspoError:
        """What is handed out for a request that is given up, after drawing the conclusions for the others."""
        self._heard = time.monotonic()
        if not isinstance(error, Refusal | Failure):
            call.stop(error)  # the key, the name, the form of the answers: all others would fail too
            return error
        if isinstance(error, Refusal) and self._proven:
            return error
        self._row += 1
        at_once = self._config.requests_in_flight
        if self._row < (max(_ROW, 2 * at_once) if self._proven else max(_FIRST, at_once)):
            return error
        stop = ModelError(f"{self._row} requests failed one after the other; the last: {error}")
        call.stop(stop)
        return stop

    def _settled(self, found: Read, key: str, request: CompletionRequest, reserved: Reserved) -> Completion:
        """What is handed out, after it is kept, and the conclusions for other requests and for the budget are drawn."""
        self._heard, self._proven, self._away, self._row = time.monotonic(), True, None, 0
        if found.prompt_tokens is None:  # a server that doesn't count: at most so many
            few = min(request.max_tokens, found.completion.tokens)
            found = replace(
                found, prompt_tokens=round(reserved.prompt), completion=replace(found.completion, tokens=few)
            )
        prompt_tokens = found.prompt_tokens or 0
        self._account.settle(reserved, prompt_tokens, found.completion.tokens)
        found = self._learned.read(key, found)
        for kind in found.kinds:
            self._mention(kind, f"{self.name}: {_ODD_ANSWERS.get(kind, kind)}.")
        kept = found.completion if self._keeps else replace(found.completion, text="")
        self._cache.put(key, kept, prompt_tokens, found.kinds)
        return found.completion

    def _mention(self, kind: str, line: str) -> None:
        """Say something once."""
        if kind not in self._mentioned:
            self._mentioned.add(kind)
            self._lines.append(line)

    async def _watch(self, call: _Asking) -> None:
        """Say that nothing is answered for long, and give a server up that answers nothing at all."""
        began, limit = time.monotonic(), 2 * self._config.timeout + self._patience
        most = self._config.retries * LONGEST_WAIT
        while True:
            now = time.monotonic()
            silent = now - max(self._heard, began)
            # What a server asks a request to wait is added, as often as one request is sent again.
            left = limit - silent + min(most, max(0.0, self._told_to_wait - now + silent))
            if left <= 0:
                trouble = self._trouble or "It takes requests and gives no reply; run the same command again."
                words = "more than twice endpoint.timeout and the pauses of endpoint.retries"
                error = ModelError(f"{self.name} answered nothing for {duration(silent)}, {words}. {trouble}")
                call.stop(error, at_once=True)
                return
            if silent >= _QUIET and now >= self._next_line:
                self._next_line = now + _QUIET
                until = time.strftime("%H:%M:%S", time.localtime(time.time() + left))
                why = f" (the last problem: {self._trouble})" if self._trouble else ""
                self._lines.append(
                    f"{self.name} has answered nothing for {duration(silent)}; it is waited for until {until}{why}."
                )
            await asyncio.sleep(min(1.0, max(0.05, left)))


class _Asking:
    """Pieces of requests under way at once: one call, which stops as a whole and no other with it."""

    def __init__(self, endpoint: Endpoint, transport: Transport) -> None:
        self._endpoint, self.transport = endpoint, transport
        self._pieces: deque[Future[list[_Answer]]] = deque()
        self._tasks: dict[str, asyncio.Task[Completion | FspoError]] = {}
        self._sending: set[asyncio.Task[Any] | None] = set()
        self._stopped = False
        self._cause: FspoError | None = None
        """Why it was stopped, where it was for an error."""

    @property
    def left(self) -> int:
        """Pieces that are not taken."""
        return len(self._pieces)

    def begin(self, requests: Sequence[CompletionRequest]) -> None:
        self._pieces.append(background.submit(self._endpoint._all(self, requests)))

    def take(self) -> list[Completion]:
        # Under way until it is there: an interrupt may come while it is waited for.
        answers = background.result(self._pieces[0], self._endpoint._speak)
        self._pieces.popleft()
        return self._endpoint._sound(answers, self._cause, bool(self._pieces))

    def close(self) -> None:
        """After a failure or an interrupt: what is under way is waited for and kept, and nothing else is sent."""
        if self._pieces:
            background.call(self.stop)
            background.settle(self._pieces)

    # What follows runs in the loop of `background`.

    def task(self, key: str, request: CompletionRequest) -> asyncio.Task[Completion | FspoError]:
        """The task that gets this answer; one that is under way serves all that ask the same."""
        if key not in self._tasks:
            task = asyncio.create_task(self._endpoint._answer(self, key, request))
            self._tasks[key] = task
            task.add_done_callback(lambda _: self._tasks.pop(key, None))
        return self._tasks[key]

    def check(self) -> None:
        """Give the current request up if the call was stopped."""
        if self._stopped:
            raise asyncio.CancelledError

    @contextmanager
    def sending(self) -> Iterator[None]:
        """While a request is at the server, only a stop `at_once` cancels it: it is paid for."""
        task = asyncio.current_task()
        self._sending.add(task)
        try:
            yield
        finally:
            self._sending.discard(task)

    def stop(self, cause: FspoError | None = None, *, at_once: bool = False) -> None:
        """Send nothing more; and wait for no reply if `at_once`."""
        self._stopped, self._cause = True, self._cause or cause
        for task in set(self._tasks.values()) - (set() if at_once else self._sending) - {asyncio.current_task()}:
            task.cancel()


def _given(answer: _Answer) -> Completion:
    """What is handed out."""
    if isinstance(answer, Completion):
        return answer
    return Completion("", 0, "refused" if isinstance(answer, Refusal) else "failed")
