"""A progress for tests that remembers what was said."""

from __future__ import annotations

from fspo.progress import Silent

__all__ = ["Lines"]


class Lines(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)
