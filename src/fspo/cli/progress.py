"""Progress on the terminal: bars with the time left, or plain lines where nobody watches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fspo.progress import PlainProgress, Progress, Silent, Task, duration
from fspo.runs import processes

if TYPE_CHECKING:
    from rich.console import Console

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


class RichProgress:
    """One bar a task, with step, percentage, time left and the latest metrics; finished tasks leave one line.

    The line never wraps. In a narrow terminal the metrics are cut first, then the name of the task.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def task(self, name: str, total: float, done: float = 0.0) -> Iterator[Task]:
        """Draw a bar for one piece of work; a task inside a task gets a bar below it."""
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars
        from rich.table import Column

        started = time.monotonic()
        narrow = self._console.width < _NARROW
        name_column = Column(no_wrap=True, overflow="ellipsis", max_width=self._console.width // 3)
        bars = Bars(
            TextColumn("{task.description}", style="bold", markup=False, table_column=name_column),
            BarColumn(bar_width=12 if narrow else 28, table_column=Column(no_wrap=True)),
            TaskProgressColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.completed:.0f}/{task.total:.0f}", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            TextColumn(
                "{task.fields[note]}",
                style="dim",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            console=self._console,
            transient=True,
            expand=True,
        )
        identifier = bars.add_task(name, total=max(total, 1e-9), note="")
        bars.update(identifier, completed=done)

        class Bar:
            counted = False

            def advance(self, steps: float = 1.0, note: str = "") -> None:
                """Move the bar; an empty note keeps the last one."""
                bars.advance(identifier, steps)
                if note:
                    bars.update(identifier, note=note)
                self.counted = True

            def skip(self, steps: float) -> None:
                """Move the bar; what was done before the first step tells nothing of the speed."""
                completed = bars.tasks[0].completed + steps
                if self.counted:
                    bars.update(identifier, completed=completed)
                else:
                    note = f"{completed:g} done before"
                    bars.reset(identifier, completed=completed, note=note)  # type: ignore[arg-type]  # parts of steps too

        with bars:
            yield Bar()
        note = str(bars.tasks[0].fields["note"])
        self.say(f"{name}: done in {duration(time.monotonic() - started)}" + (f" ({note})" if note else ""))

    def say(self, text: str) -> None:
        """Print one line above the bars."""
        self._console.print(text, highlight=False, markup=False)
