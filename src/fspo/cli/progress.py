"""Progress on the terminal: bars with the time left, or plain lines where nobody watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from fspo.progress import Progress, Task

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["PlainProgress", "RichProgress", "duration", "terminal_progress"]


def terminal_progress(console: Console) -> Progress:
    """Bars where `console` is a terminal, lines elsewhere."""
    if console.is_terminal and not console.is_dumb_terminal:
        return RichProgress(console)
    return PlainProgress(console.file)


def duration(seconds: float) -> str:
    """A time in the largest two units that tell something: `42 s`, `3 min 20 s`, `1 h 05 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class RichProgress:
    """One bar a task, with percentage, time left and the latest figures; finished tasks leave one line."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def task(self, name: str, total: float, done: float = 0.0) -> Iterator[Task]:
        """Draw a bar for one piece of work; a task inside a task gets a bar below it."""
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        started = time.monotonic()
        bars = Bars(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=28),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=self._console,
            transient=True,
        )
        identifier = bars.add_task(name, total=max(total, 1e-9), note="")
        bars.update(identifier, completed=done)

        class Bar:
            def advance(self, steps: float = 1.0, note: str = "") -> None:
                """Move the bar; an empty note keeps the last one."""
                bars.advance(identifier, steps)
                if note:
                    bars.update(identifier, note=note)

        with bars:
            yield Bar()
        note = str(bars.tasks[0].fields["note"])
        self.say(f"{name}: done in {duration(time.monotonic() - started)}" + (f" ({note})" if note else ""))

    def say(self, text: str) -> None:
        """Print one line above the bars."""
        self._console.print(text, highlight=False, markup=False)


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
        note = f" ({task.note})" if task.note else ""
        self.say(f"{name}: done in {duration(self._clock() - task.started)}{note}")

    def say(self, text: str) -> None:
        """Print one line at once."""
        print(text, file=self._file, flush=True)


class _PlainTask:
    def __init__(self, parent: PlainProgress, name: str, total: float, done: float) -> None:
        self._parent, self._name, self._total, self._done, self._first = parent, name, total, done, done
        self.started = self._spoken = parent._clock()
        self.note = ""

    def advance(self, steps: float = 1.0, note: str = "") -> None:
        """Count, and speak when it is time to."""
        self._done += steps
        self.note = note or self.note
        now = self._parent._clock()
        if now - self._spoken < self._parent._every or self._done >= self._total:
            return
        self._spoken = now
        rate = (self._done - self._first) / max(now - self.started, 1e-9)
        left = f", {duration((self._total - self._done) / rate)} left" if rate > 0 else ""
        note = f" ({self.note})" if self.note else ""
        self._parent.say(f"{self._name}: {100 * self._done / max(self._total, 1e-9):.0f} %{left}{note}")
