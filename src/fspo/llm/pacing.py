"""How many requests are under way at once: more while all goes well, half as many when the server can't keep up.

Additive increase, multiplicative decrease, as in TCP's congestion control (Jacobson 1988), with its slow start.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Pacer"]

_START = 8.0
_PATIENCE = 0.5
"""Seconds between two looks at whether to stop."""


class Pacer:
    """A window of requests that may be under way. Threads share it.

    Until the first overload every answer opens the window by one, so that it doubles in the time of an answer; from
    then on by one for each whole window of answers. An overload halves it, and a burst of overloads does so once.
    """

    def __init__(self, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """At most `limit` requests at once."""
        self._limit, self._clock = float(limit), clock
        self._window = min(_START, self._limit)
        self._slow_start = True
        self._under_way = 0
        self._closed_until = self._halved_at = float("-inf")
        self._changed = threading.Condition()

    @property
    def window(self) -> int:
        """Requests that may be under way now."""
        return int(self._window)

    @contextmanager
    def slot(self, stopped: threading.Event | None = None) -> Iterator[float | None]:
        """Wait for a place, and hold it for as long as the block lasts; yields when that began.

        Yields None, without a place, once `stopped` is set.
        """
        began = self._enter(stopped)
        try:
            yield began
        finally:
            if began is not None:
                with self._changed:
                    self._under_way -= 1
                    self._changed.notify_all()

    def _enter(self, stopped: threading.Event | None) -> float | None:
        with self._changed:
            while stopped is None or not stopped.is_set():
                closed = self._closed_until - self._clock()
                if closed <= 0 and self._under_way < int(self._window):
                    self._under_way += 1
                    return self._clock()
                self._changed.wait(min(_PATIENCE, closed) if closed > 0 else _PATIENCE)
        return None

    def answered(self) -> None:
        """Count an answer."""
        with self._changed:
            self._window = min(self._limit, self._window + (1.0 if self._slow_start else 1.0 / self._window))
            self._changed.notify_all()

    def overloaded(self, began: float, retry_after: float = 0.0) -> None:
        """Halve the window, unless it was halved since the request began; begin nothing for `retry_after` seconds."""
        with self._changed:
            now = self._clock()
            self._closed_until = max(self._closed_until, now + retry_after)
            if began > self._halved_at:
                self._window = max(1.0, self._window / 2)
                self._slow_start = False
                self._halved_at = now
