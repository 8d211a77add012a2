"""The short program of `examples/`, as it is, on the built-in model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import preloaded
from tests.e2e.conftest import ROOT, environment

PROGRAM = ROOT / "examples/two_people.py"
RUN = """
import resource, runpy, sys
runpy.run_path(sys.argv[1], run_name="__main__")
print(resource.getrusage(resource.RUSAGE_SELF).ru_utime)
"""


@pytest.mark.builtin_model
def test_the_python_example_runs_and_tells_two_people_apart(tmp_path: Path, builtin_model_path: Path) -> None:
    done = preloaded.run("-c", RUN, PROGRAM, env=environment(), cwd=tmp_path, timeout=280)
    assert done.returncode == 0, done.stderr
    eve, other, *answer, seconds = done.stdout.strip().split("\n")
    assert float(seconds) < 50, "the program says a minute, and importing the libraries takes ten seconds of it"
    brief, lively = json.loads(eve)
    assert brief > lively
    brief, lively = json.loads(other)
    assert lively > brief
    assert "".join(answer).strip()
    assert (tmp_path / "runs/views/policy.json").is_file()
