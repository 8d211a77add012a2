"""Texts at which an answer ends, found while it is streamed."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["StopTexts"]


class StopTexts:
    """Passes an answer's text on, up to the first of some texts; what may be the beginning of one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        """Nothing is written yet; empty texts stop nothing."""
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stopped = False

    def add(self, text: str) -> str:
        """The part of the text so far that can be passed on; nothing after a stop."""
        if self.stopped:
            return ""
        self._held += text
        places = [place for place in (self._held.find(stop) for stop in self._stops) if place >= 0]
        if places:
            self.stopped = True
            end = min(places)
        else:
            end = len(self._held) - max((_begun(self._held, stop) for stop in self._stops), default=0)
        given, self._held = self._held[:end], "" if self.stopped else self._held[end:]
        return given

    def end(self) -> str:
        """What was held back, now that the answer is finished."""
        given, self._held = self._held, ""
        return given


def _begun(text: str, stop: str) -> int:
    """How many letters at the end of `text` are the beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((count for count in range(longest, 0, -1) if text.endswith(stop[:count])), 0)
