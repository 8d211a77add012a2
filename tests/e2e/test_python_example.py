"""The short program of `examples/`, as it is, on the built-in model."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, environment

PROGRAM = ROOT / "examples/two_people.py"


@pytest.mark.builtin_model
def test_the_python_example_runs_and_tells_two_people_apart(tmp_path: Path, builtin_model_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, str(PROGRAM)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime < 60, "the program says a minute"
    eve, other, answer = done.stdout.split("\n", 2)
    brief, lively = json.loads(eve)
    assert brief > lively
    brief, lively = json.loads(other)
    assert lively > brief
    assert answer.strip()
    assert (tmp_path / "runs/views/policy.json").is_file()
