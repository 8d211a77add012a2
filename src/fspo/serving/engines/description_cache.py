"""Descriptions that a policy writes of users: one of each user, the last used ones, until the user is forgotten."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from fspo.preferences.types import Preference

__all__ = ["DescriptionCache"]


class DescriptionCache:
    """Writes descriptions, and keeps them by their user."""

    def __init__(self, write: Callable[[tuple[Preference, ...]], str], size: int = 1024) -> None:
        """`write` describes a user by their shots; `size` users are kept at most."""
        self._write, self._size = write, size
        self._kept: OrderedDict[str, tuple[tuple[Preference, ...], str]] = OrderedDict()

    def __len__(self) -> int:
        """How many descriptions are kept."""
        return len(self._kept)

    def of(self, owner: str, shots: tuple[Preference, ...], *, keep: bool) -> str:
        """The description by these shots; with `keep`, it replaces the owner's last one."""
        found = self._kept.get(owner)
        if found is not None and found[0] == shots:
            self._kept.move_to_end(owner)
            return found[1]
        text = self._write(shots)
        if keep:
            self._kept[owner] = (shots, text)
            self._kept.move_to_end(owner)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return text

    def clear(self) -> None:
        """Drop all descriptions."""
        self._kept.clear()

    def forget(self, owner: str) -> None:
        """Drop the owner's description."""
        self._kept.pop(owner, None)
