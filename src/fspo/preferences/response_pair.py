"""Two responses to one prompt, as a question to a person."""

from __future__ import annotations

from dataclasses import dataclass

from fspo.preferences.types import Preference

__all__ = ["ResponsePair"]


@dataclass(frozen=True)
class ResponsePair:
    """Two responses to one prompt; a person names the better one."""

    prompt: str
    first: str
    second: str

    def answered(self, user: str, *, second: bool) -> Preference:
        """The preference of a person who prefers the first response, or the second one."""
        chosen, rejected = (self.second, self.first) if second else (self.first, self.second)
        return Preference(user, self.prompt, chosen, rejected)
