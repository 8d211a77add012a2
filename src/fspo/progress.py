"""How a stage tells how far it is; the command line draws it, a library caller may ignore it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

__all__ = ["Progress", "Silent", "Task"]


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, steps: float = 1.0, note: str = "") -> None:
        """Count `steps` more as done; `note` is a few words of the latest figures."""


class Progress(Protocol):
    """Whoever shows progress."""

    def task(self, name: str, total: float, done: float = 0.0) -> AbstractContextManager[Task]:
        """Show one piece of work for as long as the `with` block around it lasts.

        Args:
            name: what is being done, in a few words.
            total: how many steps there are.
            done: how many of them an earlier, interrupted call has done.
        """
        ...

    def say(self, text: str) -> None:
        """Show one line that stays."""


class _SilentTask:
    def advance(self, steps: float = 1.0, note: str = "") -> None:
        """Show nothing."""


class Silent:
    """Progress that shows nothing."""

    @contextmanager
    def task(self, name: str, total: float, done: float = 0.0) -> Iterator[Task]:
        """Yield a task that ignores its advances."""
        yield _SilentTask()

    def say(self, text: str) -> None:
        """Show nothing."""
