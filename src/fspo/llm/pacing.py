"""How many requests are under way at once: more while all goes well, half as many when the server can't keep up.

Additive increase, multiplicative decrease, as in TCP's congestion control (Jacobson 1988), with its slow start.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

__all__ = ["Pacer"]

_START = 16.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.25, 30.0
"""Seconds that nothing is sent after a refusal where only one request is under way and the server names no time."""
_ROUNDS = 20
"""Rounds of answers in which the window opens from nothing to its limit, where it opens slowly."""


class Pacer:
    """A window of requests that may be under way. The tasks of one event loop share it.

    Every answer opens it by one, so that it doubles in the time of an answer, until it is half as wide as when the
    server last couldn't keep up; from there on by a twentieth of the limit, or one, for each whole window of answers.
    An overload halves it, and overloads of requests that were under way together do so once.
    """

    def __init__(self, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """At most `limit` requests at once."""
        self._limit, self._clock = float(limit), clock
        self._step = max(1.0, limit / _ROUNDS)
        self._window = min(_START, self._limit)
        self._threshold = self._limit
        """Below it, the window opens by one with each answer."""
        self._answers = False
        """Whether one came since the last overload."""
        self._under_way = 0
        self._closed_until = self._halved_at = float("-inf")
        self._pause = _SHORTEST_PAUSE
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def window(self) -> int:
        """Requests that may be under way now."""
        return int(self._window)

    async def enter(self) -> float:
        """Wait for a place and take it, first come, first served; returns when that was, by the clock."""
        if self._waiting or not self._open(self._clock()):
            await self._turn()
        else:
            self._under_way += 1
        return self._clock()

    def leave(self) -> None:
        """Give the place back."""
        self._under_way -= 1
        self._wake()

    def answered(self) -> None:
        """Count an answer."""
        quick = self._window < self._threshold
        self._window = min(self._limit, self._window + (1.0 if quick else self._step / self._window))
        self._answers, self._pause = True, max(_SHORTEST_PAUSE, self._pause / 2)
        self._wake()

    def overloaded(self, began: float, retry_after: float = 0.0) -> None:
        """Halve the window, unless it was halved since the request began; begin nothing for `retry_after` seconds."""
        now = self._clock()
        if self._window == 1.0 and not retry_after:  # it can't ask less at once, and does not know how long to wait
            retry_after = self._pause
            self._pause = min(_LONGEST_PAUSE, 2 * self._pause)
        self._closed_until = max(self._closed_until, now + retry_after)
        if began > self._halved_at:
            if self._answers or self._halved_at < 0:  # else the same trouble goes on, and the first width stands
                self._threshold = self._window / 2
            self._window = max(1.0, self._window / 2)
            self._halved_at, self._answers = now, False

    def _open(self, now: float) -> bool:
        return now >= self._closed_until and self._under_way < int(self._window)

    async def _turn(self) -> None:
        """Wait until a place is given."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._wake()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.leave()  # it was given just then
            raise

    def _wake(self) -> None:
        """Give places to requests that wait, as many as there are; during a pause, when it ends."""
        now = self._clock()
        while self._waiting and self._open(now):
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._under_way += 1
        closed = self._closed_until - now
        if self._waiting and closed > 0 and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(closed, self._reopen)

    def _reopen(self) -> None:
        self._timer = None
        self._wake()
