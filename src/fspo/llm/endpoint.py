"""An OpenAI-compatible endpoint (OpenAI, vLLM, SGLang, llama.cpp, Ollama) as a language model to ask."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from itertools import islice
from typing import Any

from fspo.errors import FspoError, ModelError, StorageError
from fspo.llm import background
from fspo.llm.budget import Account, BudgetReached, Reserved
from fspo.llm.cache import RequestCache, Spent, key_of, key_of_server
from fspo.llm.endpoint_config import EndpointConfig
from fspo.llm.http_errors import LONGEST_WAIT
from fspo.llm.pacing import Pacer
from fspo.llm.parameters import Manner, in_words
from fspo.llm.replies import Read, read_again
from fspo.llm.transport import (
    Failure,
    Odd,
    Otherwise,
    Outcome,
    Overload,
    Refusal,
    Transport,
    WebTransport,
)
from fspo.llm.types import Completion, CompletionRequest
from fspo.progress import duration

__all__ = ["FAILED", "Endpoint", "EndpointConfig"]

_REFUSED, _FAILED = Completion("", 0, "refused"), Completion("", 0, "failed")
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
_SURE = 3
"""Finished answers in a row that close reasoning which nothing opened, until all answers are taken to begin in it."""
_NO_REPLY = "It takes requests and gives no reply; run the same command again: what was finished is kept."
FAILED = "failed requests"
"""What requests that were given up are counted under."""

_Answer = Completion | FspoError
_Answered = tuple[Completion, int, tuple[str, ...]]
"""A completion, the tokens of its prompt, and what was odd about the reply."""

_ODD_ANSWERS = {
    "reasoning cut off": "answers hold reasoning, which is cut off and counted",
    "cut at a control token": "answers hold control tokens, and are cut at the first one and counted",
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
    ) -> None:
        """Nothing is sent before the first request.

        Args:
            config: where to ask, and how much at once.
            cache: holds earlier answers, and what was learned of the server.
            transport: the way to the server; over HTTP by default.
            say: shows a line while answers are waited for: what was learned, what is odd, and long silence.
        """
        self._config, self._cache, self._transport, self._say = config, cache, transport, say
        # Those that wait to be sent again count too: a server that can't answer some gets no others meanwhile.
        self._places = asyncio.Semaphore(config.requests_in_flight)
        self._pacer = Pacer(config.requests_in_flight)
        self._account = Account(config.budget, cache.spent() if cache is not None else None)
        self._identity = config.identity()
        self._server = key_of_server(config.server_identity())
        known = cache.learned(self._server) if cache is not None else {}
        self._learned = Manner(known.get("names", {}))
        """What the server has taught, without the settings."""
        self._manner = self._learned.having(Manner(config.parameters))
        """How requests are sent."""
        self._thinks = bool(known.get("thinks"))
        """Whether answers begin inside of reasoning that only their end shows."""
        self._closings = 0
        """Finished answers in a row that showed it."""
        self._doubtful: set[str] = set()
        """Keys of answers that were cut at their limit, and may be nothing but reasoning."""
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
        self._proven = False
        """Whether the endpoint has answered anything, in this call or an earlier one."""
        self._reused = 0
        self._odd: Counter[str] = Counter()
        """Kinds of replies, where no cache counts them."""
        self._failed = 0
        self._mentioned: set[str] = set()
        self._lines: deque[str] = deque()
        """What is to be shown, in the thread that waits."""
        self._next_line = -math.inf
        self._tasks: dict[tuple[_Call, str], asyncio.Task[_Answer]] = {}

    @property
    def name(self) -> str:
        """The model's name, and where it is asked."""
        return f"{self._config.model} at {self._config.base_url}"

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that decide what is answered; not the address, since a server may move."""
        return self._config.identity()

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

    @property
    def replies(self) -> dict[str, int]:
        """What was odd about replies -> how many, and requests that failed in the end, over all calls."""
        found = self._odd if self._cache is None else Counter(self._cache.replies())
        failed = self._failed if self._cache is None else sum(self._cache.failures().values())
        return dict((found + Counter({FAILED: failed})).most_common())

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """One completion for each request, in order; one that is refused or fails is empty and marked so.

        Raises:
            ConfigError: the package aiohttp is missing, or the endpoint refuses the key or the model's name.
            BudgetReached: the next request might pass the budget.
            ModelError: the endpoint can't be reached, is no such server, has no quota left, refuses or fails on all
                requests, or on many one after the other; answers that came are in the cache.
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
            identities = [self._identity, *self._other_identities()]
            self._cache.mark_unusable([key_of(one, request) for request in requests for one in identities])

    def asking(self) -> _Asking:
        """A line of pieces of requests, all under way at once; its `take` raises what `complete` does."""
        return _Asking(self)

    def _connect(self) -> Transport:
        if self._transport is None:
            self._transport = WebTransport(self._config)
        return self._transport

    def _sound(self, answers: Sequence[_Answer], cause: FspoError | None, more: bool) -> list[Completion]:
        """The answers of a piece, where none is missing; `more`: whether there are other pieces under way."""
        problems = [answer for answer in answers if isinstance(answer, FspoError)]
        lasting = [problem for problem in problems if not isinstance(problem, Refusal | Failure)]
        if lasting:
            raise _worst(lasting, cause)
        if problems and len(problems) == len(answers) and not self._proven and not more:
            raise problems[0]
        return [_given(answer) for answer in answers]

    def _speak(self) -> None:
        """Show what there is to say, in the thread that waits."""
        while self._lines:
            line = self._lines.popleft()
            if self._say is not None:
                self._say(line)

    # What follows runs in the loop of `background`.

    async def _all(self, call: _Call, requests: Sequence[CompletionRequest]) -> list[_Answer]:
        keys = [key_of(self._identity, request) for request in requests]
        known = self._known(keys, requests)
        self._reused += sum(key in known for key in keys)
        self._proven = self._proven or bool(known)
        tasks = {
            key: self._task(call, key, request) for key, request in zip(keys, requests, strict=True) if key not in known
        }
        with call.watched(self) if tasks else nullcontext():
            given = await asyncio.gather(*tasks.values(), return_exceptions=True)
        found: dict[str, Any] = {**known, **dict(zip(tasks, given, strict=True))}
        for answer in given:
            if isinstance(answer, BaseException) and not isinstance(answer, FspoError):
                raise answer
        if self._thinks:  # as these answers themselves may have shown
            cut = {key for key in self._doubtful & found.keys() if isinstance(found[key], Completion)}
            found |= {key: _only_reasoning(found[key]) for key in cut}
        return [found[key] for key in keys]

    def _known(self, keys: Sequence[str], requests: Sequence[CompletionRequest]) -> dict[str, Completion]:
        """Key -> answer, for requests that were answered before."""
        if self._cache is None:
            return {}
        known, wanted = self._cache.get_all(keys), dict(zip(keys, requests, strict=True))
        for identity in self._other_identities():
            others = {key_of(identity, request): key for key, request in wanted.items() if key not in known}
            for other, answer in self._cache.get_all(list(others)).items():
                known[others[other]] = read_again(wanted[others[other]], answer)
        return known

    def _other_identities(self) -> list[dict[str, Any]]:
        """By what else answers to the same requests may be kept."""
        # Before the settings left a parameter out, the server had refused it: these requests were sent without it too.
        before = self._config.identity_without(self._learned.left_out)
        return [*([before] if before != self._identity else []), self._config.earlier_identity()]

    def _task(self, call: _Call, key: str, request: CompletionRequest) -> asyncio.Task[_Answer]:
        """The task that gets this answer; one that is under way serves all that ask the same."""
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
                found = await self._asked(call, key, request)
            finally:
                self._places.release()
            if isinstance(found, FspoError):
                if not isinstance(found, _Unasked):
                    self._fail(key, found)
                return found
            completion, prompt_tokens, kinds = found
            if self._cache is not None:
                self._cache.put(key, completion, prompt_tokens, kinds)
            else:
                self._odd.update(kinds)
            return completion
        except asyncio.CancelledError:
            return _Unasked("The request was not sent, since an earlier one could not be.")
        except (BudgetReached, StorageError) as error:  # no room for another answer, in the budget or on the disk
            call.stop(error)
            return error
        except BaseException:
            call.stop()
            raise

    async def _asked(self, call: _Call, key: str, request: CompletionRequest) -> _Answered | FspoError:
        """The completion and the tokens of its prompt; or what went wrong in the end."""
        attempts, trial, words = Counter[bool](), None, ""
        while True:
            manner = self._manner if trial is None else self._manner.having(trial)
            found, reserved = await self._sent(call, request, manner)
            if isinstance(found, Otherwise):
                self._account.release(reserved)
                trial, words = found.manner, found.words
                continue
            if isinstance(found, Read):
                if trial is not None:
                    self._adopt(trial, words)
                return self._settled(found, key, request, reserved)
            if isinstance(found, FspoError):
                self._account.release(reserved)
                return self._concluded(call, found)
            odd = isinstance(found, Odd) and not found.patient  # else overloads would use up its second chance
            pause = self._pause_after(call, found, attempts[odd], reserved)
            if isinstance(pause, FspoError):
                return pause
            with call.waiting():
                await asyncio.sleep(pause)
            attempts[odd] += 1

    async def _sent(self, call: _Call, request: CompletionRequest, manner: Manner) -> tuple[Outcome, Reserved]:
        """What came of sending it once, and what was set aside for it."""
        with call.waiting():
            began = await self._pacer.enter()
        try:
            with call.waiting():
                reserved = await self._account.reserve(request)
            try:
                with call.under_way():
                    found = await call.transport.send(request, manner)
            except asyncio.CancelledError:  # given up while it was under way
                self._lost(reserved)
                raise
            if isinstance(found, Overload):
                self._pacer.overloaded(began, found.wait)
            elif isinstance(found, Read):
                self._pacer.answered()
            return found, reserved
        finally:
            self._pacer.leave()

    def _pause_after(self, call: _Call, found: Overload | Odd, attempt: int, reserved: Reserved) -> float | FspoError:
        """Seconds until the request is sent again, or what it failed of in the end."""
        self._trouble = str(found.error)
        pause: float = min(LONGEST_WAIT, _SHORTEST * 2**attempt) * (0.5 + random.random() / 2)
        if isinstance(found, Odd):
            self._note(found.kind)
            if found.used is not None or found.late:
                self._lost(reserved, found.used)
            else:
                self._account.release(reserved)
            if attempt < min(self._config.retries, self._config.retries if found.patient else _AGAIN):
                return pause
            return self._concluded(call, found.error if found.garbled is None or self._proven else found.garbled)
        if found.wait:
            self._told_to_wait = max(self._told_to_wait, time.monotonic() + found.wait)
        self._lost(reserved) if found.late else self._account.release(reserved)
        if attempt == self._config.retries or self._gone(found):
            if found.unreachable or not self._proven:
                call.stop(found.error)
                return found.error
            return self._concluded(call, found.error)
        return max(pause, found.wait)

    def _gone(self, found: Overload) -> bool:
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
        if self._cache is not None:
            self._cache.lose(cost.prompt, cost.answer)

    def _concluded(self, call: _Call, error: FspoError) -> FspoError:
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

    def _fail(self, key: str, error: FspoError) -> None:
        """Note a request that was given up."""
        self._failed += 1
        if self._cache is not None:
            self._cache.fail(key, str(error))
        if isinstance(error, Refusal | Failure):
            self._mention(FAILED, f"{error} It is counted as failed, and the others go on.")

    def _note(self, kind: str) -> None:
        """Count a reply that is no answer."""
        if self._cache is not None:
            self._cache.count(kind)
        else:
            self._odd[kind] += 1
        self._mention(kind, f"{self.name}: a reply is no answer ({kind}); such requests are sent again, and counted.")

    def _mention(self, kind: str, line: str) -> None:
        """Say something once."""
        if kind not in self._mentioned:
            self._mentioned.add(kind)
            self._lines.append(line)

    def _adopt(self, manner: Manner, words: str) -> None:
        """Ask like this from now on, since it was answered."""
        learned = manner.beyond(self._manner)
        self._manner = self._manner.having(manner)
        if learned.names:
            self._lines.append(f"{self.name}: {in_words(learned)} from now on (its words: {words}).")
            # What contradicts the settings holds for this call alone: the settings may change.
            own = {name: other for name, other in learned.names.items() if name not in self._config.parameters}
            self._learned = self._learned.having(Manner(own))
            self._remember()

    def _remember(self) -> None:
        if self._cache is not None:
            self._cache.learn(self._server, {"names": dict(self._learned.names), "thinks": self._thinks})

    def _settled(self, found: Read, key: str, request: CompletionRequest, reserved: Reserved) -> _Answered:
        """What is handed out, after drawing the conclusions for other requests and for the budget."""
        self._heard, self._proven, self._away, self._row = time.monotonic(), True, None, 0
        completion, prompt_tokens, kinds = found.completion, found.prompt_tokens, found.kinds
        if prompt_tokens is None:  # a server that doesn't count: at most so many
            prompt_tokens = round(reserved.prompt)
            completion = replace(completion, tokens=min(request.max_tokens, completion.tokens))
        self._account.settle(reserved, prompt_tokens, completion.tokens)
        self._watch_reasoning(found)
        if completion.finish_reason == "length" and not found.orphan:
            if self._thinks:
                completion, kinds = _only_reasoning(completion), ("only reasoning",)
            else:
                self._doubtful.add(key)
        for kind in kinds:
            self._mention(kind, f"{self.name}: {_ODD_ANSWERS.get(kind, kind)}.")
        return completion, prompt_tokens, kinds

    def _watch_reasoning(self, found: Read) -> None:
        """Learn from an answer whether this model's answers begin inside of reasoning.

        Then an answer that was cut before it closed the reasoning holds nothing else, those that came before it too.
        """
        if found.orphan:
            self._closings += 1
            if self._closings >= _SURE and not self._thinks:
                self._thinks = True
                self._remember()
                if self._cache is not None:
                    self._cache.only_reasoning(self._doubtful)
                else:
                    self._odd["only reasoning"] += len(self._doubtful)
        elif found.completion.finish_reason == "stop" and found.completion.text.strip():
            self._closings = 0
            self._doubtful.clear()
            if self._thinks:
                self._thinks = False
                self._remember()

    async def _watch(self, call: _Call) -> None:
        """Say that nothing is answered for long, and give a server up that answers nothing at all."""
        began, limit = time.monotonic(), 2 * self._config.timeout + self._patience
        most = self._config.retries * LONGEST_WAIT
        while True:
            now = time.monotonic()
            silent = now - max(self._heard, began)
            # What a server asks a request to wait is added, as often as one request is sent again.
            left = limit - silent + min(most, max(0.0, self._told_to_wait - now + silent))
            if left <= 0:
                words = self._trouble or _NO_REPLY
                error = ModelError(
                    f"{self.name} answered nothing for {duration(silent)}, more than twice endpoint.timeout and the "
                    f"pauses of endpoint.retries. {words}"
                )
                call.stop(error, under_way=True)
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
        answers = background.result(self._under_way[0], self._endpoint._speak)
        self._under_way.popleft()
        return self._endpoint._sound(answers, self._call.cause, bool(self._under_way))

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
        self._sending: set[asyncio.Task[Any]] = set()
        self._pieces = 0
        self._watch: asyncio.Task[None] | None = None

    def waiting(self) -> _Among:
        """While a request is not under way, it need not be sent: a stop cancels it."""
        if self._stopped:
            raise asyncio.CancelledError
        return _Among(self._idle)

    def under_way(self) -> _Among:
        """While a request is under way, only a stop that gives the server up cancels it."""
        return _Among(self._sending)

    @contextmanager
    def watched(self, endpoint: Endpoint) -> Iterator[None]:
        """While a piece is under way, silence is noticed."""
        self._pieces += 1
        self._watch = self._watch or asyncio.create_task(endpoint._watch(self))
        try:
            yield
        finally:
            self._pieces -= 1
            if not self._pieces:
                self._watch.cancel()
                self._watch = None

    def stop(self, cause: FspoError | None = None, *, under_way: bool = False) -> None:
        """Send nothing more; and wait for nothing that is `under_way`."""
        self._stopped, self.cause = True, self.cause or cause
        for task in (*self._idle, *(self._sending if under_way else ())):
            task.cancel()


class _Among:
    """The current task is one of these for as long as the block lasts."""

    def __init__(self, tasks: set[asyncio.Task[Any]]) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks, self._task = tasks, task

    def __enter__(self) -> None:
        self._tasks.add(self._task)

    def __exit__(self, *_: object) -> None:
        self._tasks.discard(self._task)


class _Unasked(ModelError):
    """A request that was not sent."""


def _given(answer: _Answer) -> Completion:
    """What is handed out."""
    if isinstance(answer, Refusal):
        return _REFUSED
    return _FAILED if isinstance(answer, FspoError) else answer


def _only_reasoning(cut: Completion) -> Completion:
    """An answer that was cut inside of its reasoning."""
    return replace(cut, text="", finish_reason="reasoning")


def _worst(problems: Sequence[FspoError], cause: FspoError | None) -> FspoError:
    """The one problem to raise: what stops everything."""
    sent = [problem for problem in problems if not isinstance(problem, _Unasked)]
    return sent[0] if sent else cause or problems[0]  # without any, others stopped these
