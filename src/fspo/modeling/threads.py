"""How many threads this process computes with, and how they wait for each other, beside other programs.

A step of a model is many short pieces of work, each shared out to all threads, and each as slow as the slowest of them.
A thread whose core is taken by another program holds up all others. So there are as many threads as cores that are
really free. Where the load comes later, the threads that wait sleep instead of spinning, so that the system gives the
core to whoever has something to do. Sleeping all the time would cost a fifth of the speed of a quiet machine.

The number of threads decides how sums are rounded, so one piece of work keeps its number; how threads wait decides
nothing.
"""

from __future__ import annotations

import math
import os
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

__all__ = ["Machine", "choose", "explicit", "look", "quota", "sleep_while_busy", "times", "use"]

_SET = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_WAIT = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables by which people say how threads wait."""

_SAMPLE, _SAMPLES = 0.3, 4
"""Seconds that one look at the load lasts, and how many there are at most."""

_BUSY = 0.5
"""A core that others use for more than this part of the time is not free."""

_PERIOD = 1.0
"""Seconds between two looks at the load while the process works."""


@dataclass(frozen=True)
class Machine:
    """The cores that this process may use, and what other programs use of them."""

    cores: int
    busy: float = 0.0
    """How many cores' time other programs use."""
    quota: float = math.inf
    """How many cores' time a container allows this process."""

    @property
    def free(self) -> int:
        """The cores that are really free, at least 1."""
        return max(1, math.floor(min(self.cores - self.busy, self.quota) + _BUSY))

    def __str__(self) -> str:
        """In words."""
        limit = f", a quota of {self.quota:g}" if self.quota < self.cores else ""
        return f"{self.cores} core{'s' * (self.cores != 1)}{limit}, {self.busy:.1f} busy with other work"


@dataclass(frozen=True)
class _Moment:
    clock: float
    busy: float
    """Seconds for which the cores have worked, all together."""
    own: float
    """Seconds for which they have worked for this process."""


def look() -> Machine:
    """What the machine is doing now, seen over a fraction of a second; a short burst of other work does not count."""
    cores = _cores()
    found: list[float] = []
    while len(found) < _SAMPLES and (not found or found[-1] >= _BUSY):
        before = _moment(cores)
        if before is None:  # nothing is told here
            found.append(0.0)
            break
        time.sleep(_SAMPLE)
        found.append(_others(before, _moment(cores)))
    return Machine(len(cores), min(found), quota())


def choose(machine: Machine) -> int:
    """As many threads as cores are free, and never more than torch takes by itself."""
    return min(_most(), machine.free)


def explicit() -> str:
    """The variable of the environment that says how many threads there are; empty if none does."""
    return next((name for name in _SET if os.environ.get(name)), "")


def use(threads: int) -> None:
    """Compute with so many threads from now on."""
    _most()  # before it is another
    torch.set_num_threads(threads)
    _Watch.threads = threads


def sleep_while_busy() -> None:
    """From now on, let threads sleep while they wait for each other, whenever other programs want their cores.

    GNU's OpenMP, which torch brings along on Linux, lets waiting threads spin, but not while there are more of them
    than cores. So a few more are started while the machine is busy; they do nothing. Where the environment says how
    threads wait, and on systems that do not tell their load, nothing is done.
    """
    if torch.get_num_threads() == 1 or torch.accelerator.is_available():
        return  # nobody waits for anybody
    if any(name in os.environ for name in _WAIT) or _moment(_cores()) is None:
        return
    if not any(thread.name == _Watch.NAME for thread in threading.enumerate()):
        _Watch().start()


class _Watch(threading.Thread):
    """Looks at the load, and crowds the machine with idle threads while it is busy.

    No thread here is a daemon: Python would end one in the midst of torch's code, which aborts the process. They end
    by themselves with the main thread.
    """

    NAME = "fspo-load"
    threads = 0
    """With how many threads the process computes, if `use` said so; OpenMP tells a thread only its own number."""

    def __init__(self) -> None:
        super().__init__(name=self.NAME)

    def run(self) -> None:
        crowd: _Crowd | None = None
        cores = _cores()
        before = _moment(cores)
        while before is not None:
            threading.main_thread().join(_PERIOD)
            if not threading.main_thread().is_alive():
                break
            now = _moment(cores)
            threads = self.threads or torch.get_num_threads()
            crowded = threads > 1 and threads + _others(before, now) > len(cores) + _BUSY
            before = now
            if crowded and crowd is None:
                crowd = _Crowd(len(cores))
            elif not crowded and crowd is not None:
                crowd.end()
                crowd = None
        if crowd is not None:
            crowd.end()


class _Crowd:
    """Threads that only wait, with the teams that OpenMP gives them: in all, more threads than cores."""

    def __init__(self, cores: int) -> None:
        self._end = threading.Event()
        threads = max(2, torch.get_num_threads())
        for _ in range(math.ceil(cores / (threads - 1))):
            ready = threading.Event()
            threading.Thread(target=self._wait, args=(ready,), name="fspo-crowd").start()
            ready.wait()

    def end(self) -> None:
        self._end.set()

    def _wait(self, ready: threading.Event) -> None:
        torch.ones(2**18).add_(1)  # large enough to be shared out, so that there is a team
        ready.set()
        self._end.wait()


def _others(before: _Moment, now: _Moment | None) -> float:
    """How many cores' time other programs used between two moments."""
    if now is None or now.clock <= before.clock:
        return 0.0
    return max(0.0, now.busy - before.busy - (now.own - before.own)) / (now.clock - before.clock)


def _moment(cores: frozenset[int]) -> _Moment | None:
    try:
        text = Path("/proc/stat").read_text(encoding="ascii")
    except OSError:
        return None
    return _Moment(time.monotonic(), times(text, cores) / os.sysconf("SC_CLK_TCK"), time.process_time())


def times(stat: str, cores: frozenset[int]) -> float:
    """The ticks of `/proc/stat` for which these cores were not idle; a core that was taken away counts as busy."""
    busy = 0
    for line in stat.splitlines():
        name, *fields = line.split()
        if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in cores:
            ticks = [int(field) for field in fields[:8]]  # after these, guests, who are counted as users already
            busy += sum(ticks) - sum(ticks[3:5])
    return busy


def quota(root: Path = Path("/sys/fs/cgroup")) -> float:
    """How many cores' time the control group of this process may use; infinite where nothing limits it."""
    limits = []
    for path in (root / "cpu.max", root / "cpu/cpu.cfs_quota_us"):
        try:
            words = path.read_text(encoding="ascii").split()
            if path.name != "cpu.max":
                words += (path.parent / "cpu.cfs_period_us").read_text(encoding="ascii").split()
            if words[0] not in ("max", "-1"):
                limits.append(int(words[0]) / int(words[1]))
        except (OSError, ValueError, IndexError):
            continue
    return min(limits, default=math.inf)


def _cores() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


@cache
def _most() -> int:
    """As many as torch takes by itself: one for each real core, or what the environment says."""
    return torch.get_num_threads()
