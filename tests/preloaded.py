"""Programs in processes of their own that have the libraries imported already.

Importing torch, transformers and peft is most of what a command on a tiny model costs. One process imports them for all
processes of a run of pytest, does nothing else, and forks for each program: `python -m MODULE ARGUMENTS` or `python -c
CODE` with its own arguments, environment, folder and streams, which can be killed at any moment. The workers of pytest
are such programs too (`tests.forked_python`). A program ends as the interpreter ends, but takes no module apart, and it
is killed if the process that asked for it ends first. It also differs from a new process in three things: what a
library reads from the environment while it is imported, except where a hub is; the seed of hashes; and what fspo keeps
once it is built or read, such as its commands and its domains. So a test that sets such a variable, replaces the
function of a command, or is about starting, starts the program itself.
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
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import IO, Any, NoReturn

import numpy
import typer

import fspo
from tests.unsynced import unsync

__all__ = ["Program", "forking", "run", "start"]

ROOT = Path(__file__).parents[1]
_LATER = (
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "openai.resources.chat.completions",
    "pyarrow.parquet",
    "sklearn.linear_model",
    "transformers.models.llama.modeling_llama",
    "transformers.models.llama.tokenization_llama",
)
"""Imported by commands while they work."""


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
                self.returncode = int(self._ending.recv(64) or -signal.SIGKILL)  # nothing: who would say it is gone
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
    synced: bool = True,
) -> Program | subprocess.Popen[bytes]:
    """Start `python -m module arguments`, or `python -c CODE` if `module` is -c; a stream not given is /dev/null.

    It writes as slowly as a user's program, so that a kill can hit it there; without `synced` it does not wait for the
    disk.
    """
    if sys.platform != "linux":  # elsewhere libraries don't survive a fork
        command = [sys.executable, *(["-m"] if module != "-c" else []), module, *map(str, arguments)]
        streams = [stream or subprocess.DEVNULL for stream in (stdin, stdout, stderr)]
        return subprocess.Popen(command, env=env, cwd=cwd, stdin=streams[0], stdout=streams[1], stderr=streams[2])
    wanted = [module, *map(str, arguments)], dict(env), str(cwd), synced
    ending, reply = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with reply, Path(os.devnull).open("r+") as nothing:
        handles = [(stream or nothing).fileno() for stream in (stdin, stdout, stderr)]
        socket.send_fds(_server(), [json.dumps(wanted).encode()], [*handles, reply.fileno()])
    if not (pid := ending.recv(64)):
        raise RuntimeError("The process that forks has ended; it says why on the error stream.")
    return Program(int(pid), ending)


def run(
    module: str,
    *arguments: object,
    env: Mapping[str, str],
    cwd: Path = ROOT,
    stdin: str = "",
    timeout: float = 1500,
) -> subprocess.CompletedProcess[str]:
    """`start` it, wait for its end, and return what it said."""
    with ExitStack() as files:
        read, said, err = (files.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3))
        read.write(stdin)
        read.seek(0)
        program = start(module, *arguments, env=env, cwd=cwd, stdin=read, stdout=said, stderr=err, synced=False)
        try:
            code = program.wait(timeout)
        finally:
            program.kill()
        said.seek(0), err.seek(0)
        return subprocess.CompletedProcess([module, *map(str, arguments)], code, said.read(), err.read())


def _like_subprocess(
    command: Sequence[str], *, env: Mapping[str, str], **_: object
) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` of `python -m MODULE ARGUMENTS`, whose output is read and whose errors are shown."""
    done = run(*command[2:], env=env)
    sys.stderr.write(done.stderr)
    return done


forking = SimpleNamespace(run=_like_subprocess, Popen=subprocess.Popen, PIPE=subprocess.PIPE)
"""In place of the module `subprocess` in a benchmark whose figures a test doesn't look at."""


@functools.cache
def _server() -> socket.socket:
    """A connection to the process that forks, which the first to need it starts, and which ends after the last one."""
    name = f"\0fspo-tests-{os.getuid()}-{os.environ.get('FSPO_TESTS', os.getpid())}"  # in no folder
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(name)
        except ConnectionRefusedError:
            connection.close()
            _start_server(name)
        else:
            atexit.register(connection.close)
            return connection


def _start_server(name: str) -> None:
    """Start the process that listens there, unless another worker does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        try:
            listening.bind(name)
        except OSError:
            return time.sleep(0.01)
        listening.listen(64)
        path = os.pathsep.join(filter(None, [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH")]))
        command, environment = [sys.executable, "-m", "tests.preloaded"], {**os.environ, "PYTHONPATH": path}
        subprocess.run(command, stdin=listening, stdout=subprocess.DEVNULL, env=environment, cwd=ROOT, check=True)


Wanted = tuple[list[str], dict[str, str], str, bool]
"""Module and arguments, environment, folder, and whether it waits for the disk."""


def _serve(listening: socket.socket) -> Wanted:
    """Fork for the requests of all workers until the last has ended; returns in every new process, never in this."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all, and this one says how the others end
    workers = [listening.accept()[0]]
    while workers:
        for ready in select.select([listening, *workers], [], [])[0]:
            if ready is listening:
                workers.append(listening.accept()[0])
                continue
            message, handles, *_ = socket.recv_fds(ready, 2**20, 4)
            if not message:
                workers.remove(ready)
                ready.close()
            elif wanted := _fork(message, handles, listening, *workers):
                return wanted
    sys.exit()


