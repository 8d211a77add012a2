"""How many requests a user may send."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from fspo.errors import ConfigError

if TYPE_CHECKING:
    from fspo.serving.ownership import Owner

__all__ = ["RateLimits", "parse_rate"]


def parse_rate(rate: str, option: str = "") -> list[RateLimitItem]:
    """A limit such as `60/minute`, or several with semicolons between them; none for the empty text.

    The error names the option that the text is from, if one is given.

    Raises:
        ConfigError: it is no such limit.
    """
    if not rate.strip():
        return []
    try:
        return parse_many(rate)
    except ValueError:
        where = f"{option}: " if option else ""
        raise ConfigError(
            f"{where}'{rate}' is not a limit; write 60/minute or 5/second;1000/day, for example."
        ) from None


class RateLimits:
    """Counts the requests of each user in this process, over moving windows."""

    def __init__(self, usual: str) -> None:
        """`usual` is the limit of users without their own; see `parse_rate`."""
        self._usual = parse_rate(usual)
        self._lock = threading.Lock()
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def wait(self, owner: Owner, own: str = "") -> float:
        """Count a request; return 0, or the seconds to wait where the user's `own` limit, or else the usual, is met."""
        limits = parse_rate(own) or self._usual
        with self._lock:  # a test and its hit are one step
            for limit in limits:
                if not self._limiter.test(limit, owner.id):
                    return max(1.0, self._limiter.get_window_stats(limit, owner.id).reset_time - time.time())
            for limit in limits:
                self._limiter.hit(limit, owner.id)
        return 0.0
