"""How a stage tells how far it is; the command line draws it, a library caller may ignore it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO, Protocol

from fspo.printing import printable

__all__ = ["PlainProgress", "Progress", "Scaled", "Silent", "Task", "duration"]


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, steps: float = 1.0, note: str = "") -> None:
        """Count `steps` more as done; `note` is a few words of the latest figures."""

    def skip(self, steps: float) -> None:
        """Count `steps` as done that took no time, such as answers kept from before: they tell nothing of the speed."""


class Progress(Protocol):
    """Shows progress."""

    def task(self, name: str, total: float, done: float = 0.0) -> AbstractContextManager[Task]:
        """Show one piece of work for as long as the `with` block around it lasts.

        `done` counts the steps of an earlier, interrupted call.
        """
        ...

    def say(self, text: str) -> None:
        """Show one line that stays."""


class Scaled:
    """A task whose steps count as so many, or as a part of one, of another task."""

    def __init__(self, task: Task, each: float) -> None:
        self._task, self._each = task, each

    def advance(self, steps: float = 1.0, note: str = "") -> None:
        """Count them."""
        self._task.advance(steps * self._each, note)

    def skip(self, steps: float) -> None:
        """Count them as done before."""
        self._task.skip(steps * self._each)


class Silent:
    """Progress that shows nothing, and its own task."""

    @contextmanager
    def task(self, name: str, total: float, done: float = 0.0) -> Iterator[Task]:
        """Yield a task that ignores its advances."""
        yield self

    def advance(self, steps: float = 1.0, note: str = "") -> None:
        """Show nothing."""

    def skip(self, steps: float) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Show nothing."""


class PlainProgress:
    """Lines for logs: one when a task starts, one at most every `every` seconds, one when it ends."""

    def __init__(self, file: IO[str], *, every: float = 20.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._every = every
        self._clock = clock

    @contextmanager
    def task(self, name: str, total: float, done: float = 0.0) -> Iterator[Task]:
        """Print lines about one piece of work."""
        task = _PlainTask(self, name, total, done)
        self.say(f"{name}: {done:g} of {total:g} done before" if done else f"{name} ...")
        yield task
        task.tell_skipped()
        note = f" ({task.note})" if task.note else ""
        self.say(f"{name}: done in {duration(self._clock() - task.started)}{note}")

    def say(self, text: str) -> None:
        """Print one line at once, without what a terminal would obey."""
        print(printable(text), file=self._file, flush=True)


class _PlainTask:
    def __init__(self, parent: PlainProgress, name: str, total: float, done: float) -> None:
        self._parent, self._name, self._total, self._done, self._first = parent, name, total, done, done
        self.started = self._spoken = self._from = parent._clock()
        self._skipped = 0.0
        self.note = ""

    def advance(self, steps: float = 1.0, note: str = "") -> None:
        """Count, and speak when it is time to."""
        self.tell_skipped()
        self._done += steps
        self.note = note or self.note
        now = self._parent._clock()
        if now - self._spoken < self._parent._every or self._done >= self._total:
            return
        self._spoken = now
        rate = (self._done - self._first) / max(now - self._from, 1e-9)
        left = f", {duration((self._total - self._done) / rate)} left" if rate > 0 else ""
        note = f" ({self.note})" if self.note else ""
        self._parent.say(f"{self._name}: {100 * self._done / max(self._total, 1e-9):.0f}%{left}{note}")

    def skip(self, steps: float) -> None:
        """Count as done before; what comes first is told as soon as something else is done."""
        if self._done == self._first:
            self._skipped += steps
            self._from = self._parent._clock()
        self._done += steps
        self._first += steps

    def tell_skipped(self) -> None:
        """Tell once how much was done before."""
        if self._skipped:
            self._skipped = 0.0
            self._parent.say(f"{self._name}: {self._first:g} of {self._total:g} done before")


def duration(seconds: float) -> str:
    """A time in the largest two units that tell something: `42 s`, `3 min 20 s`, `1 h 05 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
