from __future__ import annotations

import threading
import time

import pytest

from fspo.llm.pacing import Pacer


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_doubles_until_the_first_overload_and_then_goes_up_by_one_each_round() -> None:
    clock = Clock()
    pacer = Pacer(1000, clock=clock)
    for expected in (16, 32, 64):
        for _ in range(pacer.window):
            pacer.answered()
        assert pacer.window == expected
    clock.now += 1
    pacer.overloaded(began=clock.now)
    assert pacer.window == 32
    for _ in range(32):
        pacer.answered()
    assert pacer.window == pytest.approx(33, abs=1)


def test_a_burst_halves_it_once() -> None:
    clock = Clock()
    pacer = Pacer(64, clock=clock)
    for _ in range(100):
        pacer.answered()
    assert pacer.window == 64
    for _ in range(50):  # all began before the first of them was refused
        pacer.overloaded(began=99.0)
    assert pacer.window == 32
    clock.now = 200.0
    pacer.overloaded(began=150.0)
    assert pacer.window == 16
    for began in range(300, 320):
        clock.now = began
        pacer.overloaded(began)
    assert pacer.window == 1


def test_a_small_limit_is_kept() -> None:
    pacer = Pacer(3)
    assert pacer.window == 3
    for _ in range(10):
        pacer.answered()
    assert pacer.window == 3


def test_never_more_are_under_way_than_the_window() -> None:
    pacer, lock = Pacer(5), threading.Lock()
    under_way = most = 0

    def work() -> None:
        nonlocal under_way, most
        for _ in range(5):
            with pacer.slot():
                with lock:
                    under_way += 1
                    most = max(most, under_way)
                time.sleep(0.002)
                with lock:
                    under_way -= 1

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 5


def test_nothing_begins_while_the_server_wants_to_be_left_alone() -> None:
    pacer = Pacer(4)
    with pacer.slot() as began:
        pacer.overloaded(began, retry_after=0.3)
    started = time.monotonic()
    with pacer.slot():
        assert time.monotonic() - started > 0.25
    with pytest.raises(ValueError), pacer.slot():
        raise ValueError
    with pacer.slot():  # the place was given back
        pass
