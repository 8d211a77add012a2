"""What `.ci` decides by itself: with which Python the wheel is tried."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

WHEEL = Path(__file__).parents[1] / ".ci" / "wheel"
NONE_RUNS = "#!/bin/sh\necho 'pyenv: python9.9: command not found' >&2\nexit 127\n"
RUNS = f'#!/bin/sh\nexec {sys.executable} "$@"\n'


def command(place: Path, text: str) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    place.chmod(0o755)
    return place


def bash(script: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    path = ":".join([*map(str, folders), str(Path(shutil.which("bash") or "/bin/bash").parent), "/usr/bin", "/bin"])
    return subprocess.run(["bash", "-c", script], env={"PATH": path}, capture_output=True, text=True, check=False)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder of commands with a python9.9 that is there and does not run."""
    return command(tmp_path / "shims" / "python9.9", NONE_RUNS).parent


def test_the_first_python_that_runs_is_taken(broken: Path, tmp_path: Path) -> None:
    second, third = (command(tmp_path / name / "python9.9", RUNS) for name in ("second", "third"))
    found = bash(f"source {WHEEL}; find_python 9.9", broken, second.parent, third.parent)
    assert (found.returncode, found.stdout.strip()) == (0, str(second))


def test_a_python_of_pyenv_that_is_not_selected_is_found(broken: Path, tmp_path: Path) -> None:
    command(broken / "pyenv", f"#!/bin/sh\n[ $1 = root ] && echo {tmp_path}/pyenv\n")
    command(tmp_path / "pyenv/versions/9.8.1/bin/python9.8", RUNS)
    mine = command(tmp_path / "pyenv/versions/9.9.1/bin/python9.9", RUNS)
    found = bash(f"source {WHEEL}; find_python 9.9", broken)
    assert (found.returncode, found.stdout.strip()) == (0, str(mine))


def test_without_such_a_python_the_wheel_is_not_tried_and_nothing_fails(broken: Path) -> None:
    tried = bash(f"{WHEEL} 9.9", broken)
    assert (tried.returncode, tried.stdout.count("\n"), tried.stderr) == (0, 1, "")
    assert "python9.9" in tried.stdout
    assert bash(f"source {WHEEL}; find_python 9.9", broken).returncode != 0
