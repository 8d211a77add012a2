from __future__ import annotations

import asyncio

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
    for expected in (32, 64, 128):
        for _ in range(pacer.window):
            pacer.answered()
        assert pacer.window == expected
    clock.now += 1
    pacer.overloaded(began=clock.now)
    assert pacer.window == 64
    for _ in range(64):
        pacer.answered()
    assert pacer.window == pytest.approx(64 + 1000 / 20, abs=12)


def test_after_a_long_burst_it_is_soon_half_as_wide_as_before() -> None:
    clock = Clock()
    pacer = Pacer(200, clock=clock)
    for _ in range(200):
        pacer.answered()
    for _ in range(20):  # one round after another is refused
        clock.now += 1
        pacer.overloaded(began=clock.now)
    assert pacer.window == 1
    rounds = 0
    while pacer.window < 100:
        rounds += 1
        for _ in range(pacer.window):
            pacer.answered()
    assert rounds <= 8
    while pacer.window < 200:
        rounds += 1
        for _ in range(pacer.window):
            pacer.answered()
    assert 15 < rounds <= 22


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
    under_way = most = 0

    async def work(pacer: Pacer) -> None:
        nonlocal under_way, most
        for _ in range(5):
            await pacer.enter()
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.002)
            under_way -= 1
            pacer.leave()

    async def all_of_them() -> None:
        pacer = Pacer(5)
        await asyncio.gather(*(work(pacer) for _ in range(20)))

    asyncio.run(all_of_them())
    assert most == 5


def test_nothing_begins_while_the_server_wants_to_be_left_alone() -> None:
    async def waits() -> float:
        pacer, loop = Pacer(4), asyncio.get_running_loop()
        pacer.overloaded(await pacer.enter(), retry_after=0.3)
        pacer.leave()
        started = loop.time()
        await pacer.enter()
        return loop.time() - started

    assert asyncio.run(waits()) > 0.25


def test_those_who_wait_already_go_on_after_a_pause_too() -> None:
    async def waits() -> int:
        pacer = Pacer(1)
        began = await pacer.enter()
        waiting = [asyncio.create_task(pacer.enter()) for _ in range(3)]
        await asyncio.sleep(0)
        pacer.overloaded(began, retry_after=0.05)
        pacer.leave()
        for task in waiting:
            await asyncio.wait_for(task, timeout=2)
            pacer.overloaded(began, retry_after=0.01)
            pacer.leave()
        return sum(task.done() for task in waiting)

    assert asyncio.run(waits()) == 3


def test_refusals_without_a_time_to_wait_are_followed_by_growing_pauses() -> None:
    clock = Clock()
    pacer, pauses = Pacer(1, clock=clock), []
    for _ in range(4):
        pacer.overloaded(began=clock.now)
        pauses.append(pacer._closed_until - clock.now)
        clock.now += 100
    assert pauses == [0.25, 0.5, 1.0, 2.0]
    pacer.answered()
    pacer.overloaded(began=clock.now)
    assert pacer._closed_until - clock.now == 2.0


def test_who_gives_up_waiting_passes_the_turn_on() -> None:
    async def passes() -> int:
        pacer = Pacer(1)
        await pacer.enter()
        waiting = [asyncio.create_task(pacer.enter()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        pacer.leave()  # the turn goes to the first, which is cancelled just then, or to the second
        waiting[1].cancel()
        done, _ = await asyncio.wait(waiting, timeout=5)
        return len([task for task in done if not task.cancelled()])

    assert asyncio.run(passes()) == 1
