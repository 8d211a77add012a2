"""How many requests a user may send."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from limits import RateLimitItem
from limits.strategies import MovingWindowRateLimiter

from fspo.errors import ConfigError
from fspo.serving.ownership import Owner
from fspo.serving.rates import RateLimits, parse_rate


def test_an_invalid_limit_is_an_error_that_names_its_option() -> None:
    assert parse_rate(" ") == [] and len(parse_rate("5/second;1000/day", "--rate")) == 2
    with pytest.raises(ConfigError, match=r"--request-rate.*'often'"):
        parse_rate("often", "--request-rate")


def test_every_limit_counts() -> None:
    rates = RateLimits("9/hour;2/day")
    waits = [rates.wait(Owner("ann"), "") for _ in range(3)]
    assert waits[:2] == [0.0, 0.0] and waits[2] > 3600


def test_requests_at_the_same_time_are_counted_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(self: MovingWindowRateLimiter, item: RateLimitItem, *ids: str) -> bool:
        found = test(self, item, *ids)
        time.sleep(0.002)
        return found

    test = MovingWindowRateLimiter.test
    monkeypatch.setattr(MovingWindowRateLimiter, "test", slow)
    rates = RateLimits("5/hour")
    with ThreadPoolExecutor(20) as pool:
        waits = list(pool.map(lambda _: rates.wait(Owner("ann"), ""), range(20)))
    assert waits.count(0.0) == 5
