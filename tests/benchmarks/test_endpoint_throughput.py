"""The throughput of the endpoint, small: what is measured, not how fast this machine is."""

from __future__ import annotations

import pytest

from benchmarks.endpoint_throughput import _recovered, measure

pytest.importorskip("aiohttp")


def test_every_request_is_answered_within_the_limit_once() -> None:
    figures = measure(0.05, 10, 100, 10)
    assert figures["requests"] == 100
    assert figures["most_at_once"] <= 10
    assert figures["refused"] == figures["asked_again_after_an_answer"] == 0
    assert 0 < figures["share"] <= 1


def test_a_client_that_may_ask_more_than_the_server_takes_finds_the_limit() -> None:
    figures = measure(0.05, 10, 150, 40)
    assert figures["requests"] == 150
    assert 0 < figures["refused"] < 60
    assert figures["asked_again_after_an_answer"] == 0


def test_the_recovery_is_the_first_whole_second_at_nearly_the_best_rate() -> None:
    rows = [
        (0.25 * step, 0 if step < 24 else 100 * (step - 24)) for step in range(60)
    ]  # from second 6 on, 400 a second
    assert _recovered(rows, best=400.0, end=4.0) == pytest.approx(2.0, abs=0.3)
    assert _recovered(rows, best=1000.0, end=4.0) is None
