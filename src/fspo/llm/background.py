"""One event loop in a thread of its own: whatever waits for the network works from any thread, notebooks too."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

__all__ = ["call", "finish", "result", "settle", "submit"]

T = TypeVar("T")

_NAME = "fspo-network"
_PATIENCE = 0.5
"""Seconds between two looks at whether there was an interrupt."""
_LONGEST = 2.0
"""Seconds to wait for what is done in passing."""

_lock = threading.RLock()
_loop: asyncio.AbstractEventLoop | None = None


def submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Start `work` in the loop; its result is waited for from outside the loop."""
    return asyncio.run_coroutine_threadsafe(work, _running())


def result(future: Future[T], meanwhile: Callable[[], object] = lambda: None) -> T:
    """Wait for what `submit` gave, without missing an interrupt that comes just before the wait begins.

    `meanwhile` is called twice a second in the thread that waits, and once at the end.
    """
    while not future.done():
        wait([future], timeout=_PATIENCE)
        meanwhile()
    meanwhile()
    return future.result()


def settle(under_way: Iterable[Future[Any]]) -> None:
    """Wait until all of it is done, where that can be: in the loop's own thread nothing is waited for."""
    if threading.current_thread().name != _NAME:
        wait(list(under_way))


def finish(work: Coroutine[Any, Any, object]) -> None:
    """Do `work` in the loop, and wait for it where that can be: safe in a finaliser, which may run in any thread."""
    done = submit(work)
    if threading.current_thread().name != _NAME:
        wait([done], timeout=_LONGEST)


def call(act: Callable[[], object]) -> None:
    """Have the loop call `act` soon."""
    _running().call_soon_threadsafe(act)


def _running() -> asyncio.AbstractEventLoop:
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name=_NAME, daemon=True).start()
        return _loop


def _forget() -> None:
    """A forked process has the loop without its thread, and makes its own."""
    global _loop, _lock
    _loop, _lock = None, threading.RLock()


os.register_at_fork(after_in_child=_forget)
