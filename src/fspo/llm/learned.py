"""What is known of a server from its replies: the parameters it takes, and whether its answers begin in reasoning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fspo.identity import digest
from fspo.llm.cache import RequestCache
from fspo.llm.endpoint_config import EndpointConfig
from fspo.llm.parameters import Names, in_words
from fspo.llm.replies import Read
from fspo.llm.types import Completion

__all__ = ["Learned"]

_SURE = 3
"""Finished answers in a row that close reasoning which nothing opened, until all answers are taken to begin in it."""


class Learned:
    """What one server has taught, saved with its answers. The settings are not part of it, since they may change."""

    def __init__(self, config: EndpointConfig, cache: RequestCache) -> None:
        """Begin with what the cache knows of this server."""
        self._cache, self._server, self._settings = cache, digest(config.server_identity(), 64), config.parameters
        known = cache.learned(self._server)
        self._names: Names = known.get("names", {})
        self._thinks = bool(known.get("thinks"))
        """Whether answers begin inside of reasoning that only their end shows."""
        self._closings = 0
        """Finished answers in a row that showed it."""
        self._doubtful: set[str] = set()
        """Keys of answers that were cut at their limit, and may be nothing but reasoning."""
        self.names: Names = {**self._names, **config.parameters}
        """How parameters are called in requests, by the settings too."""

    @property
    def left_out(self) -> frozenset[str]:
        """The parameters that the server has refused."""
        return frozenset(name for name, other in self._names.items() if other is None)

    def adopt(self, names: Names) -> str:
        """Send requests with these names from now on; returns what is new about them, in words."""
        new = {name: other for name, other in names.items() if self.names.get(name, name) != other}
        self.names = {**self.names, **names}
        if new:
            # What contradicts the settings holds for this process alone.
            own = {name: other for name, other in new.items() if name not in self._settings}
            self._names = {**self._names, **own}
            self._keep()
        return in_words(new)

    def read(self, key: str, found: Read) -> Read:
        """The answer, without its text if that can only be reasoning; also learns whether answers begin in reasoning.

        If they do, an answer that was cut before it closed the reasoning contains nothing else. This holds for earlier
        answers too.
        """
        if found.orphan:
            self._closings += 1
            if self._closings >= _SURE and not self._thinks:
                self._set_thinks(True)
                self._cache.only_reasoning(self._doubtful)
        elif found.completion.finish_reason == "stop" and found.completion.text.strip():
            self._closings = 0
            self._doubtful.clear()
            if self._thinks:
                self._set_thinks(False)
        if found.completion.finish_reason == "length" and not found.orphan:
            if self._thinks:
                return replace(found, completion=_only_reasoning(found.completion), kinds=("only reasoning",))
            self._doubtful.add(key)
        return found

    def corrected(self, answers: Mapping[str, Any]) -> dict[str, Any]:
        """Key -> answer, without the text of those that turned out to be only reasoning."""
        cut = self._doubtful & answers.keys() if self._thinks else ()
        found = {key: _only_reasoning(answers[key]) for key in cut if isinstance(answers[key], Completion)}
        return {**answers, **found}

    def _set_thinks(self, thinks: bool) -> None:
        self._thinks = thinks
        self._keep()

    def _keep(self) -> None:
        self._cache.learn(self._server, {"names": self._names, "thinks": self._thinks})


def _only_reasoning(cut: Completion) -> Completion:
    """An answer that was cut inside of its reasoning."""
    return replace(cut, text="", finish_reason="reasoning")
