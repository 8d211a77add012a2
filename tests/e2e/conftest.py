"""Runs of the real program on a tiny model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TypedDict

import pytest

from tests import preloaded
from tests.conftest import once

ROOT = Path(__file__).parents[2]

_MAIN = """
from fspo.cli.main import main
main()
"""
_UNDRAWN = """
from fspo.evaluation.report.plot_entry import PlotEntry
PlotEntry.svg = PlotEntry.narrow = "<svg ></svg>"
"""
_ONE_DRAWN = """
from fspo.evaluation.report.plot_entry import PlotEntry
draw = PlotEntry.svg.fget
PlotEntry.svg = property(lambda plot: draw(plot) if plot.name == "accuracy-by-shots" else "<svg ></svg>")
PlotEntry.narrow = "<svg ></svg>"
"""
_READ_LATE = {"COLUMNS", "TERM"}
"""Variables that no library reads while it is imported."""
_OF_A_HUB = {"HF_ENDPOINT", "HF_HOME", "HF_HUB_OFFLINE", "HF_TOKEN"}
"""Variables that `preloaded` reads again for each program."""


class Forked(TypedDict):
    """Options of `preloaded.run` and `preloaded.start`."""

    env: dict[str, str]
    cwd: Path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fspo", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """As a user's, with the sources of this checkout and without a hub."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}


def run(
    *arguments: object,
    code: int = 0,
    stdin: str = "",
    new: bool = False,
    undrawn: bool = False,
    first: str = "",
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run `fspo` and check its exit code; `new` for a process that imports its libraries itself.

    With `undrawn` the plots of a report are empty, since drawing takes most of its time. `first` is code that runs
    before the command, in its process.
    """
    program = _program(_UNDRAWN + first if undrawn else first)
    if new or not variables.keys() <= _READ_LATE | _OF_A_HUB:
        done = _new([*program, *arguments], stdin, variables)
    else:
        done = preloaded.run(*program, *arguments, stdin=stdin, **_forked(variables))
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def _new(program: Sequence[object], stdin: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *(["-m"] if program[0] != "-c" else []), *map(str, program)],
        capture_output=True,
        text=True,
        input=stdin,
        env=environment(**variables),
        cwd=ROOT,
        check=False,
        timeout=1500,
    )


def _forked(variables: dict[str, str]) -> Forked:
    """What `preloaded` needs for a program with these variables."""
    return {"env": environment(**variables), "cwd": ROOT}


def _program(first: str) -> list[str]:
    """What is run for a command, after this code."""
    return ["-c", first + _MAIN] if first else ["fspo"]


def start(
    *arguments: object,
    stdin: IO[str] | None = None,
    stdout: IO[str] | None = None,
    stderr: IO[str] | None = None,
    first: str = "",
    **variables: str,
) -> preloaded.Program | subprocess.Popen[bytes]:
    """Start `fspo` in a process that has the libraries already; `first` is code that runs before the command."""
    streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
    return preloaded.start(*_program(first), *arguments, **streams, **_forked(variables))


def tiny(model: Path, output: Path, *more: str) -> Sequence[object]:
    """The options of a run of configs/tiny.yaml."""
    return ["--config", ROOT / "configs/tiny.yaml", "--set", f"model={model}", "--output", output, *more]


@pytest.fixture(scope="session")
def finished(speaking_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run by a new interpreter, with one plot; not to be changed."""

    def make(folder: Path) -> None:
        assert "Report:" in run("run", *tiny(speaking_model_path, folder), new=True, first=_ONE_DRAWN).stdout

    # Each worker has a copy of its own, since commands lock the folder of a run.
    made = once(tmp_path_factory, "finished-run", make)
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("finished") / "run"))
