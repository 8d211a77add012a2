"""Progress on the terminal: bars with the time left, or plain lines where nobody watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fspo.progress import PlainProgress, Progress, Silent, Task, duration
from fspo.runs import processes

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

__all__ = ["RichProgress", "shown", "terminal_progress"]


@contextmanager
def shown(console: Console) -> Iterator[Progress]:
    """Progress on `console`, with the libraries' own bars and chatter off; of several processes the first shows it."""
    from fspo.modeling.quiet import quiet

    quiet()
    yield terminal_progress(console) if processes.is_first() else Silent()


def terminal_progress(console: Console) -> Progress:
    """Bars where `console` is a terminal, lines elsewhere."""
    if console.is_terminal and not console.is_dumb_terminal:
        return RichProgress(console)
    return PlainProgress(console.file)


_NARROW = 100
"""Columns of a terminal below which the bar is short, so that the step and the time left have room beside it."""
_LATEST = 600.0
"""Seconds of work that the time left is estimated from: many steps, also where a step takes a minute."""


class _Note:
    """The latest metrics, separated by commas: as many of the first ones as have room on the line."""

    text = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        metrics = self.text.split(", ")
        fitting = (", ".join(metrics[:count]) for count in range(len(metrics), 0, -1))
        yield Text(next((text for text in fitting if len(text) <= options.max_width), ""), style="dim")


class RichProgress:
    """One bar a task, with step, percentage, time left and the latest metrics; finished tasks leave one line.

    The line never wraps. In a narrow terminal the metrics that have no room are left out, the last one first; then the
    name of the task is cut.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock

    @contextmanager
    def task(self, name: str, total: float, done: float = 0.0) -> Iterator[Task]:
        """Draw a bar for one piece of work; a task inside a task gets a bar below it."""
        from rich.progress import BarColumn, RenderableColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars
        from rich.table import Column

        started, shown_note = self._clock(), _Note()
        narrow = self._console.width < _NARROW
        name_column = Column(no_wrap=True, overflow="ellipsis", max_width=self._console.width // 3)
        bars = Bars(
            TextColumn("{task.description}", style="bold", markup=False, table_column=name_column),
            BarColumn(bar_width=12 if narrow else 28, table_column=Column(no_wrap=True)),
            TaskProgressColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.completed:.0f}/{task.total:.0f}", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            RenderableColumn(shown_note, table_column=Column(no_wrap=True, ratio=1)),
            console=self._console,
            transient=True,
            expand=True,
            speed_estimate_period=_LATEST,
            get_time=self._clock,
        )
        identifier = bars.add_task(name, total=max(total, 1e-9))
        bars.update(identifier, completed=done)

        class Bar:
            counted = False

            def advance(self, steps: float = 1.0, note: str = "") -> None:
                """Move the bar; an empty note keeps the last one."""
                bars.advance(identifier, steps)
                shown_note.text = note or shown_note.text
                self.counted = True

            def skip(self, steps: float) -> None:
                """Move the bar; what was done before the first step tells nothing of the speed."""
                completed = bars.tasks[0].completed + steps
                if self.counted:
                    bars.tasks[0].completed = completed  # an update would count as work of this moment
                else:
                    shown_note.text = f"{completed:g} done before"
                    bars.reset(identifier, completed=completed)  # type: ignore[arg-type]  # parts of steps too

        with bars:
            yield Bar()
        note = f" ({shown_note.text})" if shown_note.text else ""
        self.say(f"{name}: done in {duration(self._clock() - started)}{note}")

    def say(self, text: str) -> None:
        """Print one line above the bars."""
        self._console.print(text, highlight=False, markup=False)
