"""The Python example of the README, as it is printed, on the built-in model."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, environment

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.builtin_model
def test_the_python_example_runs_and_tells_two_people_apart(tmp_path: Path, builtin_model_path: Path) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", block],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime < 60, "the README says a minute"
    eve, other, answer = done.stdout.split("\n", 2)
    brief, lively = json.loads(eve)
    assert brief > lively
    brief, lively = json.loads(other)
    assert lively > brief
    assert answer.strip()
    assert (tmp_path / "runs/views/policy.json").is_file()
