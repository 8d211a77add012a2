"""A rich console for text of others, in sentences, tables, panels and progress bars alike."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from fspo.printing import printable

__all__ = ["PrintableConsole"]


class PrintableConsole(Console):
    """A console that shows control characters of a text, and sends none but rich's own to the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The parts of what is printed; those without a control code of rich hold text."""
        for part in super().render(renderable, options):
            yield part if part.control else Segment(printable(part.text), part.style)
