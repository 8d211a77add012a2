"""What a statistic says: a value with its interval, or that there are too few users for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

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
    """A mean over `items` of `users`, with its 95% interval, or none where too little is known to tell."""

    value: float
    low: float | None
    high: float | None
    users: int
    items: int
    lacking: Annotated[str, Field(exclude=True)] = ""
    """Why there is no interval, in words, where users alone are not what is short; files don't keep it."""

    @property
    def shortage(self) -> TooFewUsers | None:
        """How many users an interval would need; None where there is one, or users are not what it lacks."""
        short = self.low is None and not self.lacking and 0 < self.users < MINIMUM_USERS
        return TooFewUsers(self.users) if short else None

    @property
    def note(self) -> str:
        """Why there is no interval, in words; empty where there is one."""
        if self.low is not None:
            return ""
        if self.shortage:
            return self.shortage.reason
        return f"no interval: {self.lacking}" if self.lacking else "no interval"

    def to_json(self) -> dict[str, Any]:
        """The five fields of `metrics.json`; `low` and `high` are null where there is no interval."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "users": self.users,
            "items": self.items,
        }
