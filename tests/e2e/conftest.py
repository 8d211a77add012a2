"""Runs of the real program on a tiny model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

Fspo = Callable[..., "subprocess.CompletedProcess[str]"]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fspo", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """As a user's, with the sources of this checkout and without a hub."""
    path = os.pathsep.join([*filter(None, [more.pop("PYTHONPATH", "")]), str(ROOT / "src")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}


def run(*arguments: object, code: int = 0, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `fspo` and check its exit code."""
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        input=stdin,
        env=environment(**variables),
        cwd=ROOT,
        check=False,
        timeout=1500,
    )
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def tiny(model: Path, output: Path, *more: str) -> Sequence[object]:
    """The options of a run of configs/tiny.yaml."""
    return ["--config", ROOT / "configs/tiny.yaml", "--set", f"model={model}", "--output", output, *more]


@pytest.fixture(scope="session")
def finished(speaking_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run; not to be changed."""
    output = tmp_path_factory.mktemp("finished") / "run"
    done = run("run", *tiny(speaking_model_path, output))
    assert "Report:" in done.stdout
    return output
