"""Programs in processes of their own that have the libraries imported already.

Importing torch, transformers and peft is most of what a command on a tiny model costs. One process imports them, does
nothing else, and forks for each program: `python -m MODULE ARGUMENTS` with its own arguments, environment, folder and
streams, which ends as the interpreter ends and can be killed at any moment. Two things are not those of a new process:
what a library reads from the environment while it is imported, and the seed of hashes. So a test that sets such a
variable, or that is about starting, starts the program itself.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy

import fspo

__all__ = ["Program", "start"]

ROOT = Path(__file__).parents[1]
_LATER = (
    "matplotlib.backends.backend_svg",
    "openai.resources.chat.completions",
    "pyarrow.parquet",
    "transformers.models.llama.modeling_llama",
    "transformers.models.llama.tokenization_llama",
)
"""Imported by commands while they work."""
_NO_HUB = (
    "pandas",
    "pyarrow.parquet",
    "pydantic",
    "scipy.optimize",
    "sklearn.linear_model",
    "torch._dynamo",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "torch.nn.attention.flex_attention",
    "typer",
)
"""Those that read nothing about a hub from the environment."""


class Program:
    """A program that runs, with as much of `subprocess.Popen` as tests use."""

    def __init__(self, pid: int, ending: socket.socket) -> None:
        """The program's process id, and where its exit code will be said."""
        self.pid, self._ending = pid, ending
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, or minus the signal, once it has ended."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; raises `subprocess.TimeoutExpired` after `timeout` seconds."""
        if self.returncode is None:
            self._ending.settimeout(timeout)
            try:
                self.returncode = int(self._ending.recv(64))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0) from None
            self._ending.close()
        return self.returncode

    def send_signal(self, sign: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sign)

    def kill(self) -> None:
        """End it without warning."""
        self.send_signal(signal.SIGKILL)


def start(
    module: str,
    *arguments: object,
    env: Mapping[str, str],
    cwd: Path = ROOT,
    stdin: IO[str] | None = None,
    stdout: IO[str] | None = None,
    stderr: IO[str] | None = None,
    hub: bool = False,
) -> Program | subprocess.Popen[bytes]:
    """Start `python -m module arguments`; a stream that is not given is /dev/null.

    With `hub` it imports by itself the libraries that read where a hub is while they are imported.
    """
    if sys.platform != "linux":  # elsewhere libraries don't survive a fork
        command = [sys.executable, "-m", module, *map(str, arguments)]
        streams = [stream or subprocess.DEVNULL for stream in (stdin, stdout, stderr)]
        return subprocess.Popen(command, env=env, cwd=cwd, stdin=streams[0], stdout=streams[1], stderr=streams[2])
    wanted = [module, *map(str, arguments)], dict(env), str(cwd)
    ending, reply = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with reply, Path(os.devnull).open("r+") as nothing:
        handles = [(stream or nothing).fileno() for stream in (stdin, stdout, stderr)]
        socket.send_fds(_server(*(_NO_HUB if hub else ())), [json.dumps(wanted).encode()], [*handles, reply.fileno()])
    if not (pid := ending.recv(64)):
        raise RuntimeError("The process that forks has ended; it says why on the error stream.")
    return Program(int(pid), ending)


@functools.cache
def _server(*names: str) -> socket.socket:
    """Where to ask for a program; the process behind it has imported these modules, or all, and ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH")]))
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.preloaded", *names],
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            cwd=ROOT,
        )
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


def _serve(requests: socket.socket) -> tuple[list[str], dict[str, str], str]:
    """Fork for every request; returns in the new process, and never in this one."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for programs
    while message := (received := socket.recv_fds(requests, 2**20, 4))[0]:
        handles = received[1]
        if not os.fork():
            requests.close()
            _keep(socket.socket(fileno=handles.pop()), handles)
            for place, handle in enumerate(handles):
                os.dup2(handle, place)
                os.close(handle)
            wanted: tuple[list[str], dict[str, str], str] = json.loads(message)
            return wanted
        for handle in handles:
            os.close(handle)
    sys.exit()


def _keep(reply: socket.socket, handles: list[int]) -> None:
    """Return in a child of this process; here, say how it ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if not (child := os.fork()):
        reply.close()
        return
    for handle in handles:
        os.close(handle)
    reply.send(str(child).encode())
    reply.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
    os._exit(0)


def _preload(names: Sequence[str]) -> None:
    """Import these modules and check that no thread was begun: a fork would lose it."""
    for name in names:
        importlib.import_module(name)
    threads = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    others = [name for name in threads if name != "jemalloc_bg_thd"]  # pyarrow's allocator begins its own anew
    assert len(others) == 1, f"importing began threads: {threads}"


def _all() -> Sequence[str]:
    """All that the program's commands import."""
    from fspo.cli.main import main

    sys.argv = ["fspo", "--version"]
    with contextlib.suppress(SystemExit):
        main()  # sets up the libraries as the program does
    names = [found.name for found in pkgutil.walk_packages(fspo.__path__, "fspo.") if "__main__" not in found.name]
    return [*names, *_LATER]


if __name__ == "__main__":
    # What follows is on the lowest level, so that a program ends as the interpreter ends.
    _preload(sys.argv[1:] or _all())
    gc.freeze()
    (module, *sys.argv[1:]), environment, folder = _serve(socket.socket(fileno=os.dup(0)))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[0] = folder
    numpy.random.seed()  # as in a new process; random does it by itself, and torch begins with a fixed seed
    runpy.run_module(module, run_name="__main__", alter_sys=True)
