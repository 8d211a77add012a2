"""What judges without a model have in common: they prefer the text of higher utility."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from fspo.files import write_json
from fspo.judging.verdicts import Preferred
from fspo.preferences.types import User

__all__ = ["UtilityJudge"]

_ROUNDING = 1e-9
"""Utilities are sums of weights, which are exact up to this."""


class UtilityJudge(ABC):
    """Judges by a utility of each text alone, so that the order of two texts changes nothing."""

    @property
    @abstractmethod
    def margin(self) -> float:
        """Utilities that differ by less are a tie."""

    @abstractmethod
    def utility(self, user: User, text: str, prompt: str = "") -> float:
        """How much `user` likes `text` as a response to `prompt`; only differences on one prompt have a meaning.

        Raises:
            DataError: the judge can't judge this text, or can't judge for this user.
        """

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """The judge, ready for JSON."""

    def compare(self, user: User, prompt: str, first: str, second: str) -> Preferred:
        """Which response to `prompt` the user prefers. The same in either order.

        Raises:
            DataError: see `utility`.
        """
        difference = self.utility(user, first, prompt) - self.utility(user, second, prompt)
        if abs(difference) < max(self.margin - _ROUNDING, _ROUNDING):
            return "tie"
        return "first" if difference > 0 else "second"

    def save(self, path: str | Path) -> Path:
        """Write `record` as JSON.

        Raises:
            StorageError: the disk is full or the folder can't be written.
        """
        path = Path(path)
        write_json(path, self.record())
        return path
