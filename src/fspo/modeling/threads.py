"""How many threads this process computes with, and how they wait for each other, beside other programs.

A step of a model is many short pieces of work. All threads share each piece, so it is as slow as the slowest thread.
A thread whose core another program uses holds up all others. So there are as many threads as free cores. Where the
load comes later, waiting threads sleep instead of spinning, and the system gives the core to a program that has work.
Sleeping all the time would cost a fifth of the speed of a quiet machine.

The number of threads decides how sums are rounded, so one piece of work keeps its number. How threads wait does not
change results.
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

__all__ = ["Machine", "choose", "explicit", "has_room", "look", "quota", "sleep_while_busy", "times", "use", "usual"]

_SET = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_WAIT = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables that set how threads wait."""

_SAMPLE, _SAMPLES = 0.3, 4
"""Seconds that one look at the load lasts, and how many there are at most."""

_BUSY = 0.5
"""A core that others use for more than this part of the time is not free."""

_PERIOD = 1.0
"""Seconds between two looks at the load while the process works."""

_MOST_CORES = 32
"""A machine with more cores is never crowded: a crowd has more threads than there are cores."""

_SPARE = 256
"""Threads that a crowd leaves to everything else within the limits of the system."""


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
    """What the machine is doing now, over a fraction of a second; a short burst of other work does not count."""
    cores = _cores()
    found: list[float] = []
    while len(found) < _SAMPLES and (not found or found[-1] >= _BUSY):
        before = _moment(cores)
        if before is None:  # this system does not give its load
            found.append(0.0)
            break
        time.sleep(_SAMPLE)
        found.append(_others(before, _moment(cores)))
    return Machine(len(cores), min(found), quota())


def choose(machine: Machine) -> int:
    """As many threads as cores are free, and never more than torch takes by itself."""
    return min(usual(), machine.free)


def explicit() -> str:
    """The variable of the environment that sets the number of threads; empty if none does."""
    return next((name for name in _SET if os.environ.get(name)), "")


def use(threads: int) -> None:
    """Compute with so many threads from now on."""
    usual()  # before it changes
    torch.set_num_threads(threads)
    _Watch.threads = threads


def sleep_while_busy() -> None:
    """From now on, let threads sleep while they wait for each other, whenever other programs want their cores.

    GNU's OpenMP, which torch brings along on Linux, lets waiting threads spin, but not while there are more of them
    than cores. So while the machine is busy, this starts a few more, which do nothing. It does nothing where the
    environment sets how threads wait, on systems that do not give their load, and on machines with many cores.
    """
    if torch.get_num_threads() == 1 or torch.accelerator.is_available() or len(_cores()) > _MOST_CORES:
        return
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
    """With how many threads the process computes, if `use` set it; OpenMP gives a thread only its own number."""

    def __init__(self) -> None:
        super().__init__(name=self.NAME)

    def run(self) -> None:
        crowds: list[_Crowd] = []
        try:
            self._watch(crowds)
        except (RuntimeError, MemoryError):
            return  # the system gives no more threads: they go on spinning
        finally:
            for crowd in crowds:
                crowd.end()

    def _watch(self, crowds: list[_Crowd]) -> None:
        """Keep a crowd in `crowds` while the machine is busy."""
        cores = _cores()
        before = _moment(cores)
        while before is not None:
            threading.main_thread().join(_PERIOD)
            if not threading.main_thread().is_alive():
                return
            now = _moment(cores)
            threads = self.threads or torch.get_num_threads()
            crowded = threads > 1 and threads + _others(before, now) > len(cores) + _BUSY
            before = now
            if crowded and not crowds:
                if not has_room(_Crowd.size(len(cores)) + _SPARE):
                    return
                crowds.append(_Crowd(len(cores)))
            elif not crowded and crowds:
                crowds.pop().end()


class _Crowd:
    """Threads that only wait, with the teams that OpenMP gives them: in all, more threads than cores."""

    def __init__(self, cores: int) -> None:
        """Start the threads.

        Raises:
            RuntimeError: the system gives no more; those that were started have ended.
        """
        self._end = threading.Event()
        self._failures: list[Exception] = []
        try:
            for _ in range(self._leaders(cores)):
                ready = threading.Event()
                threading.Thread(target=self._wait, args=(ready,), name="fspo-crowd").start()
                ready.wait()
                if self._failures:
                    raise RuntimeError("A thread of the crowd has failed.") from self._failures[0]
        except BaseException:
            self.end()
            raise

    @classmethod
    def size(cls, cores: int) -> int:
        """How many threads it has in all."""
        return cls._leaders(cores) * max(2, torch.get_num_threads())

    @staticmethod
    def _leaders(cores: int) -> int:
        return math.ceil(cores / (max(2, torch.get_num_threads()) - 1))

    def end(self) -> None:
        self._end.set()

    def _wait(self, ready: threading.Event) -> None:
        try:
            torch.ones(2**18).add_(1)  # large enough to be shared out, so that there is a team
        except Exception as error:  # without memory, for example
            self._failures.append(error)
            return
        finally:
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
            ticks = [int(field) for field in fields[:8]]  # the rest are guests, which count as users already
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


def has_room(count: int) -> bool:
    """Whether the system gives this process so many threads more, whatever limits it; they are started for a moment.

    OpenMP ends the whole process where it can't start a thread, so this must be known before.
    """
    end, started = threading.Event(), list[threading.Thread]()
    try:
        for _ in range(count):
            thread = threading.Thread(target=end.wait, name="fspo-room")
            thread.start()
            started.append(thread)
    except (RuntimeError, MemoryError):
        return False
    finally:
        end.set()
        for thread in started:
            thread.join()
    return True


def _cores() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


@cache
def usual() -> int:
    """As many threads as torch takes by itself: one for each real core, or the number in the environment."""
    return torch.get_num_threads()
