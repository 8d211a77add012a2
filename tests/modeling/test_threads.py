from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import fspo
from fspo.modeling import threads
from fspo.modeling.threads import Machine
from tests import preloaded

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell their load")

STAT = """cpu  900 100 200 5000 300 10 20 30 40 50
cpu0 100 10 20 3000 200 1 2 3 40 0
cpu1 500 50 70 1000 50 4 5 6 0 50
cpu10 300 40 110 1000 50 5 13 21 0 0
intr 12345 0 9
ctxt 999
"""


@pytest.mark.parametrize(
    ("machine", "free"),
    [
        (Machine(2), 2),
        (Machine(2, busy=0.3), 2),
        (Machine(2, busy=1.0), 1),
        (Machine(2, busy=1.9), 1),
        (Machine(2, busy=7.0), 1),
        (Machine(16, busy=3.1), 13),
        (Machine(64, busy=30.0, quota=4.0), 4),
        (Machine(64, busy=62.0, quota=4.0), 2),
        (Machine(8, quota=0.25), 1),
    ],
)
def test_as_many_cores_are_free_as_others_leave_and_a_container_allows(machine: Machine, free: int) -> None:
    assert machine.free == free


def test_there_are_never_more_threads_than_torch_takes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usual", lambda: 4)
    assert [threads.choose(Machine(8, busy)) for busy in (0.0, 5.0, 8.0)] == [4, 3, 1]


def test_only_the_cores_of_this_process_count_and_waiting_is_not_work() -> None:
    assert threads.times(STAT, frozenset({0})) == 100 + 10 + 20 + 1 + 2 + 3
    assert threads.times(STAT, frozenset({1, 10})) == (500 + 50 + 70 + 4 + 5 + 6) + (300 + 40 + 110 + 5 + 13 + 21)
    assert threads.times(STAT, frozenset({7})) == 0


def test_the_quota_of_a_container_is_read_in_both_its_forms(tmp_path: Path) -> None:
    assert threads.quota(tmp_path) == float("inf")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert threads.quota(tmp_path) == float("inf")
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert threads.quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("nonsense\n")
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert threads.quota(tmp_path) == float("inf")
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("50000\n")
    assert threads.quota(tmp_path) == 0.5


@pytest.fixture
def crowded() -> Iterator[None]:
    """As many programs as there are cores that never wait for anything."""
    command = [sys.executable, "-c", "while True: pass"]
    programs = [subprocess.Popen(command) for _ in os.sched_getaffinity(0)]
    try:
        time.sleep(0.3)
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


@linux
@pytest.mark.usefixtures("crowded")
def test_work_of_other_programs_is_seen() -> None:
    machine = threads.look()
    assert machine.cores == len(os.sched_getaffinity(0))
    assert machine.busy > machine.cores / 2


@linux
def test_own_work_is_not_other_work() -> None:
    cores = threads._cores()
    before = threads._moment(cores)
    while time.process_time() < before.own + 0.5:  # type: ignore[union-attr]
        pass
    after = threads._moment(cores)
    assert before is not None and after is not None
    others = threads._others(before, after) * (after.clock - before.clock)
    assert others < after.busy - before.busy - 0.4


# How often the second thread of a process slept in many short pieces of work, without and with a crowd; and what is
# left of the crowd when it ended.
SLEEPS = """
import os, sys, threading, time
import torch
from fspo.modeling import threads

torch.set_num_threads(2)
x = torch.ones(2**16)
x.add_(1)
team = [int(name) for name in os.listdir("/proc/self/task") if int(name) != os.getpid()]

def slept():
    total = 0
    for task in team:
        text = open(f"/proc/self/task/{task}/status").read()
        total += int(text.split("voluntary_ctxt_switches:")[1].split()[0])
    return total

def short_pieces():
    before = slept()
    for _ in range(300):
        x.add_(1)
    return slept() - before

spinning = short_pieces()
crowd = threads._Crowd(int(sys.argv[1]))
crowding = short_pieces()
crowd.end()
while any(thread.name == "fspo-crowd" for thread in threading.enumerate()):
    time.sleep(0.01)
print(spinning, crowding, short_pieces())
"""


