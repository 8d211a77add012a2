"""What a statistic says: a value with its interval, or that there are too few users for one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["MINIMUM_USERS", "Bounds", "Estimate", "TooFewUsers"]

MINIMUM_USERS = 3
"""With fewer users no interval is given: the spread between them is not known."""

Bounds = tuple[float, float]
"""The least and the greatest value that an item can have."""


@dataclass(frozen=True)
class TooFewUsers:
    """What stands where an interval, a p value or a detectable difference would, if there were more users."""

    users: int
    needed: int = MINIMUM_USERS

    @property
    def reason(self) -> str:
        """Why there is no interval, for people."""
        return f"no interval: {self.users} user{'s' if self.users != 1 else ''}, at least {self.needed} are needed"


@dataclass(frozen=True)
class Estimate:
    """A mean over `items` of `users`, with its 95 % interval, or none where there are too few users to tell."""

    value: float
    low: float | None
    high: float | None
    users: int
    items: int

    @property
    def shortage(self) -> TooFewUsers | None:
        """Why there is no interval; None where there is one."""
        return TooFewUsers(self.users) if self.low is None else None

    @property
    def note(self) -> str:
        """Why there is no interval, in words; empty where there is one."""
        return self.shortage.reason if self.shortage else ""

    def to_json(self) -> dict[str, Any]:
        """The five fields of `metrics.json`; `low` and `high` are null where there is no interval."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "users": self.users,
            "items": self.items,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Estimate:
        """The estimate that `to_json` wrote."""
        return cls(record["value"], record["low"], record["high"], record["users"], record["items"])
