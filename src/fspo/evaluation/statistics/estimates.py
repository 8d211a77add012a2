"""What a statistic says: a value with its interval, or that there are too few users for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

__all__ = ["MINIMUM_USERS", "Bounds", "Estimate", "users_needed"]

MINIMUM_USERS = 3
"""With fewer users no interval is given: the spread between them is not known."""

Bounds = tuple[float, float]
"""The least and the greatest value that an item can have."""


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
    def note(self) -> str:
        """Why there is no interval, in words; empty where there is one."""
        if self.low is not None:
            return ""
        if self.lacking:
            return f"no interval: {self.lacking}"
        return users_needed(self.users) if 0 < self.users < MINIMUM_USERS else "no interval"

    def to_json(self) -> dict[str, Any]:
        """The five fields of `metrics.json`; `low` and `high` are null where there is no interval."""
        return {name: value for name, value in vars(self).items() if name != "lacking"}


def users_needed(users: int, needed: int = MINIMUM_USERS) -> str:
    """That so many users are too few for an interval, in words."""
    return f"no interval: {users} user{'s' if users != 1 else ''}, at least {needed} are needed"
