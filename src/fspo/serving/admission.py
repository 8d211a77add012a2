"""How many answers may be under way at once: of one user, and of all."""

from __future__ import annotations

from collections import Counter

from fspo.errors import FspoError

__all__ = ["Admission", "ServerFull", "TooManyAnswers"]


class TooManyAnswers(FspoError):
    """A user has as many answers under way as a user may have."""


class ServerFull(FspoError):
    """The server has as many answers under way as it takes."""


class Admission:
    """Counts the answers under way."""

    def __init__(self, each: int, together: int) -> None:
        """Of one user at most `each`, of all users at most `together`."""
        self._each, self._together = each, together
        self._under_way: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many answers are under way."""
        return self._under_way.total()

    def enter(self, owner: str) -> None:
        """Begin an answer; `leave` ends it.

        Raises:
            TooManyAnswers: the owner has to wait for an answer of their own.
            ServerFull: all users have to wait.
        """
        if self._under_way[owner] >= self._each:
            raise TooManyAnswers(f"You have {self._each} answers under way; wait until one of them ends.")
        if len(self) >= self._together:
            raise ServerFull("The server has too many answers under way; try again later.")
        self._under_way[owner] += 1

    def leave(self, owner: str) -> None:
        """End an answer."""
        self._under_way[owner] -= 1
        if not self._under_way[owner]:
            del self._under_way[owner]