def child(program: str, *arguments: str, **variables: str) -> list[str]:
    """What a program prints, with the usual way of waiting."""
    inherited = {name: value for name, value in os.environ.items() if name not in (*threads._SET, *threads._WAIT)}
    environment = inherited | {"PYTHONPATH": str(Path(fspo.__file__).parents[1])} | variables
    done = preloaded.run("-c", program, *arguments, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@linux
def test_threads_that_wait_sleep_in_a_crowd_and_spin_again_after_it() -> None:
    before, during, after = map(int, child(SLEEPS, str(len(os.sched_getaffinity(0)))))
    assert during > 300 / 4
    assert before < during / 2
    assert after < during / 2


WATCHED = """
import threading
import torch
from fspo.modeling.threads import sleep_while_busy
torch.set_num_threads(2)
sleep_while_busy()
sleep_while_busy()
print(sum(thread.name == "fspo-load" for thread in threading.enumerate()))
"""


@linux
def test_the_load_is_watched_once_and_not_where_people_say_how_threads_wait() -> None:
    assert child(WATCHED) == ["1"]
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        assert child(WATCHED, **{name: "0" if name != "OMP_WAIT_POLICY" else "ACTIVE"}) == ["0"]


CROWDS = """
import threading, time
from fspo.modeling.threads import sleep_while_busy, use
use(2)
sleep_while_busy()
end = time.monotonic() + 20
while time.monotonic() < end and not any(thread.name == "fspo-crowd" for thread in threading.enumerate()):
    time.sleep(0.1)
print(any(thread.name == "fspo-crowd" for thread in threading.enumerate()))
"""


@linux
@pytest.mark.usefixtures("crowded")
def test_other_work_that_comes_later_is_noticed() -> None:
    assert child(CROWDS) == ["True"]


FAILS = """
import sys, threading, time
import torch
from fspo.modeling import threads

start, ones = threading.Thread.start, torch.ones

def no_second_thread(thread):
    if thread.name == "fspo-crowd" and any(other.name == "fspo-crowd" for other in threading.enumerate()):
        attempts.append(thread)
        raise RuntimeError("can't start new thread")
    start(thread)

def no_memory(*size):
    attempts.append(size)
    raise RuntimeError("not enough memory")

def no_room(count):
    attempts.append(count)
    return False

attempts = []
if sys.argv[1] == "thread":
    threading.Thread.start = no_second_thread
elif sys.argv[1] == "memory":
    torch.ones = no_memory
else:
    threads.has_room = no_room
threads._PERIOD = 0.05
threads._others = lambda before, now: 99.0
threads._cores = lambda: frozenset({0, 1})
threads.use(2)
threads.sleep_while_busy()
def running():
    return sum(thread.name.startswith("fspo-") for thread in threading.enumerate())

until = time.monotonic() + 60
while (not attempts or running()) and time.monotonic() < until:
    time.sleep(0.05)
time.sleep(0.5)
print(len(attempts), running())
"""


@linux
@pytest.mark.parametrize("failure", ["thread", "memory", "room"])
def test_where_there_are_no_more_threads_it_gives_up_and_the_process_ends(failure: str) -> None:
    assert child(FAILS, failure) == ["1", "0"]


@linux
def test_a_machine_with_many_cores_is_not_crowded() -> None:
    many = "threads._cores = lambda: frozenset(range(64))\n"
    watched = WATCHED.replace(
        "import sleep_while_busy\n", "import sleep_while_busy\nfrom fspo.modeling import threads\n" + many
    )
    assert child(watched) == ["0"]


LIMITED = """
import resource
from pathlib import Path
from fspo.modeling.threads import has_room
before = has_room(100)
pages = int(Path("/proc/self/statm").read_text().split()[0])
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**26, hard))  # 64 MiB more, 8 a thread
print(before, has_room(1), has_room(100), has_room(1))
"""


@linux
def test_whether_there_is_room_for_threads_is_found_by_starting_them() -> None:
    assert child(LIMITED) == ["True", "True", "False", "True"]
