"""`fspo synth --executor ray`: the real command over HTTP, with a worker killed in the middle."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from tests import preloaded
from tests.e2e.conftest import run, start
from tests.fake_endpoint import fake_endpoint, stats
from tests.synthesis.helpers import write_domain

pytest.importorskip("aiohttp")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed"),
]

IN_FLIGHT = 8


@dataclass(frozen=True)
class Made:
    """A finished dataset, made on this machine without Ray."""

    address: str
    """Of the endpoint, which has ended."""
    domain: Path
    output: Path
    requests: int
    """Different ones that were answered."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    domain, output = write_domain(folder / "mine"), folder / "here"
    with fake_endpoint() as address:
        run(*arguments(address, domain, output))
        return Made(address, domain, output, distinct(stats(address)))


def arguments(address: str, domain: Path, output: Path, *more: str) -> list[object]:
    settings = ["questions=20", "pairs=24", "shared_pairs=6", "responses=8", "shard=1", "meaning=false", "batch=64"]
    settings = [f"synthesis.{setting}" for setting in (*settings, "portraits=true", "disagreement=null")]
    settings += [f"endpoint.base_url={address}", "endpoint.model=scripted", f"endpoint.requests_in_flight={IN_FLIGHT}"]
    chosen = [word for setting in settings for word in ("--set", setting)]
    return ["synth", "--domain", domain, "--output", output, *chosen, *more]


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def distinct(seen: dict[str, Any]) -> int:
    """Different requests that were answered."""
    return int(seen["answered"] - seen["again"])


def kill_a_worker(process: preloaded.Program | subprocess.Popen[bytes], parts: Path) -> int:
    """Kill -9 the first worker that keeps answers; returns its process id."""
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        held = [str(path) for path in parts.glob("*.sqlite")]
        for child in psutil.Process(process.pid).children(recursive=True) if held else ():
            try:
                if any(file.path in held for file in child.open_files()):
                    os.kill(child.pid, signal.SIGKILL)
                    return int(child.pid)
            except psutil.Error:
                continue
        time.sleep(0.05)
    raise AssertionError("no worker was seen")


def test_the_executor_is_no_part_of_the_data(made: Made) -> None:
    before = digests(made.output / "data")
    run(*arguments(made.address, made.domain, made.output, "--executor", "ray"))  # no endpoint is there to ask
    assert digests(made.output / "data") == before


def test_a_worker_killed_in_the_middle_loses_nothing(made: Made, tmp_path: Path) -> None:
    there = tmp_path / "there"
    with fake_endpoint(latency=0.02, port=int(urlsplit(made.address).port or 0)) as address:
        options = arguments(address, made.domain, there, "--executor", "ray", "--ray-workers", "2")
        printed = tmp_path / "printed"
        with printed.open("w") as both:
            process = start(*options, stdout=both, stderr=both, RAY_worker_niceness="0")
            try:
                kill_a_worker(process, there / "answers-parts")
                code = process.wait(timeout=300)
            finally:
                process.kill()
        seen = stats(address)
    said = printed.read_text()
    assert code == 0, said
    assert digests(there / "data") == digests(made.output / "data")
    # A kill can lose what was answered and not yet written: at most what was under way at that worker.
    assert distinct(seen) == made.requests
    assert seen["again"] <= IN_FLIGHT // 2
    assert f"gave {made.requests:,} answers in all calls of this run" in said
    assert sorted(path.name for path in there.glob("answers*")) == ["answers.sqlite"]


def test_what_can_not_be_is_told(tmp_path: Path) -> None:
    domain = write_domain(tmp_path / "mine")
    address = "http://127.0.0.1:9/v1"
    error = run(*arguments(address, domain, tmp_path / "run", "--ray-workers", "2"), code=2).stderr
    assert error == "Error: --ray-address and --ray-workers are for --executor ray; add it, or leave them out.\n"
    missing = ["--executor", "ray", "--ray-address", "127.0.0.1:9"]
    with fake_endpoint() as address:
        error = run(*arguments(address, domain, tmp_path / "run3", *missing), code=2).stderr
    assert "Error: There is no Ray cluster at 127.0.0.1:9 (" in error
