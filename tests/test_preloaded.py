"""A program from the process that forks is one as any other: its arguments, streams, end and death are its own."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import psutil
import pytest

from tests import forked_python
from tests.preloaded import start

PROGRAM = """
import atexit, os, sys
assert {"torch", "transformers", "peft"} <= sys.modules.keys(), "the libraries are there already"
atexit.register(print, "at exit")
print(__name__, sys.argv[1:], os.getcwd(), os.environ.get("OF_THE_TEST"), repr(sys.stdin.read()))
print("of the error stream", file=sys.stderr)
os.environ["LEFT_BEHIND"] = sys.modules["fspo"].left_behind = "1"
sys.exit(3)
"""


@pytest.fixture
def streams() -> Iterator[tuple[IO[str], ...]]:
    with ExitStack() as files:
        yield tuple(files.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3))


def program(folder: Path, text: str) -> dict[str, str]:
    """Write a module of the name `of_the_test`, and the environment that finds it."""
    (folder / "of_the_test.py").write_text(text)
    return {**os.environ, "OF_THE_TEST": "yes"}


def test_arguments_streams_environment_folder_and_end_are_its_own(tmp_path: Path, streams: tuple[IO[str], ...]) -> None:
    read, said, err = streams
    read.write("typed")
    read.seek(0)
    environment = program(tmp_path, PROGRAM)
    done = start("of_the_test", "a b", 2, env=environment, cwd=tmp_path, stdin=read, stdout=said, stderr=err)
    assert done.wait(60) == 3 == done.poll()
    said.seek(0), err.seek(0)
    assert said.read() == f"__main__ ['a b', '2'] {tmp_path} yes 'typed'\nat exit\n"
    assert err.read() == "of the error stream\n"


def test_nothing_is_left_of_an_earlier_program(tmp_path: Path) -> None:
    environment = program(tmp_path, PROGRAM)
    assert start("of_the_test", env=environment, cwd=tmp_path).wait(60) == 3
    program(tmp_path, "import fspo, os\nassert 'LEFT_BEHIND' not in os.environ and not hasattr(fspo, 'left_behind')")
    assert start("of_the_test", env=environment, cwd=tmp_path).wait(60) == 0


def test_an_error_is_shown_and_ends_it_with_1(tmp_path: Path, streams: tuple[IO[str], ...]) -> None:
    *_, err = streams
    environment = program(tmp_path, "raise ValueError('a bug')")
    assert start("of_the_test", env=environment, cwd=tmp_path, stderr=err).wait(60) == 1
    err.seek(0)
    assert err.read().endswith("ValueError: a bug\n")


def test_it_can_be_killed(tmp_path: Path) -> None:
    going = start("of_the_test", env=program(tmp_path, "import time; time.sleep(600)"), cwd=tmp_path)
    with pytest.raises(subprocess.TimeoutExpired):
        going.wait(0.2)
    assert going.poll() is None
    assert Path(f"/proc/{going.pid}").exists()
    going.kill()
    assert going.wait(60) == -signal.SIGKILL
    assert not Path(f"/proc/{going.pid}").exists()
    going.kill()  # nothing more to do


def test_where_a_hub_is_may_differ_from_program_to_program(tmp_path: Path, streams: tuple[IO[str], ...]) -> None:
    said = streams[1]
    text = (
        "import sys\nassert {'torch', 'transformers', 'huggingface_hub.hf_api'} <= sys.modules.keys()\n"
        "from huggingface_hub import HfApi, constants, hf_api\n"
        "assert constants.ENDPOINT == HfApi().endpoint == hf_api.api.endpoint\n"
        "print(constants.ENDPOINT, constants.HF_HUB_OFFLINE, constants.HF_HUB_CACHE, flush=True)"
    )
    for place in ("http://127.0.0.1:1", "http://127.0.0.1:2"):
        environment = program(tmp_path, text) | {
            "HF_ENDPOINT": place,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": f"/{place[-1]}",
        }
        assert start("of_the_test", env=environment, cwd=tmp_path, stdout=said).wait(60) == 0
    said.seek(0)
    assert said.read() == "http://127.0.0.1:1 False /1/hub\nhttp://127.0.0.1:2 False /2/hub\n"


def test_it_stands_in_for_an_interpreter(tmp_path: Path) -> None:
    python = forked_python.executable(tmp_path)
    code = "import os, sys; assert 'torch' in sys.modules; print(sys.argv, os.getcwd(), sys.stdin.read()); sys.exit(3)"
    command = [python, "-u", "-c", code, "a b"]
    done = subprocess.run(command, cwd=tmp_path, input="typed", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, f"['-c', 'a b'] {tmp_path} typed\n", "")
    module = subprocess.run([python, "-m", "fspo", "--version"], capture_output=True, text=True, check=True)
    assert module.stdout.startswith("fspo ")


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_what_stands_in_for_an_interpreter_and_its_program_end_together(tmp_path: Path, sign: signal.Signals) -> None:
    command = [
        forked_python.executable(tmp_path),
        "-c",
        "import os, time; print(os.getpid(), flush=True); time.sleep(600)",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as going:
        assert going.stdout is not None
        program = psutil.Process(int(going.stdout.readline()))
        going.send_signal(sign)
        assert going.wait(60) == -sign
        program.wait(60)


def test_what_stands_in_for_an_interpreter_dies_of_the_same_signal(tmp_path: Path) -> None:
    command = [forked_python.executable(tmp_path), "-c", "import os; os.kill(os.getpid(), 9)"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