def _fork(message: bytes, handles: list[int], *inherited: socket.socket) -> Wanted | None:
    """Fork for a request; returns what is wanted in the new process, and None in this one."""
    if os.fork():
        return _close(*handles)
    _close(*inherited)
    _keep(socket.socket(fileno=handles.pop()), handles)
    for place, handle in enumerate(handles):
        os.dup2(handle, place)
        os.close(handle)
    wanted: Wanted = json.loads(message)
    return wanted


def _close(*handles: int | socket.socket) -> None:
    for handle in handles:
        os.close(handle) if isinstance(handle, int) else handle.close()


def _keep(reply: socket.socket, handles: list[int]) -> None:
    """Return in a child of this process; here, say how it ends, and kill it if who asked for it is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if not (child := os.fork()):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        reply.close()
        return
    for handle in handles:
        os.close(handle)
    with contextlib.suppress(ConnectionError):  # who asked is gone
        reply.send(str(child).encode())
    if reply in select.select([reply, os.pidfd_open(child)], [], [])[0]:
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(ConnectionError):
        reply.send(str(code).encode())
    os._exit(0)


def _preload(names: Sequence[str]) -> None:
    """Import these modules for all that is forked, and check that no thread was begun: a fork would lose it."""
    for name in names:
        importlib.import_module(name)
    _read_lists()
    _compile_templates()
    _build_commands()
    threads = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    others = [name for name in threads if name != "jemalloc_bg_thd"]  # pyarrow's allocator begins its own anew
    assert len(others) == 1, f"importing began threads: {threads}"
    gc.freeze()


def _read_lists() -> None:
    """Read what is slow to read: lists of words, what tells languages apart, domains, transformers' table of names."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    from fspo.judging.attributes import ATTRIBUTES
    from fspo.synthesis.domain import load_domain
    from fspo.synthesis.domain_files import domain_names
    from fspo.synthesis.model_texts import _identifier

    get_checkpoint_conversion_mapping("llama")
    for attribute in ATTRIBUTES.values():
        attribute.measure("A word of a text.")
    _identifier()
    for name in domain_names():
        load_domain(name)


def _compile_templates() -> None:
    """Compile those of the report, which takes longer than a small one's plots."""
    from fspo.evaluation.report.formatting import environment

    pages = environment()
    for name in pages.list_templates():
        pages.get_template(name)


def _build_commands() -> None:
    """Build the commands of the program with the readers of their options: this takes longer than most calls."""
    from fspo.cli.main import app

    verbs: Any = typer.main.get_command(app)
    commands = [verbs.get_command(None, name) for name in verbs.list_commands(None)]
    for command in commands:
        commands += getattr(command, "commands", {}).values()  # which this loop reaches too
        for parameter in command.params:
            parameter.get_runtime_param()


def _all() -> Sequence[str]:
    """All that the program's commands import."""
    from fspo.cli.main import main

    sys.argv = ["fspo", "--version"]
    os.environ["THP_MEM_ALLOC_ENABLE"] = "0"  # read once for all programs; it would hide what tests of memory count
    with contextlib.suppress(SystemExit):
        main()  # sets up the libraries as the program does
    found = (module.name for module in pkgutil.walk_packages(fspo.__path__, "fspo."))
    # Migrations run when alembic imports them.
    names = [name for name in found if "__main__" not in name and ".migrations." not in name]
    return [*names, *_LATER]


def _read_hub_again() -> None:
    """Read from the environment where a hub is: its library does so while it is imported."""
    constants = importlib.reload(importlib.import_module("huggingface_hub.constants"))
    importlib.import_module("huggingface_hub.hf_api").api.endpoint = constants.ENDPOINT


def _run(module: str) -> None:
    """Run a module, or the code of `-c`, as the interpreter does."""
    if module == "-c":
        code = compile(sys.argv.pop(1), "<string>", "exec")
        sys.argv[0] = module
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(code, main.__dict__)
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end(code: object) -> NoReturn:
    """End as the interpreter ends, but take nothing apart: that would copy all that was imported."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    # What follows is on the lowest level, so that an error ends a program as it ends the interpreter.
    if os.fork():  # it goes on after the worker that has started it
        os._exit(0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for programs
    _preload(_all())
    (module, *sys.argv[1:]), environment, folder, synced = _serve(socket.socket(fileno=os.dup(0)))
    os.environ.clear()
    os.environ.update(environment)
    _read_hub_again()
    os.chdir(folder)
    if not synced:
        unsync()
    sys.path[0] = folder
    numpy.random.seed()  # as in a new process; random does it by itself, and torch begins with a fixed seed
    try:
        _run(module)
    except SystemExit as end:
        _end(end.code)
    _end(None)
